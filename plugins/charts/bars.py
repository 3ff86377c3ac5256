"""Numbers with names, as bars."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.plugins._drawing.fonts import monospace
from onnxlens.plugins._drawing.labels import printable, short
from onnxlens.plugins._drawing.page import plotly_text
from onnxlens.plugins.charts.base import Chart, distinct, head, numbers
from onnxlens.plugins.charts.scale import CHOSEN, NEGATIVE, NO_SIGN, POSITIVE, Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase
    from plotly.graph_objects import Figure
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["Bars"]

_LABEL = 24  # characters of a label
_WIDE = 24  # of a bar in a terminal
_BAR = 0.22  # inches from bar to bar
_PALE = 0.45  # opacity of the second and further lists, where lists stand together


class Bars(Chart):
    """Bars with names: one list, or several lists, each with its own names.

    Args:
        title: the heading.
        bars: numbers by name; or several lists of them, by the name of the list.
        unit: the quantity and its unit.
        axis: the heading of the names.
        notes: a text for each bar, by name.
        marked: names of bars to highlight.
        cumulative: whether each bar begins where the previous one ended, as in a waterfall.
        start: where the first bar of a waterfall begins.
        limits: the ends of the axis, where the unit says so, such as 0 and 1 for probabilities.
        signs: what numbers above and below zero mean, such as "supports the answer" and "opposes it".
        level: a number at which to draw a line, and the line's name.
        together: whether the lists, which must have the same names, are drawn side by side for each name; otherwise
            each list is a picture of its own, all with the same axes.
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
        start: float = 0.0,
        limits: tuple[float, float] | None = None,
        signs: tuple[str, str] | None = None,
        level: tuple[float, str] | None = None,
        together: bool = False,
    ) -> None:
        self.title, self.unit, self.axis = printable(title), printable(unit), printable(axis)
        self.cumulative, self.start, self.limits, self.level = cumulative, start, limits, level
        lists = bars if isinstance(bars, Mapping) else {"": bars}
        self.lists = {name: [(printable(label), float(value)) for label, value in one] for name, one in lists.items()}
        self.notes = {printable(label): printable(note) for label, note in (notes or {}).items()}
        self.marked = [printable(label) for label in marked]
        self.scale = Scale.of([np.array([value for _, value in one]) for one in self.lists.values()], signs=signs)
        self.together = together and len(self.lists) > 1
        if self.together and len({tuple(label for label, _ in one) for one in self.lists.values()}) != 1:
            raise ValueError("lists that stand together have the same names in the same order")

    def text(self) -> RenderableType:
        """A table with a bar in each line."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = [Text(self.title), Text(self.scale.legend(self.unit), style="dim")]
        if self.level:
            parts.append(Text(f"{self.level[1]}: {self.level[0]:.4g}", style="dim"))
        groups = [self.lists] if self.together else [{name: bars} for name, bars in self.lists.items()]
        for group in groups:
            table = Table(box=None, pad_edge=False)
            table.add_column(Text(self.axis), overflow="fold")
            for name in group:
                table.add_column(Text(printable(name) if self.together else "value"), justify="right", no_wrap=True)
                table.add_column("", no_wrap=True)
            table.add_column("", overflow="fold")
            for rows in zip(*group.values(), strict=True):
                label = rows[0][0]
                cells = [cell for _, value in rows for cell in (Text(self._said(value)), self._bar(label, value))]
                table.add_row(Text(short(label, _LABEL)), *cells, Text(self.notes.get(label, "")))
            name = "" if self.together else printable(next(iter(group)))
            parts += ["", *([Text(name)] if name else []), table]
        return Group(*parts)

    def size(self) -> tuple[float, float]:
        """Width and height of the picture in inches."""
        columns, rows = self._grid()
        most = max(map(len, self.lists.values()), default=1) * (len(self.lists) if self.together else 1)
        return 8.0 if columns == 1 else 4.2 * columns, rows * (1.1 + _BAR * most)

    def draw_on(self, figure: FigureBase) -> None:
        """Draws horizontal bars, the first on top."""
        columns, rows = self._grid()
        head(figure, self.title, self.size()[0])
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        if self.together:
            self._draw(grid[0, 0], self.lists)
            grid[0, 0].legend(fontsize=7, frameon=False, loc="lower right")
            return
        for axes in grid.flat[len(self.lists) :]:
            axes.set_axis_off()
        for axes, (name, bars) in zip(grid.flat, self.lists.items(), strict=False):
            self._draw(axes, {name: bars})
            axes.tick_params(labelbottom=True)
            if name:
                axes.set_title(printable(name), fontsize=8, parse_math=False)

    def part(self) -> Figure:
        """Horizontal bars; a menu picks a list unless they stand together, and the pointer reads the values."""
        import plotly.graph_objects as go
        from plotly.colors import hex_to_rgb

        def inside(colour: str, value: float) -> str:
            # Bars below zero are hollow, for readers who see no colours. Plotly before 7 takes no hexadecimal colour
            # with an opacity.
            return f"rgba{(*hex_to_rgb(colour), 0.25)}" if value < 0 else colour

        figure = go.Figure()
        first = next(iter(self.lists), "")
        for number, (name, bars) in enumerate(self.lists.items()):
            labels = distinct([short(label, _LABEL) for label, _ in bars])
            values = [value for _, value in bars]
            figure.add_bar(
                x=values,
                y=labels,
                base=self._starts(np.array(values)).tolist() if self.cumulative and bars else None,
                orientation="h",
                name=plotly_text(name),
                visible=self.together or name == first,
                opacity=_PALE if self.together and number else 1.0,
                meta={"y": [plotly_text(label) for label, _ in bars]},
                marker={
                    "color": [inside(self._colour(label, value), value) for label, value in bars],
                    "line": {"width": 2, "color": [self._colour(label, value) for label, value in bars]},
                },
                text=[self._said(value) for value in values],
                textposition="outside",
                cliponaxis=False,
                customdata=[[value, plotly_text(self.notes.get(label, ""))] for label, value in bars],
                hovertemplate="%{y}: <b>%{customdata[0]:.6~g}</b><br>%{customdata[1]}<extra></extra>",
            )
        names = list(self.lists)
        has_menu = len(names) > 1 and not self.together
        buttons = [
            {"label": plotly_text(name), "method": "restyle", "args": ["visible", [one == name for one in names]]}
            for name in names
        ]
        menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
        if self.level:
            figure.add_vline(x=self.level[0], line_dash="dot", annotation_text=plotly_text(self._level()))
        figure.update_layout(
            xaxis={"title": plotly_text(self.scale.legend(self.unit)), "zeroline": True, "range": self.limits},
            yaxis={"title": plotly_text(self.axis), "autorange": "reversed", "type": "category"},
            updatemenus=[menu] if has_menu else [],
            showlegend=self.together,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
            margin={"t": 60 if has_menu or self.together else 20, "l": 140},
        )
        return figure

    def data(self) -> Any:
        """The unit, and the numbers by name."""
        lists = {
            name: [{"name": label, "value": numbers(value)} for label, value in bars]
            for name, bars in self.lists.items()
        }
        found: dict[str, Any] = {"title": self.title, "unit": self.unit, "axis": self.axis, "bars": lists}
        if self.notes:
            found["notes"] = self.notes
        if self.level:
            found["level"] = {"value": self.level[0], "meaning": self.level[1]}
        return found

    def minus(self, other: Chart) -> Chart | None:
        """Returns the differences, where both have the same names; in a waterfall, missing parts count as 0."""
        if not isinstance(other, Bars) or [*other.lists] != [*self.lists] or other.unit != self.unit:
            return None
        if self.level or other.level:
            return None  # a highlight of one chart means nothing in the other
        lists = {}
        for name, bars in self.lists.items():
            own, theirs = dict(_counted(bars)), dict(_counted(other.lists[name]))
            if own.keys() != theirs.keys() and not self.cumulative:
                return None
            lists[name] = [(key[0], own.get(key, 0.0) - theirs.get(key, 0.0)) for key in {**own, **theirs}]
        signs = self.scale.difference(other.scale).signs
        return Bars(self.unit, lists, unit=f"difference, {self.unit}", axis=self.axis, signs=signs)

    def _draw(self, axes: Axes, lists: Mapping[str, Sequence[tuple[str, float]]]) -> None:
        """Draws lists with the same names."""
        labels = [label for label, _ in next(iter(lists.values()))]
        places, high = np.arange(len(labels)), 0.75 / len(lists)
        for number, (name, bars) in enumerate(lists.items()):
            values = np.array([value for _, value in bars])
            starts = self._starts(values)
            down = places + (number - (len(lists) - 1) / 2) * high
            found = axes.barh(
                down,
                values,
                left=starts,
                height=high,
                color=[self._colour(label, value) for label, value in bars],
                alpha=_PALE if number else 1.0,
                label=printable(name).removeprefix("_"),
            )
            for bar, value in zip(found.patches, values, strict=True):
                if value < 0:
                    bar.set(hatch="////", edgecolor="white", linewidth=0)
            for place, value, end in zip(down, values, starts + values, strict=True):
                side = "left" if value >= 0 else "right"
                shown = f" {self._said(value)} "
                axes.text(end, place, shown, ha=side, va="center", fontsize=6, clip_on=True, parse_math=False)
        names = [short(label, _LABEL) for label in labels]
        axes.set_yticks(places, names, family=monospace(), parse_math=False)
        axes.set_ylim(max(1, len(labels)) - 0.5, -0.5)
        axes.set_xlabel(self.scale.legend(self.unit), fontsize=8, parse_math=False)
        axes.tick_params(labelsize=7, length=2)
        axes.axvline(0, color="#444444", linewidth=0.6)
        axes.use_sticky_edges = not self.cumulative  # a bar of a waterfall may begin beyond the largest number
        axes.margins(x=0.12)
        if self.limits:
            least, most = self.limits
            axes.set_xlim(least - 0.12 * (most - least) * (least < 0), most + 0.12 * (most - least))
            axes.set_xticks(np.linspace(least, most, 6 if least >= 0 else 5))
        else:
            axes.locator_params(axis="x", nbins=5)
            axes.ticklabel_format(axis="x", scilimits=(-2, 5))
            axes.xaxis.get_offset_text().set_fontsize(7)
        if self.level:
            axes.axvline(self.level[0], color="#444444", linewidth=1, linestyle="dotted")
            axes.text(self.level[0], -0.5, f" {self._level()}", fontsize=7, va="bottom", parse_math=False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)

    def _starts(self, values: np.ndarray) -> np.ndarray:
        """Where each bar begins."""
        if not self.cumulative or not len(values):
            return np.zeros(len(values))
        return self.start + np.concatenate([[0.0], np.cumsum(values)[:-1]])

    def _bar(self, label: str, value: float) -> Text:
        """A bar in a terminal."""
        from rich.text import Text

        known = [abs(one) for bars in self.lists.values() for _, one in bars if math.isfinite(one)]
        largest = max(map(abs, self.limits)) if self.limits else max(known, default=0.0) or 1.0
        length = min(_WIDE, round(_WIDE * abs(value) / largest)) if math.isfinite(value) else 0
        return Text(("█" if value >= 0 else "▒") * length, style=self._colour(label, value))

    def _said(self, value: float) -> str:
        return f"{value:+.3g}" if self.scale.is_signed and value else f"{value:.3g}"

    def _level(self) -> str:
        assert self.level is not None
        return f"{printable(self.level[1])}, {self.level[0]:.4g}"

    def _grid(self) -> tuple[int, int]:
        if self.together:
            return 1, 1
        columns = min(3, len(self.lists)) or 1
        return columns, max(1, -(-len(self.lists) // columns))

    def _colour(self, label: str, value: float) -> str:
        if label in self.marked:
            return CHOSEN
        return NO_SIGN if not self.scale.is_signed else POSITIVE if value >= 0 else NEGATIVE


def _counted(bars: Sequence[tuple[str, float]]) -> list[tuple[tuple[str, int], float]]:
    """The bars, each with its name and a counter for equal names."""
    seen: Counter[str] = Counter()
    found = []
    for label, value in bars:
        found.append(((label, seen[label]), value))
        seen[label] += 1
    return found
