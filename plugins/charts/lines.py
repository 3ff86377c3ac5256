"""Numbers along an axis, as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.plugins._drawing.fonts import monospace
from onnxlens.plugins._drawing.labels import printable, short, thinned
from onnxlens.plugins._drawing.page import plotly_text
from onnxlens.plugins.charts.base import Chart, distinct, head, joined, numbers

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase
    from plotly.graph_objects import Figure
    from rich.console import RenderableType

__all__ = ["Lines"]

_LABEL = 14  # characters of a label
_INCHES = 0.16  # that a label takes
_WIDE = 48  # columns of a terminal's lines
_STEPS = "▁▂▃▄▅▆▇█"
# Okabe and Ito's colours, which colour-blind readers can distinguish, and a marker for each, for print in grey.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("solid", "dashed", "dotted", "dashdot")


class Lines(Chart):
    """One line or several over the same places.

    Args:
        title: the heading.
        lines: numbers by the name of the line, [N] each, NaN where there is none.
        places: labels along the axis, N.
        unit: the quantity and its unit.
        axis: the heading of the places.
        level: a number at which to draw a line, and the line's name.
        limits: the ends of the vertical axis, such as 0 and 1 for probabilities.
    """

    def __init__(
        self,
        title: str,
        lines: Mapping[str, Sequence[float] | np.ndarray],
        places: Sequence[str],
        *,
        unit: str,
        axis: str,
        level: tuple[float, str] | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self.title, self.unit, self.axis = printable(title), printable(unit), printable(axis)
        self.lines = {printable(name): np.asarray(values, np.float64) for name, values in lines.items()}
        self.places = [printable(place) for place in places]
        self.level, self.limits = level, limits
        for name, values in self.lines.items():
            if values.shape != (len(self.places),):
                raise ValueError(f"the line {name!r} has shape {values.shape}, not {(len(self.places),)}")

    def text(self) -> RenderableType:
        """A line of block characters for each, with its first and last number."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for heading in ("", "first", "", "last", "least", "most"):
            table.add_column(heading, justify="right" if heading else "left", overflow="fold")
        known = np.concatenate([values[np.isfinite(values)] for values in self.lines.values()] or [np.zeros(0)])
        least, most = self.limits or ((float(known.min()), float(known.max())) if known.size else (0.0, 0.0))
        for name, values in self.lines.items():
            shown = np.array([_largest(part) for part in np.array_split(values, min(_WIDE, len(values)))])
            share = (shown - least) / ((most - least) or 1.0)
            blocks = "".join(_STEPS[int(7 * min(1, max(0, one)) + 0.5)] if np.isfinite(one) else " " for one in share)
            finite = values[np.isfinite(values)]
            ends = [finite[0], finite[-1], finite.min(), finite.max()] if finite.size else []
            first, last, low, high = (f"{end:.3g}" for end in ends) if ends else ("",) * 4
            table.add_row(Text(short(name, 2 * _LABEL)), first, Text(blocks), last, low, high)
        level = [Text(f"{self.level[1]}: {self.level[0]:.4g}")] if self.level else []
        along = f"along: {self.axis}, from {self.places[0]} to {self.places[-1]}" if self.places else ""
        return Group(Text(self.title), Text(self.unit, style="dim"), "", table, "", Text(along), *level)

    def size(self) -> tuple[float, float]:
        """Width and height of the picture in inches."""
        return 9.0, 3.6

    def draw_on(self, figure: FigureBase) -> None:
        """Draws the lines."""
        head(figure, self.title, self.size()[0])
        axes = figure.subplots()
        along = np.arange(len(self.places))
        drawn = []
        for number, values in enumerate(self.lines.values()):
            drawn += axes.plot(
                along,
                values,
                color=_COLOURS[number % len(_COLOURS)],
                linestyle=_DASHES[number % len(_DASHES)],
                marker="." if len(self.places) <= 60 else "",
            )
        if self.level:
            axes.axhline(self.level[0], color="#444444", linewidth=0.8, linestyle="dotted")
            axes.text(0, self.level[0], f" {self.level[1]}", fontsize=7, va="bottom", parse_math=False)
        places = thinned(len(self.places), int(9.0 / _INCHES))
        labels = [short(self.places[place], _LABEL) for place in places]
        turned = 90 if max(map(len, labels), default=0) > 2 else 0
        axes.set_xticks(places, labels, rotation=turned, family=monospace(), parse_math=False)
        axes.set_xlabel(self.axis, fontsize=8, parse_math=False)
        axes.set_ylabel(self.unit, fontsize=8, parse_math=False)
        if room := self._room():
            axes.set_ylim(*room)
        axes.tick_params(labelsize=7, length=2)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if len(self.lines) > 1:
            # Labels are given here: matplotlib hides those of lines that begin with `_`.
            names = [short(name, 2 * _LABEL) for name in self.lines]
            for text in axes.legend(drawn, names, fontsize=7, frameon=False).get_texts():
                text.set_parse_math(False)

    def part(self) -> Figure:
        """The lines; the pointer reads the exact values."""
        import plotly.graph_objects as go

        figure = go.Figure()
        labels = distinct([short(place, _LABEL) for place in self.places])
        for number, (name, values) in enumerate(self.lines.items()):
            figure.add_scatter(
                x=labels,
                y=numbers(values),
                name=plotly_text(short(name, 2 * _LABEL)),
                mode="lines+markers",
                meta={"x": list(map(plotly_text, self.places))},
                line={"color": _COLOURS[number % len(_COLOURS)]},
                hovertemplate="%{x}: <b>%{y:.6~g}</b>",
            )
        if self.level:
            figure.add_hline(y=self.level[0], line_dash="dot", annotation_text=plotly_text(self.level[1]))
        figure.update_layout(
            xaxis={"title": plotly_text(self.axis), "type": "category", "tickangle": -90},
            yaxis={"title": plotly_text(self.unit), "range": self._room()},
            margin={"t": 20},
            showlegend=len(self.lines) > 1,
        )
        return figure

    def minus(self, other: Chart) -> Chart | None:
        """Returns the differences, where both have the same lines, of places with equal labels."""
        if not isinstance(other, Lines) or [*other.lines] != [*self.lines] or other.unit != self.unit:
            return None
        same = [one == two for one, two in zip(other.places, self.places, strict=False)]
        if len(other.places) != len(self.places) or not any(same):
            return None
        return Lines(
            self.unit,
            {name: np.where(same, values - other.lines[name], np.nan) for name, values in self.lines.items()},
            joined(other.places, self.places),
            unit=f"difference, {self.unit}",
            axis=self.axis,
        )

    def data(self) -> Any:
        """The unit, the places, and the numbers by the name of the line; null where there is no number."""
        found: dict[str, Any] = {"title": self.title, "unit": self.unit, "axis": self.axis, "places": self.places}
        found["lines"] = {name: numbers(values) for name, values in self.lines.items()}
        if self.level:
            found["level"] = {"value": self.level[0], "meaning": self.level[1]}
        return found

    def _room(self) -> tuple[float, float] | None:
        """The ends of the vertical axis, with a margin for lines along them."""
        if self.limits is None:
            return None
        least, most = self.limits
        margin = 0.04 * (most - least)
        return least - margin, most + margin


def _largest(part: np.ndarray) -> float:
    """The number furthest from 0 in a part of a line, so that no peak is lost."""
    strength = np.where(np.isfinite(part), np.abs(part), -1.0)
    return float(part[strength.argmax()])
