"""A table that a narrow terminal shows as several groups of columns, one below the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

__all__ = ["Columns", "cut"]

_GAP = 2  # between columns


class Columns:
    """Rows of texts under headings, in which only tokens on a terminal are cut; rich prints it.

    Args:
        headings: of the columns; the first column names the rows, and stands before each group of the others.
        rows: makes the rows; it gets a function that cuts a token so that numbers have room.
    """

    def __init__(
        self, headings: Sequence[str], rows: Callable[[Callable[[str], str]], Sequence[Sequence[str]]]
    ) -> None:
        self.headings, self._rows = list(headings), rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Renders groups of columns as wide as the terminal, or one as wide as it needs."""
        from rich.table import Table
        from rich.text import Text

        rows = self._rows((lambda token: cut(token, console.width)) if console.is_terminal else str)
        names, *columns = [[Text(cell) for cell in column] for column in zip(self.headings, *rows, strict=True)]
        groups, width = _groups(names, columns, console.width) if console.is_terminal else ([columns], 0)
        for number, group in enumerate(groups):
            table = Table(box=None, pad_edge=False)
            table.add_column(names[0], no_wrap=True)
            for heading, *_ in group:
                table.add_column(heading, justify="right", no_wrap=True, min_width=width)
            for cells in zip(names[1:], *(column[1:] for column in group), strict=True):
                table.add_row(*cells)
            if number:
                yield Text("")
            # A group that is still wider than the terminal runs over its edge.
            yield from console.render(table, options.update(max_width=sys.maxsize))


def cut(token: str, width: int) -> str:
    """A token, cut if it would leave no room for numbers on a terminal of this width."""
    from rich.text import Text

    text = Text(token)
    text.truncate(max(16, width // 3), overflow="ellipsis")
    return text.plain


def _groups(names: list[Text], columns: list[list[Text]], room: int) -> tuple[list[list[list[Text]]], int]:
    """Columns in as few groups as possible, of similar size; and the width with which they align."""
    first, *widths = [_widest(cells) for cells in (names, *columns)]
    if first + sum(_GAP + width for width in widths) <= room:
        return [columns], 0
    fitting = max(1, (room - first) // (_GAP + max(widths)))
    size = -(-len(columns) // -(-len(columns) // fitting))
    return [columns[start : start + size] for start in range(0, len(columns), size)], max(widths)


def _widest(cells: Sequence[Text]) -> int:
    def lines() -> Iterator[int]:
        for text in cells:
            yield from (line.cell_len for line in text.split())

    return max(lines(), default=0)
