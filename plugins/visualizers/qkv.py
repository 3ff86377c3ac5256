"""`qkv`: query, key and value of one head, and the computation of one score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.strongest import read_again, strongest_head
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table
from onnxlens.runtime._bundle.config import ModelConfig

__all__ = ["QKV"]


@dataclass
class QKV(Visualizer):
    """Queries, keys and values of one head, and the dot product of one pair, element by element."""

    layer: Annotated[
        int | None, Option("the block, negative from the end; if left out, that of the strongest head")
    ] = None
    head: Annotated[
        int | None,
        Option(
            "the head, negative from the end; if left out, the one that changes the logit of the predicted token most"
        ),
    ] = None
    query: Annotated[int, Option("the position of the query, negative from the end")] = -1
    key: Annotated[int | None, Option("the position of the key; the one with the most attention if left out")] = None

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """Queries, keys, values, scores and pattern of one block; none if the block will be chosen."""
        layer, head = self._named(config)
        return () if layer is None or head is None else _points(layer, config)

    def draw(self, view: View) -> Stack:
        """Returns the three matrices, and the pair."""
        named, query = self._named(view.config), self.position_option("query", len(view.ids))
        layer, head, why = strongest_head(view, *named, position=query)
        cache = read_again(view, _points(layer, view.config)) if why else view.cache
        group = head // (view.config.n_heads // view.config.key_value_heads)  # the head whose keys and values it uses
        rotated = _rotated(view.config)
        q = cache[f"{rotated}q", layer][:, head]  # [P, d]
        k, v = (cache[name, layer][:, group] for name in (f"{rotated}k", "v"))  # [P, d]
        scores, pattern = (cache[name, layer][head] for name in ("attn_scores", "pattern"))  # [Q, K]
        key = int(pattern[query].argmax()) if self.key is None else self.position_option("key", len(view.ids))
        labels, width = view.labels, q.shape[1]
        dimensions = [str(dimension) for dimension in range(width)]
        matrices = Heatmap(
            "Each token",
            {f"queries{', rotated' * bool(rotated)}": q, f"keys{', rotated' * bool(rotated)}": k, "values": v},
            labels,
            dimensions,
            unit="value",
            row_axis="token",
            column_axis="dimension of the head",
            columns_of_panels=3,
        )
        product = q[query] * k[key]  # [d]
        whose = f"{labels[query]} (query {query})", f"{labels[key]} (key {key})"
        pair = [
            Heatmap(
                title,
                one[np.newaxis],  # [1, d]
                [name],
                dimensions,
                unit="value",
                row_axis="",
                column_axis="dimension of the head",
            )
            for name, title, one in (
                ("q", f"The query of {whose[0]}", q[query]),
                ("k", f"The key of {whose[1]}, to which it attends", k[key]),
                ("q · k", "Their product, element by element", product),
            )
        ]
        total = float(product.sum(dtype=np.float64))
        divisor = view.config.attn_divisor(layer)
        score = float(scores[query, key])
        rows: list[list[str | float | None]] = [
            ["sum of the products, q · k", total],
            [f"divided by {divisor:.4g}, the score", total / divisor],
            ["the score that the model computed", score if math.isfinite(score) else "masked: the key is later"],
            ["its share of the query's attention, after the softmax", float(pattern[query, key])],
        ]
        title = f"{printable(view.model)}: queries, keys and values, block {layer}, head {head}{why}"
        return Stack(title, [matrices, *pair, Table("From the pair to the pattern", ["what", "value"], rows)])

    def _named(self, config: ModelConfig) -> tuple[int | None, int | None]:
        """The block and the head, as far as they are named."""
        layer = None if self.layer is None else self.index_option("layer", config.n_layers)
        return layer, None if self.head is None else self.index_option("head", config.n_heads)


def _rotated(config: ModelConfig) -> str:
    return "rot_" if config.positional_embedding_type == "rotary" else ""


def _points(layer: int, config: ModelConfig) -> tuple[str, ...]:
    rotated = _rotated(config)
    names = (f"{rotated}q", f"{rotated}k", "v", "attn_scores", "pattern")
    return tuple(f"blocks.{layer}.attn.hook_{name}" for name in names)
