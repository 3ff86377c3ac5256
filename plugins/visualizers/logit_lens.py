"""`logit_lens`: what the model would predict if it ended after each block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.options import Option
from onnxlens.plugins.visualizers.base import View, Visualizer
from onnxlens.plugins.visualizers.labels import printable
from onnxlens.runtime.config import ModelConfig

__all__ = ["LogitLens"]


@dataclass
class LogitLens(Visualizer):
    """The most probable next token after each block, with its probability, and the rank of the final prediction.

    nostalgebraist 2020, interpreting GPT: the logit lens.
    """

    watch: Annotated[list[str], Option("the text of a token to follow through all blocks")] = field(
        default_factory=list
    )

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """None: the analysis of this name runs the model for each state of the stream."""
        return ()

    def draw(self, view: View) -> Heatmap:
        """Returns layers by positions, each cell with its top token."""
        from onnxlens.analysis.logit_lens import logit_lens

        found = logit_lens(view.model_lens, view.ids, top=1, watch=list(dict.fromkeys(self.watch)))
        best = "probability of the most probable"
        panels = {best: found.probabilities[:, :, 0], "probability of the final prediction": found.probability}
        ranks = [found.rank]
        for place, token in enumerate(found.watched):
            panels[f"probability of {view.shown(token)}"] = found.watched_probability[:, :, place]
            ranks.append(found.watched_rank[:, :, place])
        notes = {
            name: [[f"#{one}" for one in row] for row in rank.tolist()]
            for name, rank in zip(list(panels)[1:], ranks, strict=True)
        }
        notes[best] = [[view.shown(token) for token in row] for row in found.ids[:, :, 0].tolist()]
        return Heatmap(
            f"{printable(view.model)}: logit lens, what would be predicted if the model ended there",
            panels,
            found.labels,
            view.labels,
            unit="probability; # is the rank, 0 the first",
            row_axis="state",
            column_axis="token",
            limits=(0.0, 1.0),
            notes=notes,
        )
