"""`ablation`: how much each of the heads supports a prediction, by what is lost without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.drawing.labels import printable
from onnxlens.plugins.options import Option
from onnxlens.plugins.viewing.metric import FLOOR, metric_of
from onnxlens.plugins.viewing.visualizer import View, Visualizer
from onnxlens.runtime.bundle.config import ModelConfig

__all__ = ["Ablation"]


@dataclass
class Ablation(Visualizer):
    """How much each attention head supports a prediction: by how much the prediction is less without it."""

    token: Annotated[str | None, Option("the token predicted, as its text; the most probable one if left out")] = None
    against: Annotated[str | None, Option("a token whose logit is subtracted; else the log-probability")] = None
    operation: Annotated[
        Literal["zero", "mean"], Option("what takes the place of the head's output: 0, or its mean over the text")
    ] = "zero"

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """None: the sweep runs the model."""
        return ()

    def draw(self, view: View) -> Heatmap:
        """Returns the effect of each head."""
        from onnxlens.analysis import ablate_heads

        metric, unit, signs = metric_of(view, self.token, self.against)
        found = ablate_heads(view.model_lens, view.ids, metric, operation=self.operation)
        return Heatmap(
            f"{printable(view.model)}: how much each head supports the answer: the {unit} with all heads, "
            f"{found.baseline:.4g}, minus what it is without this one",
            -found.effects,
            [f"block {layer}" for layer in range(view.config.n_layers)],
            [f"head {head}" for head in range(found.values.shape[1])],
            unit=unit,
            floor=FLOOR,
            signs=signs,
            row_axis="block",
            column_axis="head",
        )
