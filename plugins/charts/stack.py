"""Several charts as one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._drawing.page import Part, parts_page
from onnxlens.plugins.charts.base import Chart, head

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase
    from rich.console import RenderableType

__all__ = ["Stack"]

_PIXELS = 75  # of a page for an inch of a picture


class Stack(Chart):
    """Charts one below the other.

    Args:
        title: the heading of all.
        charts: each with a title of its own.
        side_by_side: whether a picture has them beside each other.
    """

    def __init__(self, title: str, charts: Sequence[Chart], *, side_by_side: bool = False) -> None:
        self.title, self.charts, self.side_by_side = printable(title), list(charts), side_by_side
        if not self.charts:
            raise ValueError("a stack needs a chart at least")

    def text(self) -> RenderableType:
        """The texts of all, one after the other."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(self.title, style="bold")]
        for chart in self.charts:
            parts += ["", chart.text()]
        return Group(*parts)

    def size(self) -> tuple[float, float]:
        """Width and height of the picture in inches."""
        sizes = [chart.size() for chart in self.charts]
        if self.side_by_side:
            return sum(wide for wide, _ in sizes), max(high for _, high in sizes) + 0.4
        return max(wide for wide, _ in sizes), sum(high for _, high in sizes) + 0.4

    def draw_on(self, figure: FigureBase) -> None:
        """Draws one below the other."""
        head(figure, self.title, self.size()[0], bold=True)
        sizes = [chart.size() for chart in self.charts]
        if self.side_by_side:
            places = figure.subfigures(1, len(sizes), width_ratios=[wide for wide, _ in sizes], squeeze=False)[0]
        else:
            places = figure.subfigures(len(sizes), 1, height_ratios=[high for _, high in sizes], squeeze=False)[:, 0]
        for place, chart in zip(places, self.charts, strict=True):
            chart.draw_on(place)

    def html(self) -> str:
        """One page with all of them."""
        parts: list[Part] = []
        for chart in self.charts:
            part = chart.part()
            if not isinstance(part, str):
                part.update_layout(height=max(280, int(_PIXELS * chart.size()[1])))
            parts += [f"<h2>{escape(chart.title)}</h2>", part]
        return parts_page(self.title, parts)

    def part(self) -> Part:
        """Stacks are pages, not parts of one.

        Raises:
            TypeError: always.
        """
        raise TypeError("a stack cannot be a part of another")

    def data(self) -> Any:
        """The data of each."""
        return {"title": self.title, "charts": [chart.data() for chart in self.charts]}
