"""Lines from rows to columns, whose width shows a number."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.plugins._drawing.fonts import monospace
from onnxlens.plugins._drawing.labels import short
from onnxlens.plugins._drawing.page import Part
from onnxlens.plugins.charts.base import head
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.scale import NO_SIGN

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

__all__ = ["Links"]

_LINE = 0.24  # inches between labels
_LEAST = 0.02  # share of the scale below which no line is drawn
_LABEL = 14


class Links(Heatmap):
    """A non-negative matrix as lines from labels on the right to labels on the left.

    Args:
        title: the heading.
        values: [R, C].
        rows: labels of the rows, R; on the right.
        columns: labels of the columns, C; on the left.
        unit: the quantity and its unit.
        row_axis: the heading of the rows.
        column_axis: the heading of the columns.
        limits: 0 and the number of the widest line; if left out, the largest number.
    """

    def __init__(
        self,
        title: str,
        values: np.ndarray,
        rows: Sequence[str],
        columns: Sequence[str],
        *,
        unit: str,
        row_axis: str,
        column_axis: str,
        limits: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(
            title, values, rows, columns, unit=unit, row_axis=row_axis, column_axis=column_axis, limits=limits
        )

    def size(self) -> tuple[float, float]:
        """Width and height of the picture in inches."""
        return 6.5, 1.0 + _LINE * max(len(self.rows), len(self.columns))

    def draw_on(self, figure: FigureBase) -> None:
        """Draws the lines."""
        head(figure, self.title, self.size()[0])
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set(xlim=(-0.8, 1.8), ylim=(max(len(self.rows), len(self.columns)), -1.2))
        how: dict[str, Any] = {"fontsize": 8, "family": monospace(), "va": "center", "parse_math": False}
        for labels, at, side, heading in (
            (self.columns, 0.0, "right", self.column_axis),
            (self.rows, 1.0, "left", self.row_axis),
        ):
            axes.text(at, -0.9, heading, ha=side, weight="bold", **how)
            for place, label in enumerate(labels):
                axes.text(at, place, f" {short(label, _LABEL)} ", ha=side, **how)
        low = max(len(self.rows), len(self.columns)) - 0.2
        axes.text(-0.8, low, self._caption(), fontsize=7, va="center", parse_math=False)
        for row, column, share, _ in self._lines():
            axes.plot([0, 1], [column, row], color=NO_SIGN, alpha=0.15 + 0.85 * share, linewidth=0.4 + 4 * share)

    def part(self) -> Part:
        """The lines as SVG; the pointer on a label hides the lines of others, and on a line shows its number."""
        high = 22 * (max(len(self.rows), len(self.columns)) + 1)
        drawn = []
        for row, column, share, value in self._lines():
            hint = f"{self.rows[row]} ({row}) → {self.columns[column]} ({column}): {value:.4g}"
            drawn.append(
                f'<line class="r{row} c{column}" x1="240" y1="{22 * column + 33}" x2="480" y2="{22 * row + 33}" '
                f'stroke-opacity="{0.15 + 0.85 * share:.3f}" stroke-width="{0.5 + 6 * share:.2f}">'
                f"<title>{escape(hint)}</title></line>"
            )
        sides = ((self.columns, "c", 234, "end"), (self.rows, "r", 486, "start"))
        for labels, kind, at, anchor in sides:
            for place, label in enumerate(labels):
                drawn.append(
                    f'<text class="label" data-of="{kind}{place}" tabindex="0" x="{at}" y="{22 * place + 37}" '
                    f'text-anchor="{anchor}">{escape(short(label, _LABEL))}</text>'
                )
        headings = (
            f'<text x="234" y="14" text-anchor="end" font-weight="600">{escape(self.column_axis)}</text>'
            f'<text x="486" y="14" font-weight="600">{escape(self.row_axis)}</text>'
        )
        return (
            f'<svg class="links" viewBox="0 0 720 {high + 20}" width="720" role="img">{headings}\n'
            + "\n".join(drawn)
            + f"\n</svg>\n<p>{escape(self._caption())}</p>"
        )

    def _caption(self) -> str:
        most = self.limits[1]
        return f"{self.unit}; the widest line is {most:.3g}, and numbers below {_LEAST * most:.2g} have no line"

    def _lines(self) -> list[tuple[int, int, float, float]]:
        """Row, column, share of the scale, and number of each line, the faint ones first."""
        (values,) = self.panels.values()
        whole = np.where(np.isfinite(values), values, 0.0)
        largest = self.limits[1]
        places = np.argwhere(whole > _LEAST * largest)
        found = [(int(r), int(c), min(1.0, float(whole[r, c]) / largest), float(whole[r, c])) for r, c in places]
        return sorted(found, key=lambda one: one[2])
