"""`logit_lens`: what the model would predict if it ended after each block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.visualizers.base import View, Visualizer
from onnxlens.plugins.visualizers.labels import printable
from onnxlens.runtime.config import ModelConfig

__all__ = ["LogitLens"]


@dataclass
class LogitLens(Visualizer):
    """The most probable next token after each block, with its probability, and the rank of the final prediction.

    nostalgebraist 2020, interpreting GPT: the logit lens.
    """

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """None: the analysis of this name runs the model for each state of the stream."""
        return ()

    def draw(self, view: View) -> Heatmap:
        """Returns layers by positions, each cell with its top token."""
        from onnxlens.analysis.logit_lens import logit_lens

        found = logit_lens(view.model_lens, view.ids, top=1)
        notes = [[view.shown(token) for token in row] for row in found.ids[:, :, 0].tolist()]
        return Heatmap(
            f"{printable(view.model)}: logit lens, what would be predicted if the model ended there",
            {
                "probability of the most probable": found.probabilities[:, :, 0],
                "probability of the final prediction": found.probability,
            },
            found.labels,
            view.labels,
            unit="probability",
            row_axis="state",
            column_axis="token",
            limits=(0.0, 1.0),
            notes={
                "probability of the most probable": notes,
                "probability of the final prediction": [
                    [f"rank {rank}" for rank in row] for row in found.rank.tolist()
                ],
            },
        )
