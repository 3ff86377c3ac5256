"""`rollout`: attention over all blocks, and the distance and width of each head's attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.scale import PROBABILITY
from onnxlens.plugins.charts.stack import Stack
from onnxlens.runtime._bundle.config import ModelConfig

__all__ = ["Rollout"]


@dataclass
class Rollout(Visualizer):
    """Attention multiplied over the blocks, and how far back and how widely each head attends.

    Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers.
    """

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """All patterns."""
        return ("blocks.*.attn.hook_pattern",)

    def draw(self, view: View) -> Stack:
        """Returns the rollout after the last block, and the mean distance and entropy of each head."""
        from onnxlens.analysis._attention import distance_and_entropy, rolled_out

        layers, heads = range(view.config.n_layers), range(view.config.n_heads)
        patterns = np.stack([view.cache["pattern", layer] for layer in layers]).astype(np.float64)  # [L, H, Q, K]
        places = np.arange(len(view.ids))
        distance, entropy = distance_and_entropy(patterns)  # [L, H]
        names = [f"head {head}" for head in heads], [f"block {layer}" for layer in layers]
        maps = [
            Heatmap(title, values, names[1], names[0], unit=unit, row_axis="block", column_axis="head")
            for title, values, unit in (
                ("How far back each head attends", distance, "mean distance in tokens"),
                ("How widely each head attends", entropy, "mean entropy in nats"),
            )
        ]
        rolled = Heatmap(
            "Attention rollout after the last block",
            np.where(places <= places[:, np.newaxis], rolled_out(patterns)[-1], np.nan),  # [Q, K]
            view.labels,
            view.labels,
            unit="share of a token, by attention alone",
            row_axis="token",
            column_axis="source token",
            squares=True,
            limits=PROBABILITY,
        )
        return Stack(f"{printable(view.model)}: attention over all blocks", [rolled, *maps])
