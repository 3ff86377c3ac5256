"""`attention`: attention patterns of heads, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from onnxlens.plugins._drawing.labels import ink, printable, quoted_token, told_apart
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.base import Chart, numbers
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.links import Links
from onnxlens.plugins.charts.scale import PROBABILITY
from onnxlens.plugins.charts.stack import Stack
from onnxlens.runtime._bundle.config import ModelConfig

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["Attention", "AttentionMaps"]

_MEANING = {
    "pattern": "share of a token's attention",
    "scores": "scores, before the softmax",
}
_CHOSEN = "the head that attends most to a token other than the first and itself"
_STRONGEST = 4  # tokens that a terminal names for each row


@dataclass
class Attention(Visualizer):
    """Attention patterns: how much each token attends to earlier ones."""

    layer: Annotated[
        int | None, Option("the block, negative from the end; if left out, all blocks, or one that is chosen")
    ] = None
    head: Annotated[
        int | None,
        Option("the head, negative from the end; if left out, all heads, or one that is chosen if only one is shown"),
    ] = None
    values: Annotated[
        Literal["pattern", "scores", "steps", "lines"],
        Option(
            "the pattern, whose rows add up to 1; the scores, of which the pattern is the softmax; for one head, the "
            "steps from q and k to the pattern; or, for one head, its pattern as lines between tokens. If one head is "
            "shown and none is named, it is the head that attends most to a token other than the first and itself"
        ),
    ] = "pattern"

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The pattern or the scores of the blocks; for the steps of a head also its queries and keys."""
        if self.head is not None:
            self.index_option("head", config.n_heads)  # errors in options come before anything is computed
        kinds = {
            "pattern": ("pattern",),
            "scores": ("attn_scores",),
            "steps": ("q", "k", "attn_scores", "pattern"),
            "lines": ("pattern",),
        }[self.values]
        return tuple(f"blocks.{layer}.attn.hook_{kind}" for layer in self._layers(config) for kind in kinds)

    def draw(self, view: View) -> Chart:
        """Returns the attention of one head or of all."""
        layers = self._layers(view.config)
        count = view.config.n_heads
        heads = list(range(count)) if self.head is None else [self.index_option("head", count)]
        if self.values in ("steps", "lines"):
            layer, head = max(
                ((layer, head) for layer in layers for head in heads),
                key=lambda one: _share_of_others(view.cache["pattern", one[0]][one[1]]),
            )
            which = f"block {layer}, head {head}"
            if len(layers) * len(heads) > 1:
                which += f", {_CHOSEN}"
            return self._steps(view, layer, head, which) if self.values == "steps" else _lines(view, layer, head, which)
        values: Literal["pattern", "scores"]
        values, kind = ("pattern", "pattern") if self.values == "pattern" else ("scores", "attn_scores")
        weights = {(layer, head): view.cache[kind, layer][head] for layer in layers for head in heads}  # [Q, K] each
        return AttentionMaps(view.model, weights, view.pieces, view.labels, values)

    def _layers(self, config: ModelConfig) -> list[int]:
        return list(range(config.n_layers)) if self.layer is None else [self.index_option("layer", config.n_layers)]

    def _steps(self, view: View, layer: int, head: int, which: str) -> Stack:
        """Scores of all pairs, the masked ones, and the softmax."""
        q, k = (view.cache[name, layer][:, head].astype(np.float64) for name in ("q", "k"))  # [P, d]
        scores, pattern = (view.cache[name, layer][head] for name in ("attn_scores", "pattern"))  # [Q, K]
        divisor = view.config.attn_divisor(layer)
        steps = [
            (f"q · k / {divisor:.4g}, of all pairs", q @ k.T / divisor, "score"),
            ("Masked: no token attends to later ones", np.where(np.isfinite(scores), scores, np.nan), "score"),
            ("Softmax of each row: the pattern", _seen(pattern, "pattern"), _MEANING["pattern"]),
        ]
        charts = [
            Heatmap(
                title,
                values,
                view.labels,
                view.labels,
                unit=unit,
                row_axis="token",
                column_axis="attended to",
                squares=True,
                limits=PROBABILITY if unit != "score" else None,
            )
            for title, values, unit in steps
        ]
        title = f"{printable(view.model)}: from scores to pattern, {which}"
        return Stack(title, charts, side_by_side=True)


def _lines(view: View, layer: int, head: int, which: str) -> Links:
    return Links(
        f"{printable(view.model)}: attention pattern, {which}",
        view.cache["pattern", layer][head],
        view.labels,
        view.labels,
        unit=_MEANING["pattern"],
        row_axis="token",
        column_axis="attended to",
        limits=PROBABILITY,
    )


def _share_of_others(pattern: np.ndarray) -> float:
    """The mean over tokens of the largest attention to a token other than the first and itself."""
    others = np.tril(pattern, k=-1)[:, 1:]  # [Q, K - 1]
    return float(others.max(axis=-1, initial=0.0).mean())


class AttentionMaps(Heatmap):
    """The attention of some heads, in every format.

    Args:
        model: the model's name.
        weights: by block and head, [Q, K]: the number of each query and key; -inf where scores are masked.
        pieces: the tokens' texts for a reader.
        labels: the same as labels.
        values: "pattern" or "scores".
    """

    def __init__(
        self,
        model: str,
        weights: dict[tuple[int, int], np.ndarray],
        pieces: Sequence[str],
        labels: Sequence[str],
        values: Literal["pattern", "scores"],
    ) -> None:
        self.model, self.weights, self.pieces, self.values = model, weights, list(pieces), values
        layers, heads = (sorted({pair[axis] for pair in weights}) for axis in (0, 1))
        which = f"block {layers[0]}" if len(layers) == 1 else f"{len(layers)} blocks"
        which += f", head {heads[0]}" if len(heads) == 1 else f", {len(heads)} heads"
        names = [f"head {head}" if len(layers) == 1 else f"block {layer}, head {head}" for layer, head in weights]
        shares = [_share_of_others(one) if values == "pattern" else 0.0 for one in weights.values()]
        super().__init__(
            f"{printable(model)}: attention {values}, {which}",
            {
                name if len(names) > 1 else "": _seen(one, values)
                for name, one in zip(names, weights.values(), strict=True)
            },
            labels,
            labels,
            unit=_MEANING[values],
            row_axis="token",
            column_axis="attended to",
            limits=PROBABILITY if values == "pattern" else None,
            squares=True,
            columns_of_panels=len(heads) if len(layers) > 1 else None,
            first=(names[max(range(len(names)), key=shares.__getitem__)], _CHOSEN) if values == "pattern" else None,
        )

    def text(self) -> RenderableType:
        """What each token attends to most; of several heads, what the last token does."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        if len(self.weights) == 1:
            heading = f"What each token attends to most ({self.unit}):"
            for name in ("position", "token", "attends to"):
                table.add_column(name, justify="right" if name == "position" else "left", overflow="fold")
            (weights,) = self.weights.values()
            for position, token in enumerate(self.pieces):
                table.add_row(str(position), Text(quoted_token(token)), self._most(weights[position]))
        else:
            heading = f"What the last token, {quoted_token(self.pieces[-1])}, attends to most ({self.unit}):"
            has_blocks = len({layer for layer, _ in self.weights}) > 1
            for name in (["block"] if has_blocks else []) + ["head"]:
                table.add_column(name, justify="right")
            table.add_column("attends to", overflow="fold")
            for (layer, head), weights in self.weights.items():
                table.add_row(*([str(layer)] if has_blocks else []), str(head), self._most(weights[-1]))
        return Group(Text(self.title), "", Text(heading), "", table)

    def data(self) -> Any:
        """The model, the tokens, and for each head a row of numbers for each token; null where masked."""
        return {
            "model": self.model,
            "values": self.values,
            "tokens": self.pieces,
            "heads": [
                {"layer": layer, "head": head, "values": numbers(one)} for (layer, head), one in self.weights.items()
            ],
        }

    def _most(self, weights: np.ndarray) -> Text:
        """The tokens with the largest weights, [K], each on its colour."""
        from rich.text import Text

        row, names = Text(), told_apart([quoted_token(piece) for piece in self.pieces])
        for key in np.argsort(-weights, kind="stable")[:_STRONGEST].tolist():
            weight = float(weights[key])
            if not math.isfinite(weight) or (self.values == "pattern" and weight < 0.005):
                break
            ground = self.scale.tint(weight)
            row.append(f"{names[key]} {weight:.2f}", style=f"{ink(ground)} on {ground}")
            row.append(" ")
        return row


def _seen(weights: np.ndarray, values: str) -> np.ndarray:
    """The weights, [Q, K], with NaN where a key is masked."""
    later = np.triu(np.ones(weights.shape, bool), k=1)
    is_masked = ~np.isfinite(weights) | (later & (weights == 0) & (values == "pattern"))
    shown: np.ndarray = np.where(is_masked, np.nan, weights)
    return shown
