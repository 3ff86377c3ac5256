"""`mlp`: the most active neurons of an MLP for a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.strongest import read_again, strongest_block
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.base import Chart, joined
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table
from onnxlens.runtime._bundle.config import ModelConfig

__all__ = ["MLP"]


# Of `runtime.config.ACTIVATION_FUNCTIONS`.
_HOW: dict[str, Any] = {
    "unit": "activation", "row_axis": "neuron", "column_axis": "token", "columns_of_panels": 2
}  # fmt: skip
_NAMES = {"gelu_new": "GELU", "gelu": "GELU", "relu": "ReLU", "silu": "SiLU"}


@dataclass
class MLP(Visualizer):
    """The strongest neurons of a block's MLP by token, before and after its activation function."""

    layer: Annotated[
        int | None,
        Option(
            "the block, negative from the end; if left out, the one whose MLP changes the logit of the predicted "
            "token most"
        ),
    ] = None
    neurons: Annotated[int, Option("how many neurons to show", ge=1, le=200)] = 20

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """Before and after the activation function, and the MLP's output; none if the block will be chosen."""
        return () if self.layer is None else _points(self.index_option("layer", config.n_layers), config)

    def draw(self, view: View) -> Stack:
        """Returns the neurons with the largest activations."""
        if self.layer is None:
            layer, why = strongest_block(view, "MLP")
            cache = read_again(view, _points(layer, view.config))
        else:
            layer, why, cache = self.index_option("layer", view.config.n_layers), "", view.cache
        pre, *gated, post, out = (cache[name] for name in _points(layer, view.config))  # [P, M] each, [P, D]
        chosen = np.argsort(-np.abs(post).max(axis=0), kind="stable")[: self.neurons]  # [N]
        name = _NAMES[view.config.act_fn]
        if gated:
            shown = {f"into the {name}": pre, "the factor of that": gated[0], "the product": post}
        else:
            shown = {f"into the {name}": pre, f"out of the {name}": post}
        maps = _Neurons(view, shown, chosen)
        rows = [
            [
                number,
                text,
                int(post[number].argmax()),
                float(post[number].max()),
                float((post[number] > 0).mean()),
                float(np.linalg.norm(out[number])),
            ]
            for number, text in enumerate(view.labels)
        ]
        headings = ["position", "token", "strongest neuron", "its activation", "share above 0", "‖output of the MLP‖"]
        title = f"{printable(view.model)}: MLP of block {layer}{why}; the {len(chosen)} strongest of its neurons"
        return Stack(title, [maps, Table("Each token", headings, rows)])


class _Neurons(Heatmap):
    """Some neurons of a block by token."""

    def __init__(self, view: View, values: dict[str, np.ndarray], chosen: np.ndarray) -> None:
        self._view, self._all, self._chosen = view, values, chosen  # [P, M] each, [N]
        shown = {name: one[:, chosen].T for name, one in values.items()}  # [N, P] each
        super().__init__("The neurons", shown, _names(chosen), view.labels, **_HOW)

    def minus(self, other: Chart) -> Chart | None:
        """Returns the neurons whose activations differ most, of all neurons."""
        if not isinstance(other, _Neurons) or [*other._all] != [*self._all] or other.is_unlike(self):
            return None
        changes = {name: one.astype(np.float64) - other._all[name] for name, one in self._all.items()}  # [P, M] each
        sizes = np.abs([*changes.values()][-1]).max(axis=0)  # [M]
        chosen = np.argsort(-sizes, kind="stable")[: len(self._chosen)]
        scale = self.scale.difference(other.scale)
        return Heatmap(
            f"activation, the largest changes of all {len(sizes):,} neurons",
            {name: one[:, chosen].T for name, one in changes.items()},
            _names(chosen),
            joined(other.columns, self.columns),
            limits=(scale.least, scale.most),
            signs=scale.signs,
            **{**_HOW, "unit": "difference, activation"},
        )

    def is_unlike(self, other: _Neurons) -> bool:
        """Whether the two are of texts or blocks of different sizes, or of different models."""
        shapes = [one.shape for one in self._all.values()]
        return shapes != [one.shape for one in other._all.values()] or self._view.model != other._view.model


def _points(layer: int, config: ModelConfig) -> tuple[str, ...]:
    block = f"blocks.{layer}"
    inside = ("pre", "pre_linear", "post") if config.gated_mlp else ("pre", "post")
    return (*(f"{block}.mlp.hook_{name}" for name in inside), f"{block}.hook_mlp_out")


def _names(chosen: np.ndarray) -> list[str]:
    return [f"neuron {neuron}" for neuron in chosen.tolist()]
