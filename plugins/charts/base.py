"""The base of charts: renderings that stand alone, or among others on one page."""

from __future__ import annotations

import copy
import textwrap
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._drawing.page import Part, parts_page, plotly_text
from onnxlens.plugins._drawing.rendering import Rendering, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

__all__ = ["Chart", "distinct", "head", "joined", "numbers"]

_LINES = 4  # of a title


class Chart(Rendering):
    """A rendering in every format, made of parts that can stand beside others; see `Stack`.

    Attributes:
        title: its heading, as text.
    """

    title: str

    @abstractmethod
    def size(self) -> tuple[float, float]:
        """Width and height of the picture in inches."""

    @abstractmethod
    def draw_on(self, figure: FigureBase) -> None:
        """Draws the picture on a figure of matplotlib, or on a part of one."""

    @abstractmethod
    def part(self) -> Part:
        """Returns its part of a page: HTML in which all texts are escaped, or a figure of plotly."""

    def minus(self, other: Chart) -> Chart | None:
        """Returns a chart of the difference from one of the same kind; None if they cannot be subtracted."""
        return None

    def titled(self, title: str) -> Chart:
        """Returns the same chart with another title."""
        twin = copy.copy(self)
        twin.title = printable(title)
        return twin

    def figure(self) -> Figure:
        """The picture."""
        from matplotlib.figure import Figure

        with drawing():
            figure = Figure(figsize=self.size(), layout="constrained")
            self.draw_on(figure)
        return figure

    def html(self) -> str:
        """The page."""
        return parts_page(self.title, [self.part()])


def head(figure: FigureBase, title: str, wide: float, *, bold: bool = False) -> None:
    """Puts a title above a figure of this width in inches, on as many lines as needed."""
    lines = textwrap.wrap(title, max(20, int(wide * 11)), break_on_hyphens=False)
    shown = [*lines[:_LINES], "…"] if len(lines) > _LINES else lines
    figure.suptitle("\n".join(shown), fontsize=11 if bold else 10, weight="bold" if bold else None, parse_math=False)


def distinct(labels: list[str]) -> list[str]:
    """Labels for plotly, which would merge equal ones: these get a number."""
    shown = [plotly_text(label) for label in labels]
    return shown if len(set(shown)) == len(shown) else [f"{place} {label}" for place, label in enumerate(shown)]


def joined(first: list[str], second: list[str]) -> list[str]:
    """The labels of two charts combined: where they differ, both."""
    return [one if one == two else f"{one}/{two}" for one, two in zip(first, second, strict=True)]


def numbers(values: Any) -> Any:
    """An array as nested lists for JSON, with None for NaN and infinity."""
    import numpy as np

    array = np.asarray(values)
    whole = array.astype(object)
    whole[~np.isfinite(array)] = None
    return whole.tolist()
