"""Matrices as heat maps, all with one colour scale."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.plugins._drawing.fonts import monospace
from onnxlens.plugins._drawing.labels import ink, printable, short, thinned, told_apart
from onnxlens.plugins._drawing.page import plotly_text
from onnxlens.plugins.charts.base import Chart, distinct, head, joined, numbers
from onnxlens.plugins.charts.scale import Scale
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase
    from matplotlib.image import AxesImage
    from plotly.graph_objects import Figure
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["Heatmap"]

_NOTHING = "#dddddd"  # where there is no number
_LABEL = 14  # characters of a label
_INCHES = 0.16  # that a label takes
_FITS = 9  # columns that a terminal shows as a table
_STRONGEST = 4  # columns that it names for each row of a larger matrix
_ROWS = 48  # most rows that it shows, of all matrices together
_LEAST = 5  # least rows of each matrix
_SQUARE = 0.82  # share of its place that a thumbnail takes; the rest is for its name
_FEW = 30  # maps that are drawn larger than thumbnails
_CELLS = 10_000_000  # of all maps of a page together
_NUMERALS = 16  # labels of an axis that only counts
_READABLE = 40  # pixels of a page that a cell with a text takes
_TURNED = 28  # characters of a line beside the colours of a page
_NOTED = 40  # columns and rows in which notes or signs fit into the cells
_SMALL = 16, 24  # columns and rows of a map that has its numbers in the cells
_NUMBER = 0.42  # inches that a number takes
_STRONG = 0.1  # least share of the scale at which a sign is written into a cell
_DENSE = 75  # cells per inch, from which on some may share a pixel
_POOLED = "cells that share a pixel show the number furthest from 0"


class Heatmap(Chart):
    """One matrix, or several with the same rows and columns.

    Args:
        title: the heading.
        values: [R, C], NaN where there is nothing to show; or several of them by name.
        rows: labels of the rows, R.
        columns: labels of the columns, C.
        unit: the quantity and its unit.
        row_axis: the heading of the rows.
        column_axis: the heading of the columns.
        limits: the numbers at the ends of the colour scale, such as 0 and 1 for probabilities; if left out, zero and
            the largest number, or a symmetric range around zero.
        floor: the least number at the end of the colour scale, without limits: smaller differences are noise.
        signs: what numbers above and below zero mean, such as "supports the answer" and "opposes it"; the scale then "
        "has two ends even if no number is below zero.
        subjects: the subject of each number where cells have different ones, such as a token: by the name of the
            matrix, R lists of C. A difference subtracts only numbers with equal subjects.
        notes: texts for the cells, R lists of C, or these by the name of the matrix.
        squares: whether cells are drawn as squares.
        columns_of_panels: how many maps stand side by side in a picture; if left out, they form a square.
        first: the name of the matrix that a page shows first, and the reason; if left out, the first one.
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
        floor: float = 0.0,
        signs: tuple[str, str] | None = None,
        subjects: Mapping[str, Sequence[Sequence[object]]] | None = None,
        notes: Sequence[Sequence[str]] | Mapping[str, Sequence[Sequence[str]]] | None = None,
        squares: bool = False,
        columns_of_panels: int | None = None,
        first: tuple[str, str] | None = None,
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
        self.squares, self._columns, self._first = squares, columns_of_panels, first
        self.subjects = {name: np.array(cells, object) for name, cells in (subjects or {}).items()}
        self.scale = Scale.of(self.panels.values(), limits=limits, floor=floor, signs=signs)
        for name, cells in self.notes.items():
            if name not in self.panels or [len(row) for row in cells] != [len(columns)] * len(rows):
                raise ValueError(f"the notes of {name!r} are not {len(rows)} rows of {len(columns)} texts")
        if not self.panels or not len(rows) or not len(columns):
            raise ValueError("a map needs a matrix with a row and a column at least")

    @property
    def limits(self) -> tuple[float, float]:
        """The numbers at the ends of the colour scale."""
        return self.scale.least, self.scale.most

    def text(self) -> RenderableType:
        """The numbers as a table where it fits, and the strongest of each row where it does not."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = [Text(self.title), Text(self.scale.legend(self.unit), style="dim")]
        fits = len(self.columns) <= _FITS
        row_names, column_names = (
            told_apart([short(one, 2 * _LABEL) for one in labels]) for labels in (self.rows, self.columns)
        )
        for name, panel in self.panels.items():
            table = Table(box=None, pad_edge=False)
            table.add_column(Text(self.row_axis), justify="right", overflow="fold")
            if fits:
                for column in column_names:
                    table.add_column(Text(column), justify="left" if self.notes else "right")
            else:
                table.add_column(Text(f"strongest {self.column_axis}"), overflow="fold")
            shown_rows = thinned(len(self.rows), max(_LEAST, _ROWS // len(self.panels)))
            for row in sorted({*shown_rows, len(self.rows) - 1}):
                places = range(len(self.columns)) if fits else self._strongest(panel[row])
                cells = [
                    self._cell(name, panel, row, column, "" if fits else column_names[column]) for column in places
                ]
                shown = cells if fits else [Text(" ").join(cells)]
                table.add_row(Text(row_names[row]), *shown)
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

        head(figure, f"{self.title}; {_POOLED}" if self._is_dense() else self.title, self.size()[0])
        how = {"colours": colormaps[self.scale.colours].with_extremes(bad=_NOTHING), "limits": self.limits}
        draw = self._draw_thumbnails if self._are_thumbnails() else self._draw_maps
        image, around = draw(figure, how)
        bar = figure.colorbar(image, ax=around, shrink=0.8)
        label = textwrap.fill(self.scale.legend(self.unit), max(24, int(self.size()[1] * 9)))
        bar.set_label(label, fontsize=8, parse_math=False)
        bar.ax.tick_params(labelsize=7)

    def part(self) -> Figure:
        """A map of one matrix, which a menu picks; the pointer reads the exact values."""
        import plotly.graph_objects as go

        cells = sum(panel.size for panel in self.panels.values())
        if cells > _CELLS:
            raise InputError(
                f"A page of {len(self.panels)} maps of {len(self.rows):,} times {len(self.columns):,} would hold "
                f"{cells:,} numbers, and a browser can show at most {_CELLS:,}: show less, such as one block or "
                "head, or write a .png or .json."
            )
        rows, columns = (distinct([short(label, _LABEL) for label in labels]) for labels in (self.rows, self.columns))
        named = [list(map(plotly_text, labels)) for labels in (self.rows, self.columns)]
        first, why = self._first or (next(iter(self.panels)), "")
        figure = go.Figure()
        for name, panel in self.panels.items():
            notes = [[plotly_text(cell) for cell in row] for row in self.notes.get(name, ())]
            written = self._written(name, _NUMBER)
            figure.add_heatmap(
                z=panel.astype(np.float32),
                x=columns,
                y=rows,
                text=notes or written,
                texttemplate="%{text}" if written else None,
                name=plotly_text(name),
                visible=name == first,
                coloraxis="coloraxis",
                meta={"z": notes} if notes else None,
                hoverongaps=False,
                hovertemplate=f"%{{y}}<br>%{{x}}: <b>%{{z:.6~g}}</b>{'<br>%{text}' if notes else ''}<extra></extra>",
            )
        # A cell has at least a pixel, so that all are visible, and is wide enough for its text.
        is_written = any(self._written(name, _NUMBER) for name in self.panels)
        least = [len(self.columns) * (_READABLE if is_written else 1) + 260, len(self.rows) + 220]
        meta = {"x": named[1], "y": named[0], "least": least, "why": why and f"first {first}: {why}"}
        figure.update_layout(self._layout(), meta=meta)
        return figure

    def data(self) -> Any:
        """Labels, unit, and the numbers by the name of the matrix; null where there is no number."""
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

    def minus(self, other: Chart) -> Chart | None:
        """Returns a map of the differences, where both have the same matrices with the same meaning."""
        if not isinstance(other, Heatmap) or [*other.panels] != [*self.panels] or other.unit != self.unit:
            return None
        if (len(self.rows), len(self.columns)) != (len(other.rows), len(other.columns)):
            return None
        panels = {name: _finite(panel) - _finite(other.panels[name]) for name, panel in self.panels.items()}
        for name in panels.keys() & self.subjects.keys() & other.subjects.keys():
            panels[name][self.subjects[name] != other.subjects[name]] = np.nan
        notes = {
            name: [joined(*pair) for pair in zip(other.notes[name], self.notes[name], strict=True)]
            for name in self.notes.keys() & other.notes.keys()
        }
        scale = self.scale.difference(other.scale)
        return Heatmap(
            self.unit,
            panels,
            joined(other.rows, self.rows),
            joined(other.columns, self.columns),
            notes=notes,
            unit=f"difference, {self.unit}",
            row_axis=self.row_axis,
            column_axis=self.column_axis,
            squares=self.squares,
            columns_of_panels=self._columns,
            limits=(scale.least, scale.most),
            signs=scale.signs,
        )

    def _draw_maps(self, figure: FigureBase, how: dict[str, Any]) -> tuple[AxesImage, list[Axes]]:
        """Draws the matrices with labels beside them, and returns the last one, and all axes."""
        from onnxlens.plugins.charts.pooled import show

        columns, rows = self._grid()
        wide, high = self._side()
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(self.panels) :]:
            axes.set_axis_off()
        for place, (axes, (name, panel)) in enumerate(zip(grid.flat, self.panels.items(), strict=False)):
            image = show(axes, panel, aspect="equal" if self.squares else "auto", **how)
            if name:
                axes.set_title(printable(name), fontsize=8, parse_math=False)
            self._label(axes, wide, high, is_left=place % columns == 0, is_low=place >= len(self.panels) - columns)
            self._write(axes, name, panel, wide)
        return image, grid.ravel().tolist()

    def _draw_thumbnails(self, figure: FigureBase, how: dict[str, Any]) -> tuple[AxesImage, list[Axes]]:
        """Draws the matrices without labels in one Axes, since one Axes for each takes far longer."""
        from onnxlens.plugins.charts.pooled import show

        columns, rows = self._grid()
        axes = figure.subplots()
        for place, (name, panel) in enumerate(self.panels.items()):
            row, column = divmod(place, columns)
            extent = (column, column + _SQUARE, row + _SQUARE, row)
            image = show(axes, panel, aspect="equal", extent=extent, **how)
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

    def _cell(self, name: str, panel: np.ndarray, row: int, column: int, named: str) -> Text:
        from rich.text import Text

        value = float(panel[row, column])
        if not math.isfinite(value):
            return Text("")
        note = self.notes[name][row][column] if name in self.notes else ""
        number = f"{value:{'+' if self.scale.is_signed and value else ''}.3g}"
        shown = f"{short(note, _LABEL)} {number}" if note else number
        ground = self.scale.tint(value)
        return Text(
            f"{named}{':' if note else ''} {shown}" if named else shown,
            style=f"{ink(ground)} on {ground}",
        )

    def _grid(self) -> tuple[int, int]:
        columns = self._columns or (1 if self.notes else math.ceil(math.sqrt(len(self.panels))))
        return columns, math.ceil(len(self.panels) / columns)

    def _side(self) -> tuple[float, float]:
        """Width and height of one map."""
        if self.squares:
            alone = min(11.0, max(3.5, (_NUMBER if self._is_small() else 0.25) * len(self.columns)))
            side = alone if len(self.panels) == 1 else 2.4 if len(self.panels) <= _FEW else 1.3
            return side, side
        columns = self._grid()[0]
        cell = 0.55 if self.notes else _NUMBER if self._is_small() else 0.25
        wide = min(11.0 / columns, max(3.0, cell * len(self.columns)))
        return wide, min(7.0, max(0.9, 0.25 * len(self.rows)))

    def _label(self, axes: Axes, wide: float, high: float, *, is_left: bool, is_low: bool) -> None:
        """Labels the axes as densely as fits."""
        axes.set_xlabel(self.column_axis if is_low else "", fontsize=8, parse_math=False)
        axes.set_ylabel(self.row_axis if is_left else "", fontsize=8, parse_math=False)
        axes.tick_params(labelsize=7, length=2)
        sides = ((axes.xaxis, self.columns, wide, 90), (axes.yaxis, self.rows, high, 0))
        for axis, labels, room, rotation in sides:
            most = _NUMERALS if all(map(str.isdecimal, labels)) else max(1, int(room / _INCHES))
            places = thinned(len(labels), most)
            shown = [short(labels[place], _LABEL) for place in places]
            turned = rotation if max(map(len, shown)) > 2 else 0
            axis.set_ticks(places, shown, rotation=turned, family=monospace(), parse_math=False)

    def _write(self, axes: Axes, name: str, panel: np.ndarray, wide: float) -> None:
        """Writes notes, numbers or signs into the cells."""
        cell = wide / panel.shape[1]
        room = max(2, int(cell / 0.075))
        cells = self._written(name, cell)
        for (row, column), value in np.ndenumerate(panel):
            if cells and np.isfinite(value):
                axes.text(
                    column,
                    row,
                    short(cells[row][column], room) if name in self.notes else cells[row][column],
                    ha="center",
                    va="center",
                    fontsize=6,
                    color=ink(self.scale.tint(float(value))),
                    parse_math=False,
                )

    def _is_small(self) -> bool:
        """Whether numbers are written into the cells."""
        return len(self.columns) <= _SMALL[0] and len(self.rows) <= _SMALL[1] and not self._are_thumbnails()

    def _are_thumbnails(self) -> bool:
        return self.squares and len(self.panels) > 1

    def _is_dense(self) -> bool:
        """Whether cells may share a pixel of a picture."""
        wide, high = self._side()
        return len(self.columns) > _DENSE * wide or len(self.rows) > _DENSE * high

    def _written(self, name: str, cell: float) -> list[list[str]] | None:
        """The texts to write into cells of this width in inches; None for no texts."""
        panel = self.panels[name]
        if max(panel.shape) > _NOTED:
            return None
        if name in self.notes:
            return self.notes[name]
        if self._is_small() and cell >= 0.8 * _NUMBER:
            texts: list[list[str]] = self.scale.written(panel).tolist()
            return texts
        if not self.scale.is_signed or self._are_thumbnails():
            return None
        signs = np.where(panel > 0, "+", "-").astype(object)
        signs[~(np.abs(panel) >= _STRONG * self.scale.most)] = ""
        found: list[list[str]] = signs.tolist()
        return found

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
        scale, legend = self.scale.colours, textwrap.wrap(self.scale.legend(self.unit), _TURNED)
        yaxis = {"title": plotly_text(self.row_axis), "showgrid": False, "autorange": "reversed", "constrain": "domain"}
        return {
            "coloraxis": {
                "colorscale": scale.removesuffix("_r"),
                "reversescale": scale.endswith("_r"),
                "cmin": least,
                "cmax": most,
                "colorbar": {"title": {"text": "<br>".join(map(plotly_text, legend)), "side": "right"}},
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


def _finite(panel: np.ndarray) -> np.ndarray:
    """The numbers in float64, NaN for those that are not finite."""
    return np.where(np.isfinite(panel), panel.astype(np.float64), np.nan)
