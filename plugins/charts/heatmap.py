"""Matrices as maps of colours, all in one scale."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.plugins.charts.base import Chart, distinct, head, joined, numbers
from onnxlens.plugins.visualizers.labels import ink, printable, short, thinned, tint
from onnxlens.plugins.visualizers.page import plotly_text
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase
    from matplotlib.image import AxesImage
    from plotly.graph_objects import Figure
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["Heatmap"]

# One end for what is never negative, two about zero for the rest; both are read in grey and by the colour-blind.
_ONE_END, _TWO_ENDS = "Blues", "RdBu_r"
_NOTHING = "#dddddd"  # where there is no number
_LABEL = 14  # characters of a label
_INCHES = 0.16  # that a label takes
_FITS = 9  # columns that a terminal shows as a table
_STRONGEST = 4  # columns that it names for each row otherwise
_ROWS = 48  # rows that it shows at most, of all matrices together
_LEAST = 5  # but of each so many
_SQUARE = 0.82  # of its place, a thumbnail; the rest is for its name
_FEW = 30  # maps that are drawn larger than thumbnails
_CELLS = 10_000_000  # of all maps of a page together
_NUMERALS = 16  # labels of an axis that only counts
_NOTED = 40  # columns and rows in which notes fit into the cells


class Heatmap(Chart):
    """Matrices of the same rows and columns, or one.

    Args:
        title: what is shown.
        values: [R, C], NaN where there is nothing to show; or several of them by name.
        rows: labels of the rows, R.
        columns: labels of the columns, C.
        unit: what the numbers are, and in what.
        row_axis: what the rows are.
        column_axis: what the columns are.
        limits: what the ends of the colours stand for; where they are left out, zero and the largest, or as much below
            zero as above.
        notes: texts for the cells, R of C each, or by the name of the matrix.
        squares: whether cells are drawn as squares.
        named_rows: whether rows belong together in a difference by their labels, not by their places.
        named_columns: the same of columns.
        columns_of_panels: how many maps stand side by side in a picture; as many as make a square if left out.
    """

    def __init__(
        self,
        title: str,
        values: np.ndarray | Mapping[str, np.ndarray],
        rows: Sequence[str],
        columns: Sequence[str],
        *,
        unit: str,
        row_axis: str,
        column_axis: str,
        limits: tuple[float, float] | None = None,
        notes: Sequence[Sequence[str]] | Mapping[str, Sequence[Sequence[str]]] | None = None,
        squares: bool = False,
        named_rows: bool = False,
        named_columns: bool = False,
        columns_of_panels: int | None = None,
    ) -> None:
        self.title, self.unit = printable(title), printable(unit)
        self.row_axis, self.column_axis = printable(row_axis), printable(column_axis)
        self.panels = {"": np.asarray(values)} if not isinstance(values, Mapping) else dict(values)
        self.rows, self.columns = [printable(row) for row in rows], [printable(column) for column in columns]
        for name, panel in self.panels.items():
            if panel.shape != (len(rows), len(columns)):
                raise ValueError(f"the matrix {name!r} has shape {panel.shape}, not {(len(rows), len(columns))}")
        if notes is not None and not isinstance(notes, Mapping):
            notes = dict.fromkeys(self.panels, notes)
        self.notes = {name: [list(map(printable, row)) for row in cells] for name, cells in (notes or {}).items()}
        self._given, self.squares, self._columns = limits, squares, columns_of_panels
        self.is_named = named_rows, named_columns
        for name, cells in self.notes.items():
            if name not in self.panels or [len(row) for row in cells] != [len(columns)] * len(rows):
                raise ValueError(f"the notes of {name!r} are not {len(rows)} rows of {len(columns)} texts")
        if not self.panels or not len(rows) or not len(columns):
            raise ValueError("a map needs a matrix with a row and a column at least")

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """What the ends of the colours stand for."""
        if self._given is not None:
            return self._given
        finite = np.concatenate([panel[np.isfinite(panel)].ravel() for panel in self.panels.values()])
        largest = float(np.abs(finite).max(initial=0.0)) or 1.0
        return (-largest if (finite < 0).any() else 0.0), largest

    def text(self) -> RenderableType:
        """The numbers as a table where it fits, and the strongest of each row where it does not."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = [Text(self.title), Text(self.unit, style="dim")]
        fits = len(self.columns) <= _FITS
        for name, panel in self.panels.items():
            table = Table(box=None, pad_edge=False)
            table.add_column(Text(self.row_axis), justify="right", overflow="fold")
            if fits:
                for column in self.columns:
                    table.add_column(Text(short(column, _LABEL)), justify="left" if self.notes else "right")
            else:
                table.add_column(Text(f"strongest {self.column_axis}"), overflow="fold")
            shown_rows = thinned(len(self.rows), max(_LEAST, _ROWS // len(self.panels)))
            for row in sorted({*shown_rows, len(self.rows) - 1}):
                places = range(len(self.columns)) if fits else self._strongest(panel[row])
                cells = [self._cell(name, panel, row, column, is_named=not fits) for column in places]
                shown = cells if fits else [Text(" ").join(cells)]
                table.add_row(Text(short(self.rows[row], 2 * _LABEL)), *shown)
            parts += ["", *([Text(printable(name))] if name else []), table]
        if shown_rows.step > 1:
            parts += [
                "",
                Text(f"one row in {shown_rows.step} of {len(self.rows)}, and the last; a file has all", style="dim"),
            ]
        return Group(*parts)

    def size(self) -> tuple[float, float]:
        """Width and height of the picture in inches."""
        columns, rows = self._grid()
        wide, high = self._side()
        return columns * wide + 2.4, rows * high + 1.4

    def draw_on(self, figure: FigureBase) -> None:
        """Draws a map for each matrix."""
        from matplotlib import colormaps

        head(figure, self.title, self.size()[0])
        least, most = self.limits
        colours = colormaps[_TWO_ENDS if least < 0 else _ONE_END].with_extremes(bad=_NOTHING)
        # One pixel of the picture for a cell, where there are more cells than pixels: a mean would hide single ones.
        how = {"cmap": colours, "vmin": least, "vmax": most, "interpolation": "nearest"}
        draw = self._draw_thumbnails if self.squares and len(self.panels) > 1 else self._draw_maps
        image, around = draw(figure, how)
        bar = figure.colorbar(image, ax=around, shrink=0.8)
        bar.set_label(self.unit, fontsize=8, parse_math=False)
        bar.ax.tick_params(labelsize=7)

    def part(self) -> Figure:
        """A map of one matrix, picked in a list; the pointer reads the exact values."""
        import plotly.graph_objects as go

        cells = sum(panel.size for panel in self.panels.values())
        if cells > _CELLS:
            raise InputError(
                f"A page of {len(self.panels)} maps of {len(self.rows):,} times {len(self.columns):,} would hold "
                f"{cells:,} numbers, and no browser is glad of more than {_CELLS:,}: show less, such as one block or "
                "head, or write a .png or .json."
            )
        rows, columns = (distinct([short(label, _LABEL) for label in labels]) for labels in (self.rows, self.columns))
        named = [list(map(plotly_text, labels)) for labels in (self.rows, self.columns)]
        first = next(iter(self.panels))
        figure = go.Figure()
        for name, panel in self.panels.items():
            notes = [[plotly_text(cell) for cell in row] for row in self.notes.get(name, ())]
            figure.add_heatmap(
                z=panel.astype(np.float32),
                x=columns,
                y=rows,
                text=notes or None,
                texttemplate="%{text}" if notes and max(panel.shape) <= _NOTED else None,
                name=plotly_text(name),
                visible=name == first,
                coloraxis="coloraxis",
                meta={"z": notes} if notes else None,
                hoverongaps=False,
                hovertemplate=f"%{{y}}<br>%{{x}}: <b>%{{z}}</b>{'<br>%{text}' if notes else ''}<extra></extra>",
            )
        figure.update_layout(self._layout(), meta={"x": named[1], "y": named[0]})
        return figure

    def data(self) -> Any:
        """What is shown: labels, unit, and the numbers by the name of the matrix; null where there is none."""
        found = {
            "title": self.title,
            "unit": self.unit,
            "row_axis": self.row_axis,
            "rows": self.rows,
            "column_axis": self.column_axis,
            "columns": self.columns,
            "values": {name: numbers(panel) for name, panel in self.panels.items()},
        }
        return {**found, "notes": self.notes} if self.notes else found

    def less(self, other: Chart) -> Chart | None:
        """Returns a map of the differences, where both have the same matrices of one size, and mean the same."""
        if not isinstance(other, Heatmap) or [*other.panels] != [*self.panels] or other.unit != self.unit:
            return None
        rows = _pairs(self.rows, other.rows, is_named=self.is_named[0])
        columns = _pairs(self.columns, other.columns, is_named=self.is_named[1])
        if not rows or not columns:
            return None
        (own_rows, their_rows), (own_columns, their_columns) = zip(*rows, strict=True), zip(*columns, strict=True)
        own, theirs = np.ix_(own_rows, own_columns), np.ix_(their_rows, their_columns)
        return Heatmap(
            self.unit,
            {name: _finite(panel)[own] - _finite(other.panels[name])[theirs] for name, panel in self.panels.items()},
            joined([other.rows[row] for row in their_rows], [self.rows[row] for row in own_rows]),
            joined([other.columns[one] for one in their_columns], [self.columns[one] for one in own_columns]),
            notes=self._joined_notes(other, own, theirs),
            unit=f"difference, {self.unit}",
            row_axis=self.row_axis,
            column_axis=self.column_axis,
            squares=self.squares,
            columns_of_panels=self._columns,
        )

    def _joined_notes(
        self, other: Heatmap, own: tuple[Any, ...], theirs: tuple[Any, ...]
    ) -> dict[str, list[list[str]]]:
        """Notes of a difference: the other's and this one's, where they are not the same."""
        found = {}
        for name in self.notes.keys() & other.notes.keys():
            ours, before = np.array(self.notes[name], object)[own], np.array(other.notes[name], object)[theirs]
            found[name] = [joined(*pair) for pair in zip(before.tolist(), ours.tolist(), strict=True)]
        return found

    def _draw_maps(self, figure: FigureBase, how: dict[str, Any]) -> tuple[AxesImage, list[Axes]]:
        """Draws the matrices with labels beside them, and returns the last one, and all axes."""
        columns, rows = self._grid()
        wide, high = self._side()
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(self.panels) :]:
            axes.set_axis_off()
        for place, (axes, (name, panel)) in enumerate(zip(grid.flat, self.panels.items(), strict=False)):
            image = axes.imshow(panel, aspect="equal" if self.squares else "auto", **how)
            if name:
                axes.set_title(printable(name), fontsize=8, parse_math=False)
            self._label(axes, wide, high, is_left=place % columns == 0, is_low=place >= len(self.panels) - columns)
            if name in self.notes and max(panel.shape) <= _NOTED:
                self._write(axes, name, panel, wide)
        return image, grid.ravel().tolist()

    def _draw_thumbnails(self, figure: FigureBase, how: dict[str, Any]) -> tuple[AxesImage, list[Axes]]:
        """Draws the matrices without labels in one system of axes, since one for each takes far longer."""
        columns, rows = self._grid()
        axes = figure.subplots()
        for place, (name, panel) in enumerate(self.panels.items()):
            row, column = divmod(place, columns)
            image = axes.imshow(panel, extent=(column, column + _SQUARE, row + _SQUARE, row), **how)
            axes.text(
                column + _SQUARE / 2,
                row - 0.03,
                printable(name),
                ha="center",
                va="bottom",
                fontsize=8,
                parse_math=False,
            )
        axes.set(xlim=(0, columns), ylim=(rows, -0.15), xticks=[], yticks=[], aspect="equal")
        axes.text(
            0,
            rows - 0.1,
            f"along: {self.column_axis}; down: {self.row_axis}",
            fontsize=8,
            va="center",
            parse_math=False,
        )
        for side in axes.spines.values():
            side.set_visible(False)
        return image, [axes]

    def _strongest(self, row: np.ndarray) -> list[int]:
        strength = np.where(np.isfinite(row), np.abs(row), -1.0)
        order = np.argsort(-strength, kind="stable")[:_STRONGEST].tolist()
        return [place for place in order if strength[place] >= 0]

    def _cell(self, name: str, panel: np.ndarray, row: int, column: int, *, is_named: bool) -> Text:
        from rich.text import Text

        value = float(panel[row, column])
        if not math.isfinite(value):
            return Text("")
        note = self.notes[name][row][column] if name in self.notes else ""
        shown = f"{short(note, _LABEL)} {value:.3g}" if note else f"{value:.3g}"
        ground = self._tint(value)
        return Text(
            f"{short(self.columns[column], _LABEL)}{':' if note else ''} {shown}" if is_named else shown,
            style=f"{ink(ground)} on {ground}",
        )

    def _tint(self, value: float) -> str:
        least, most = self.limits
        end = most if value > 0 or least >= 0 else -least
        return tint(max(-1.0, min(1.0, value / end)) if end else 0.0, signed=least < 0)

    def _grid(self) -> tuple[int, int]:
        columns = self._columns or (1 if self.notes else math.ceil(math.sqrt(len(self.panels))))
        return columns, math.ceil(len(self.panels) / columns)

    def _side(self) -> tuple[float, float]:
        """Width and height of one map."""
        if self.squares:
            alone = min(11.0, max(3.5, 0.25 * len(self.columns)))
            side = alone if len(self.panels) == 1 else 2.4 if len(self.panels) <= _FEW else 1.3
            return side, side
        columns = self._grid()[0]
        wide = min(11.0 / columns, max(3.0, (0.55 if self.notes else 0.25) * len(self.columns)))
        return wide, min(7.0, max(0.9, 0.25 * len(self.rows)))

    def _label(self, axes: Axes, wide: float, high: float, *, is_left: bool, is_low: bool) -> None:
        """Names what is beside the axes, as much as there is room for."""
        axes.set_xlabel(self.column_axis if is_low else "", fontsize=8, parse_math=False)
        axes.set_ylabel(self.row_axis if is_left else "", fontsize=8, parse_math=False)
        axes.tick_params(labelsize=7, length=2)
        sides = ((axes.xaxis, self.columns, wide, 90), (axes.yaxis, self.rows, high, 0))
        for axis, labels, room, rotation in sides:
            most = _NUMERALS if all(map(str.isdecimal, labels)) else max(1, int(room / _INCHES))
            places = thinned(len(labels), most)
            shown = [short(labels[place], _LABEL) for place in places]
            turned = rotation if max(map(len, shown)) > 2 else 0
            axis.set_ticks(places, shown, rotation=turned, family="monospace", parse_math=False)

    def _write(self, axes: Axes, name: str, panel: np.ndarray, wide: float) -> None:
        """Writes the notes into the cells."""
        room = max(2, int(wide / panel.shape[1] / 0.075))
        for (row, column), value in np.ndenumerate(panel):
            if np.isfinite(value):
                axes.text(
                    column,
                    row,
                    short(self.notes[name][row][column], room),
                    ha="center",
                    va="center",
                    fontsize=6,
                    color=ink(self._tint(float(value))),
                    parse_math=False,
                )

    def _layout(self) -> dict[str, Any]:
        least, most = self.limits
        names = list(self.panels)
        buttons = [
            {
                "label": plotly_text(name),
                "method": "restyle",
                "args": ["visible", [one == place for one in range(len(names))]],
            }
            for place, name in enumerate(names)
        ]
        menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
        scale = _TWO_ENDS if least < 0 else _ONE_END
        yaxis = {"title": plotly_text(self.row_axis), "showgrid": False, "autorange": "reversed", "constrain": "domain"}
        return {
            "coloraxis": {
                "colorscale": scale.removesuffix("_r"),
                "reversescale": scale.endswith("_r"),
                "cmin": least,
                "cmax": most,
                "colorbar": {"title": {"text": plotly_text(self.unit), "side": "right"}},
            },
            "plot_bgcolor": _NOTHING,
            "xaxis": {
                "title": plotly_text(self.column_axis),
                "showgrid": False,
                "tickangle": -90,
                "constrain": "domain",
                "type": "category",
            },
            "yaxis": {**yaxis, "type": "category"} | ({"scaleanchor": "x"} if self.squares else {}),
            "updatemenus": [menu] if len(names) > 1 else [],
            "margin": {"t": 60 if len(names) > 1 else 20},
        }


def _pairs(own: list[str], theirs: list[str], *, is_named: bool) -> list[tuple[int, int]]:
    """Which places of two axes belong together: those of one label, or each to its like; none where these differ."""
    if is_named:
        return [(place, theirs.index(label)) for place, label in enumerate(own) if label in theirs]
    return [(place, place) for place in range(len(own))] if len(own) == len(theirs) else []


def _finite(panel: np.ndarray) -> np.ndarray:
    """The numbers in float64, NaN for those that are not finite."""
    return np.where(np.isfinite(panel), panel.astype(np.float64), np.nan)
