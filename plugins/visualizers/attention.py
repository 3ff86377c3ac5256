"""`attention`: where the heads of a block look, as pictures of token against token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from onnxlens.plugins.options import Option
from onnxlens.plugins.visualizers.base import View, Visualizer
from onnxlens.plugins.visualizers.labels import ink, printable, short, thinned, tint, visible
from onnxlens.plugins.visualizers.page import plotly_page
from onnxlens.plugins.visualizers.rendering import Rendering
from onnxlens.runtime.config import ModelConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["Attention", "AttentionRendering"]

_MEANING = {
    "pattern": "share of a token's attention",
    "scores": "scores, before the softmax",
}
# One end for what is never negative, two about zero for the rest; both are read in grey and by the colour-blind.
_SCALES = {"pattern": "Blues", "scores": "RdBu_r"}
_MASKED = "#dddddd"

_STRONGEST = 4  # tokens that a terminal names for each row
_LABEL = 14  # characters of a token beside an axis
_INCHES = 0.16  # that a label takes


@dataclass
class Attention(Visualizer):
    """Where the heads of a block look: how much each token attends to those before it."""

    layer: Annotated[int, Option("the block; negative ones count from the end")] = 0
    head: Annotated[int | None, Option("one head, negative ones from the end; all of the block if left out")] = None
    values: Annotated[
        Literal["pattern", "scores"],
        Option("the pattern, shares that add up to 1 in each row, or the scores that it is the softmax of"),
    ] = "pattern"

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The pattern or the scores of one block."""
        return (self._hook_point(config),)

    def draw(self, view: View) -> AttentionRendering:
        """Returns the attention of one head or of all."""
        count = view.config.n_head
        heads = list(range(count)) if self.head is None else [self.numbered("head", count)]
        layer = self.numbered("layer", view.config.n_layer)
        weights = view.cache[self._hook_point(view.config)][heads]  # [heads, Q, K]
        return AttentionRendering(view.model, layer, heads, view.str_tokens, weights, self.values)

    def _hook_point(self, config: ModelConfig) -> str:
        if self.head is not None:
            self.numbered("head", config.n_head)  # before anything is computed
        kind = "hook_pattern" if self.values == "pattern" else "hook_attn_scores"
        return f"blocks.{self.numbered('layer', config.n_layer)}.attn.{kind}"


class AttentionRendering(Rendering):
    """The attention of some heads of a block, in every format.

    Args:
        model: the model's name.
        layer: the block.
        heads: the numbers of its heads.
        str_tokens: the tokens' texts.
        weights: [heads, Q, K]: what each token, Q, makes of each, K; -inf where scores are masked.
        values: "pattern" or "scores".
    """

    def __init__(
        self,
        model: str,
        layer: int,
        heads: Sequence[int],
        str_tokens: Sequence[str],
        weights: np.ndarray,
        values: Literal["pattern", "scores"],
    ) -> None:
        self.model, self.layer, self.heads = model, layer, heads
        self.str_tokens, self.weights, self.values = str_tokens, weights, values

    def text(self) -> RenderableType:
        """What each token attends to most; of several heads, what the last token does."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        if len(self.heads) == 1:
            heading = f"What each token attends to most ({_MEANING[self.values]}):"
            for name in ("position", "token", "attends to"):
                table.add_column(name, justify="right" if name == "position" else "left", overflow="fold")
            for position, token in enumerate(self.str_tokens):
                row = self._strongest(self.weights[0, position])
                table.add_row(str(position), Text(repr(token)), row)
        else:
            last = repr(self.str_tokens[-1])
            heading = f"What the last token, {last}, attends to most ({_MEANING[self.values]}):"
            table.add_column("head", justify="right")
            table.add_column("attends to", overflow="fold")
            for head, weights in zip(self.heads, self.weights, strict=True):
                table.add_row(str(head), self._strongest(weights[-1]))
        return Group(Text(self._title()), "", Text(heading), "", table)

    def figure(self) -> Figure:
        """A map of tokens against tokens for each head, all in one scale."""
        from matplotlib import colormaps
        from matplotlib.figure import Figure

        columns = math.ceil(math.sqrt(len(self.heads)))
        rows = math.ceil(len(self.heads) / columns)
        tokens = len(self.str_tokens)
        side = min(11.0, max(3.5, 0.25 * tokens)) if len(self.heads) == 1 else 2.4
        figure = Figure(figsize=(columns * side + 1.6, rows * side + 1.2), layout="compressed")
        figure.suptitle(self._title(), fontsize=10, parse_math=False)
        least, most = self._limits()
        colours = colormaps[_SCALES[self.values]].with_extremes(bad=_MASKED)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(self.heads) :]:
            axes.set_axis_off()
        # One pixel of the picture for a cell, where there are more cells than pixels: a mean would hide single ones.
        how = {"cmap": colours, "vmin": least, "vmax": most, "interpolation": "nearest"}
        for axes, head, weights in zip(grid.flat, self.heads, self._shown(), strict=False):
            image = axes.imshow(weights, **how)
            if len(self.heads) > 1:
                axes.set_title(f"head {head}", fontsize=8)
            self._label(axes, int(side / _INCHES) if len(self.heads) == 1 else 0)
        bar = figure.colorbar(image, ax=grid, shrink=0.8)
        bar.set_label(_MEANING[self.values], fontsize=8)
        bar.ax.tick_params(labelsize=7)
        return figure

    def html(self) -> str:
        """A page with a map of one head, picked there; the pointer reads the exact values."""
        import plotly.graph_objects as go

        labels = [  # plotly reads HTML in them; the number tells tokens apart that are the same
            f"{position} {escape(short(visible(token), _LABEL))}" for position, token in enumerate(self.str_tokens)
        ]
        figure = go.Figure(layout=self._layout())
        for head, weights in zip(self.heads, self._shown(), strict=True):
            figure.add_heatmap(
                z=weights.astype(np.float32),
                x=labels,
                y=labels,
                name=f"head {head}",
                visible=head == self.heads[0],
                coloraxis="coloraxis",
                hoverongaps=False,
                hovertemplate="%{y} attends to<br>%{x}: <b>%{z}</b>",
            )
        return plotly_page(self._title(), figure)

    def data(self) -> Any:
        """The model, the tokens, and of each head a row of numbers for each token; null where one is masked."""
        whole = self.weights.astype(object)
        whole[~np.isfinite(self.weights)] = None
        return {
            "model": self.model,
            "layer": self.layer,
            "values": self.values,
            "tokens": list(self.str_tokens),
            "heads": [{"head": head, "values": rows} for head, rows in zip(self.heads, whole.tolist(), strict=True)],
        }

    def _title(self) -> str:
        which = f"head {self.heads[0]}" if len(self.heads) == 1 else f"{len(self.heads)} heads"
        return f"{printable(self.model)}: attention {self.values}, block {self.layer}, {which}"

    def _limits(self) -> tuple[float, float]:
        """What the ends of the scale stand for."""
        if self.values == "pattern":
            return 0.0, 1.0
        finite = self.weights[np.isfinite(self.weights)]
        largest = float(np.abs(finite).max(initial=0.0)) or 1.0
        return -largest, largest

    def _shown(self) -> np.ndarray:
        """The weights, NaN where a token is masked: later than the one that looks, and without any share."""
        later = np.triu(np.ones(self.weights.shape[1:], bool), k=1)
        is_masked = ~np.isfinite(self.weights) | (later & (self.weights == 0))
        shown: np.ndarray = np.where(is_masked, np.nan, self.weights)
        return shown

    def _strongest(self, weights: np.ndarray) -> Text:
        """The tokens with the largest weights, [K], each on its colour."""
        from rich.text import Text

        _, most = self._limits()
        row = Text()
        for key in np.argsort(-weights, kind="stable")[:_STRONGEST].tolist():
            weight = float(weights[key])
            if not math.isfinite(weight) or (self.values == "pattern" and weight < 0.005):
                break
            ground = tint(min(1.0, max(0.0, weight / most)))
            row.append(f"{self.str_tokens[key]!r} {weight:.2f}", style=f"{ink(ground)} on {ground}")
            row.append(" ")
        return row

    def _label(self, axes: Axes, room: int) -> None:
        """Names the tokens beside the axes, as many as there is room for; numbers them where there is none."""
        axes.set_xlabel("attended to" if room else "", fontsize=8)
        axes.set_ylabel("token" if room else "", fontsize=8)
        axes.tick_params(labelsize=7, length=2)
        if not room:
            return
        places = thinned(len(self.str_tokens), room)
        labels = [short(visible(self.str_tokens[place]), _LABEL) for place in places]
        for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
            axis.set_ticks(places, labels, rotation=rotation, family="monospace", parse_math=False)

    def _layout(self) -> dict[str, Any]:
        least, most = self._limits()
        buttons = [
            {"label": f"head {head}", "method": "restyle", "args": ["visible", [one == head for one in self.heads]]}
            for head in self.heads
        ]
        menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
        scale = {"colorscale": _SCALES[self.values].removesuffix("_r"), "cmin": least, "cmax": most}
        return {
            "coloraxis": {
                **scale,
                "reversescale": _SCALES[self.values].endswith("_r"),
                "colorbar": {"title": {"text": _MEANING[self.values], "side": "right"}},
            },
            "plot_bgcolor": _MASKED,
            "xaxis": {"title": "attended to", "constrain": "domain", "showgrid": False, "tickangle": -90},
            "yaxis": {"title": "token", "constrain": "domain", "showgrid": False, "autorange": "reversed"}
            | {"scaleanchor": "x"},  # so that cells are squares
            "updatemenus": [menu] if len(self.heads) > 1 else [],
            "margin": {"t": 60},
        }
