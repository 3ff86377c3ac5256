"""Numbers with names, as bars."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.plugins.charts.base import Chart, distinct, head, numbers
from onnxlens.plugins.visualizers.labels import printable, short
from onnxlens.plugins.visualizers.page import plotly_text

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase
    from plotly.graph_objects import Figure
    from rich.console import RenderableType

__all__ = ["Bars"]

# As in maps: blue where nothing is negative, else red above 0 and blue below.
_BLUE, _RED, _CHOSEN = "#2171b5", "#cb4335", "#e6a100"
_LABEL = 24  # characters of a label
_WIDE = 24  # of a bar in a terminal


class Bars(Chart):
    """Bars of the same names, or several lists of them, each with its own names.

    Args:
        title: what is shown.
        bars: numbers by name; or several such by the name of the list.
        unit: what the numbers are, and in what.
        axis: what the names are.
        notes: a text for each bar, by name.
        marked: names of bars that stand out.
        cumulative: whether each begins where the one before ended, as in a waterfall.
    """

    def __init__(
        self,
        title: str,
        bars: Sequence[tuple[str, float]] | Mapping[str, Sequence[tuple[str, float]]],
        *,
        unit: str,
        axis: str,
        notes: Mapping[str, str] | None = None,
        marked: Sequence[str] = (),
        cumulative: bool = False,
    ) -> None:
        self.title, self.unit, self.axis = printable(title), printable(unit), printable(axis)
        self.cumulative = cumulative
        lists = bars if isinstance(bars, Mapping) else {"": bars}
        self.lists = {name: [(printable(label), float(value)) for label, value in one] for name, one in lists.items()}
        self.notes = {printable(label): printable(note) for label, note in (notes or {}).items()}
        self.marked = [printable(label) for label in marked]

    def text(self) -> RenderableType:
        """A table with a bar in each line."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = [Text(self.title), Text(self.unit, style="dim")]
        known = [abs(value) for bars in self.lists.values() for _, value in bars if math.isfinite(value)]
        largest = max(known, default=0.0) or 1.0
        for name, bars in self.lists.items():
            table = Table(box=None, pad_edge=False)
            table.add_column(Text(self.axis), overflow="fold")
            table.add_column("value", justify="right", no_wrap=True)
            table.add_column("", no_wrap=True)
            table.add_column("", overflow="fold")
            for label, value in bars:
                length = round(_WIDE * abs(value) / largest) if math.isfinite(value) else 0
                bar = Text(("█" if value >= 0 else "▒") * length, style=self._colour(label, value))
                table.add_row(Text(short(label, _LABEL)), Text(f"{value:.4g}"), bar, Text(self.notes.get(label, "")))
            parts += ["", *([Text(printable(name))] if name else []), table]
        return Group(*parts)

    def size(self) -> tuple[float, float]:
        """Width and height of the picture in inches."""
        columns, rows = self._grid()
        most = max(map(len, self.lists.values()), default=1)
        return 8.0 if columns == 1 else 4.2 * columns, rows * (1.1 + 0.22 * most)

    def draw_on(self, figure: FigureBase) -> None:
        """Draws lying bars, the first on top."""
        columns, rows = self._grid()
        head(figure, self.title, self.size()[0])
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(self.lists) :]:
            axes.set_axis_off()
        for axes, (name, bars) in zip(grid.flat, self.lists.items(), strict=False):
            places = np.arange(len(bars))
            values = np.array([value for _, value in bars])
            starts = np.concatenate([[0.0], np.cumsum(values)[:-1]]) if self.cumulative and len(bars) else 0.0
            colours = [self._colour(label, value) for label, value in bars]
            axes.barh(places, values, left=starts, color=colours, height=0.75)
            labels = [short(label, _LABEL) for label, _ in bars]
            axes.set_yticks(places, labels, family="monospace", parse_math=False)
            axes.set_ylim(max(1, len(bars)) - 0.5, -0.5)
            axes.set_xlabel(self.unit, fontsize=8, parse_math=False)
            axes.tick_params(labelsize=7, length=2)
            axes.locator_params(axis="x", nbins=5)
            axes.ticklabel_format(axis="x", scilimits=(-2, 5))
            axes.xaxis.get_offset_text().set_fontsize(7)
            axes.axvline(0, color="#444444", linewidth=0.6)
            axes.use_sticky_edges = not self.cumulative  # there a bar may begin where the picture would end
            axes.margins(x=0.12)
            ends = starts + values
            for place, (value, end) in enumerate(zip(values, np.broadcast_to(ends, values.shape), strict=True)):
                side = "left" if value >= 0 else "right"
                shown = f" {value:.3g} "
                axes.text(end, place, shown, ha=side, va="center", fontsize=6, clip_on=True, parse_math=False)
            if name:
                axes.set_title(printable(name), fontsize=8, parse_math=False)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)

    def part(self) -> Figure:
        """Lying bars, a list of which is picked in a menu; the pointer reads the exact values."""
        import plotly.graph_objects as go

        figure = go.Figure()
        first = next(iter(self.lists), "")
        for name, bars in self.lists.items():
            labels = distinct([short(label, _LABEL) for label, _ in bars])
            values = [value for _, value in bars]
            figure.add_bar(
                x=values,
                y=labels,
                base=np.concatenate([[0.0], np.cumsum(values)[:-1]]).tolist() if self.cumulative and bars else None,
                orientation="h",
                name=plotly_text(name),
                visible=name == first,
                meta={"y": [plotly_text(label) for label, _ in bars]},
                marker_color=[self._colour(label, value) for label, value in bars],
                customdata=[[value, plotly_text(self.notes.get(label, ""))] for label, value in bars],
                hovertemplate="%{y}: <b>%{customdata[0]}</b><br>%{customdata[1]}<extra></extra>",
            )
        names = list(self.lists)
        buttons = [
            {"label": plotly_text(name), "method": "restyle", "args": ["visible", [one == name for one in names]]}
            for name in names
        ]
        menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
        figure.update_layout(
            xaxis={"title": plotly_text(self.unit), "zeroline": True},
            yaxis={"title": plotly_text(self.axis), "autorange": "reversed", "type": "category"},
            updatemenus=[menu] if len(names) > 1 else [],
            margin={"t": 60 if len(names) > 1 else 20, "l": 140},
        )
        return figure

    def data(self) -> Any:
        """What is shown: the unit, and the numbers by name."""
        lists = {
            name: [{"name": label, "value": numbers(value)} for label, value in bars]
            for name, bars in self.lists.items()
        }
        found: dict[str, Any] = {"title": self.title, "unit": self.unit, "axis": self.axis, "bars": lists}
        if self.notes:
            found["notes"] = self.notes
        return found

    def less(self, other: Chart) -> Chart | None:
        """Returns the differences of the bars that both have, where they mean the same."""
        if not isinstance(other, Bars) or [*other.lists] != [*self.lists] or other.unit != self.unit:
            return None
        lists = {}
        for name, bars in self.lists.items():
            theirs = dict(_counted(other.lists[name]))
            own = _counted(bars)
            lists[name] = [(key[0], value - theirs[key]) for key, value in own if key in theirs]
        if not any(lists.values()):
            return None
        return Bars(self.unit, lists, unit=f"difference, {self.unit}", axis=self.axis)

    def _grid(self) -> tuple[int, int]:
        columns = min(3, len(self.lists)) or 1
        return columns, max(1, -(-len(self.lists) // columns))

    def _colour(self, label: str, value: float) -> str:
        is_signed = any(one < 0 for bars in self.lists.values() for _, one in bars)
        return _CHOSEN if label in self.marked else _RED if is_signed and value >= 0 else _BLUE


def _counted(bars: Sequence[tuple[str, float]]) -> list[tuple[tuple[str, int], float]]:
    """The bars, each with its name and which one of that name it is."""
    seen: Counter[str] = Counter()
    found = []
    for label, value in bars:
        found.append(((label, seen[label]), value))
        seen[label] += 1
    return found
