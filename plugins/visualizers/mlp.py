"""`mlp`: which neurons a text excites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table
from onnxlens.plugins.options import Option
from onnxlens.plugins.visualizers.base import View, Visualizer
from onnxlens.plugins.visualizers.labels import printable
from onnxlens.runtime.config import ModelConfig

__all__ = ["MLP"]


# Of `runtime.config.ACTIVATION_FUNCTIONS`.
_NAMES = {"gelu_new": "GELU", "gelu": "GELU", "relu": "ReLU", "silu": "SiLU"}


@dataclass
class MLP(Visualizer):
    """The strongest neurons of a block's MLP by token, before and after its activation function."""

    layer: Annotated[int, Option("the block; negative ones count from the end")] = 0
    neurons: Annotated[int, Option("how many of them", ge=1, le=200)] = 20

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """Before and after the GELU, and what the MLP adds to the stream."""
        block = f"blocks.{self.numbered('layer', config.n_layer)}"
        return f"{block}.mlp.hook_pre", f"{block}.mlp.hook_post", f"{block}.hook_mlp_out"

    def draw(self, view: View) -> Stack:
        """Returns the neurons that were strongest at any token."""
        layer = self.numbered("layer", view.config.n_layer)
        pre, post, out = (view.cache[name] for name in self.hook_points(view.config))  # [P, M], [P, M], [P, D]
        chosen = np.argsort(-np.abs(post).max(axis=0), kind="stable")[: self.neurons]  # [N]
        name = _NAMES[view.config.activation_function]
        maps = Heatmap(
            "The neurons",
            {f"into the {name}": pre[:, chosen].T, f"out of the {name}": post[:, chosen].T},  # [N, P] each
            [f"neuron {neuron}" for neuron in chosen.tolist()],
            view.labels,
            unit="activation",
            row_axis="neuron",
            column_axis="token",
            named_rows=True,
            columns_of_panels=2,
        )
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
        headings = ["position", "token", "strongest neuron", "its activation", "share above 0", "‖what is added‖"]
        return Stack(
            f"{printable(view.model)}: MLP of block {layer}, the {len(chosen)} strongest of {pre.shape[1]} neurons",
            [maps, Table("Each token", headings, rows)],
        )
