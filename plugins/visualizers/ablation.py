"""`ablation`: how much each head supports a prediction, measured by running without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.metric import FLOOR, metric_of
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.runtime._bundle.config import ModelConfig

__all__ = ["Ablation"]


@dataclass
class Ablation(Visualizer):
    """How much each attention head supports a prediction: how much lower it is without the head."""

    token: Annotated[str | None, Option("the predicted token, as text; the most probable one if left out")] = None
    against: Annotated[
        str | None, Option("a token whose logit is subtracted; if left out, the log-probability is measured")
    ] = None
    operation: Annotated[
        Literal["zero", "mean"], Option("the replacement of the head's output: 0, or its mean over the text")
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
            f"{found.baseline:.4g}, minus that without this one",
            -found.effects,
            [f"block {layer}" for layer in range(view.config.n_layers)],
            [f"head {head}" for head in range(found.values.shape[1])],
            unit=unit,
            floor=FLOOR,
            signs=signs,
            row_axis="block",
            column_axis="head",
        )
