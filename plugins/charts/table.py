"""Texts and numbers in rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from onnxlens.plugins._drawing.fonts import monospace
from onnxlens.plugins._drawing.labels import printable, short
from onnxlens.plugins._drawing.page import Part
from onnxlens.plugins.charts.base import Chart, head, numbers

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase
    from rich.console import RenderableType

__all__ = ["Table"]

_CELL = 60  # characters of a cell in a picture
_ROWS = 60  # rows of a picture

Cell = str | int | float | None


class Table(Chart):
    """Rows of cells under headings.

    Args:
        title: the heading.
        headings: of the columns.
        rows: a text or number for each column; None where there is none.
    """

    def __init__(self, title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.title, self.headings = printable(title), list(map(printable, headings))
        self.rows: list[list[Cell]] = [
            [printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
        ]

        for number, row in enumerate(self.rows):
            if len(row) != len(self.headings):
                raise ValueError(f"row {number} has {len(row)} cells for {len(self.headings)} headings")

    def text(self) -> RenderableType:
        """A table."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=None, pad_edge=False)
        for place, heading in enumerate(self.headings):
            table.add_column(Text(heading), justify=self._side(place), overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(_shown(cell)) for cell in row))
        return Group(Text(self.title), "", table)

    def size(self) -> tuple[float, float]:
        """Width and height of the picture in inches."""
        wide = sum(0.3 + 0.075 * characters for characters in self._widths())
        return max(5.0, wide), 0.8 + 0.2 * (1 + min(_ROWS, len(self.rows)))

    def draw_on(self, figure: FigureBase) -> None:
        """Draws as many rows as fit."""
        head(figure, self.title, self.size()[0])
        axes = figure.subplots()
        axes.set_axis_off()
        rows = self.rows[:_ROWS]
        axes.set(ylim=(len(rows) + 0.5, -1), xlim=(0, 1))
        widths = self._widths()
        # Widths in characters, so that columns are as wide as their content.
        left, total = (
            0.0,
            max(float(sum(widths) + 3 * len(widths)), axes.get_window_extent().width / axes.figure.dpi / 0.085),
        )
        for place, (heading, wide) in enumerate(zip(self.headings, widths, strict=True)):
            side = self._side(place)
            at = (left + (wide if side == "right" else 0)) / total
            how = {"ha": side, "va": "center", "fontsize": 8, "family": monospace(), "parse_math": False}
            axes.text(at, -0.5, heading, weight="bold", **how)
            for number, row in enumerate(rows):
                axes.text(at, number + 0.5, short(_shown(row[place]), _CELL), **how)
            left += wide + 3
        if len(self.rows) > len(rows):
            axes.text(0, len(rows) + 0.4, f"and {len(self.rows) - len(rows)} more", fontsize=7, parse_math=False)

    def part(self) -> Part:
        """A table."""
        head = "".join(f"<th>{escape(heading)}</th>" for heading in self.headings)
        rows = ["<tr>" + "".join(f"<td>{escape(_shown(cell))}</td>" for cell in row) + "</tr>" for row in self.rows]
        return f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table>"

    def data(self) -> Any:
        """The rows, each with its cells by heading."""
        rows = [
            {heading: numbers(cell) if isinstance(cell, float) else cell for heading, cell in self._named(row)}
            for row in self.rows
        ]
        return {"title": self.title, "rows": rows}

    def _named(self, row: list[Cell]) -> Iterator[tuple[str, Cell]]:
        return zip(self.headings, row, strict=True)

    def _side(self, place: int) -> Any:
        return "right" if all(isinstance(row[place], int | float | None) for row in self.rows) else "left"

    def _widths(self) -> list[int]:
        return [
            max(len(heading), *(len(short(_shown(row[place]), _CELL)) for row in self.rows[:_ROWS]), 1)
            for place, heading in enumerate(self.headings)
        ]


def _shown(cell: Cell) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)
