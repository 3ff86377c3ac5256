"""`layernorm`: a normalisation of the residual stream, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.strongest import read_again, strongest_block
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime.errors import InputError

__all__ = ["LayerNorm"]


@dataclass
class LayerNorm(Visualizer):
    """A normalisation: the residual stream before it and after it, mean and scale of each token."""

    which: Annotated[
        Literal["ln1", "ln2", "ln_final"], Option("before attention, before the MLP, or before the unembedding")
    ] = "ln1"
    layer: Annotated[
        int | None,
        Option(
            "the block of ln1 or ln2, negative from the end; if left out, the one whose attention or MLP changes the "
            "logit of the predicted token most"
        ),
    ] = None
    position: Annotated[int, Option("the position of the token, negative from the end")] = -1

    def __post_init__(self) -> None:
        """Refuses a block for the normalisation that belongs to no block."""
        if self.which == "ln_final" and self.layer is not None:
            raise InputError("ln_final comes after all blocks, so it takes no layer: leave it out.")

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The stream before, the normalised one, and the scale; none if the block will be chosen."""
        if self.which == "ln_final":
            return _points(self.which, config.n_layers - 1)
        return () if self.layer is None else _points(self.which, self.index_option("layer", config.n_layers))

    def draw(self, view: View) -> Stack:
        """Returns the vectors of one token as stripes, and mean and scale of all tokens."""
        layer, why, cache = view.config.n_layers - 1, "", view.cache
        if self.which != "ln_final" and self.layer is None:
            layer, why = strongest_block(view, "attention" if self.which == "ln1" else "MLP")
            cache = read_again(view, _points(self.which, layer))
        elif self.which != "ln_final":
            layer = self.index_option("layer", view.config.n_layers)
        before, after, scale = (cache[name] for name in _points(self.which, layer))  # [P, D], [P, D], [P, 1]
        at, centres = self.position_option("position", len(view.ids)), view.config.normalization_type == "LN"
        mean = before.mean(axis=-1, dtype=np.float64)
        dimensions = [str(dimension) for dimension in range(before.shape[1])]
        how: dict[str, Any] = {"unit": "value", "row_axis": "stream", "column_axis": "dimension"}
        label = view.labels[at]
        stripes = [
            Heatmap(f"token {at}, {label}: {title}", values[at : at + 1], [row], dimensions, **how)
            for row, title, values in (
                ("before", "before", before),
                ("after", f"normalised, before {'weight and bias' if centres else 'the weight'}", after),
            )
        ]
        rows = [
            [number, text, float(mean[number]), float(scale[number, 0]), float(np.linalg.norm(before[number]))]
            for number, text in enumerate(view.labels)
        ]
        divisor = "variance" if centres else "mean square"
        headings = ["position", "token", "mean", f"scale, √({divisor} + ε)", "‖before‖"]
        where = "the final one" if self.which == "ln_final" else f"{self.which} of block {layer}{why}"
        title = f"{printable(view.model)}: {'layer' if centres else 'RMS'} normalisation, {where}"
        return Stack(title, [*stripes, Table("Each token", headings, rows)])


def _points(which: str, layer: int) -> tuple[str, ...]:
    if which == "ln_final":
        return f"blocks.{layer}.hook_resid_post", "ln_final.hook_normalized", "ln_final.hook_scale"
    block = f"blocks.{layer}"
    before = "hook_resid_pre" if which == "ln1" else "hook_resid_mid"
    return f"{block}.{before}", f"{block}.{which}.hook_normalized", f"{block}.{which}.hook_scale"
