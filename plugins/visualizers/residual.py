"""`residual`: the residual stream after each component, and the contribution of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.lines import Lines
from onnxlens.plugins.charts.stack import Stack
from onnxlens.runtime._bundle.config import ModelConfig

__all__ = ["Residual"]


@dataclass
class Residual(Visualizer):
    """The residual stream after each component: its length and direction, and how much each component adds."""

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The embeddings, the outputs of attention and MLP of each block, and the final stream."""
        added = ("blocks.*.hook_attn_out", "blocks.*.hook_mlp_out")
        return ("hook_*embed", *added, f"blocks.{config.n_layers - 1}.hook_resid_post")

    def draw(self, view: View) -> Stack:
        """Returns lengths by component and token, and the stream after each component."""
        embeddings = [name for name in ("embed", "pos_embed") if f"hook_{name}" in view.cache]
        parts = {name: view.cache[name] for name in embeddings}
        for layer in range(view.config.n_layers):
            parts |= {f"{layer}_{name}": view.cache[f"{name}_out", layer] for name in ("attn", "mlp")}
        end = view.cache["resid_post", view.config.n_layers - 1].astype(np.float64)  # [P, D]
        if view.cache.changed:  # the difference that changes of the stream made
            parts["change"] = end - sum(one.astype(np.float64) for one in parts.values())
        added = np.stack(list(parts.values())).astype(np.float64)  # [C, P, D]
        stream = np.cumsum(added, axis=0)  # [C, P, D]
        lengths = np.linalg.norm(stream, axis=-1)  # [C, P]
        square = (end**2).sum(-1)
        share = (added * end).sum(-1) / np.where(square > 0, square, 1.0)  # [C, P]
        cosine = (stream * end).sum(-1) / np.where(square > 0, lengths * np.sqrt(square), 1.0)  # [C, P]
        names = list(parts)
        how: dict[str, Any] = {"row_axis": "component", "column_axis": "token"}
        charts = [
            Heatmap(
                "The length of each component's output",
                np.linalg.norm(added, axis=-1),
                names,
                view.labels,
                unit="‖added‖",
                **how,
            ),
            Heatmap(
                "The share of each component in the final stream: its projection on the stream's direction; the sum "
                "is 1",
                share,
                names,
                view.labels,
                unit="share",
                **how,
            ),
            Lines(
                "The stream after each component, mean over the tokens",
                {"length / final length": (lengths / lengths[-1]).mean(-1), "cosine with the end": cosine.mean(-1)},
                names,
                unit="ratio",
                axis="component",
            ),
        ]
        return Stack(f"{printable(view.model)}: residual stream", charts)
