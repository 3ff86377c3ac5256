"""A text whose tokens have coloured backgrounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.plugins._drawing.fonts import monospace
from onnxlens.plugins._drawing.labels import ink, printable, quoted_token, short, visible
from onnxlens.plugins._drawing.page import Part
from onnxlens.plugins.charts.base import Chart, head, joined, numbers
from onnxlens.plugins.charts.scale import Scale

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase
    from rich.console import RenderableType

__all__ = ["ColouredText"]

_PER_LINE = 12  # tokens in a line of a picture
_DRAWN = 1_200  # tokens of a picture, and of a table in a terminal: more than most models read
_PRINTED = 10_000
_READ = '<output class="read" aria-live="polite"></output>'  # details of the token that has the focus


class ColouredText(Chart):
    """Tokens in a row, each with the colour of a number as its background.

    Args:
        title: the heading.
        tokens: their texts, as they are.
        values: a number for each, P; NaN where there is none.
        unit: the quantity and its unit.
        details: further columns, by heading: a text or number for each token.
        captions: in a picture, a short text below each token; if left out, numbers with a sign are written there.
        limits: the numbers at the ends of the colour scale, such as 0 and 10 nats; if left out, zero and the largest
            number, or a symmetric range around zero.
        floor: the least number at the end of the colour scale, without limits: smaller differences are noise.
        signs: what numbers above and below zero mean, such as "supports the answer" and "opposes it"; the scale then "
        "has two ends even if no number is below zero.
        of_tokens: whether a number is of the token itself, such as its probability, not of its place: a difference then
            subtracts numbers of equal tokens only.
    """

    def __init__(
        self,
        title: str,
        tokens: Sequence[str],
        values: Sequence[float] | np.ndarray,
        *,
        unit: str,
        details: Mapping[str, Sequence[str | int | float | None]] | None = None,
        captions: Sequence[str] = (),
        limits: tuple[float, float] | None = None,
        floor: float = 0.0,
        signs: tuple[str, str] | None = None,
        of_tokens: bool = False,
    ) -> None:
        self.title, self.unit, self.tokens = printable(title), printable(unit), list(tokens)
        self.values = np.asarray(values, np.float64)
        self.scale = Scale.of([self.values], limits=limits, floor=floor, signs=signs)
        self.of_tokens = of_tokens
        self.captions = [printable(caption) for caption in captions] or self._numbers() or [""] * len(self.tokens)
        self.details = {
            printable(heading): [printable(one) if isinstance(one, str) else one for one in column]
            for heading, column in (details or {}).items()
        }
        for heading, size in {
            self.unit: len(self.values),
            **{name: len(one) for name, one in self.details.items()},
            "captions": len(self.captions),
        }.items():
            if size != len(self.tokens):
                raise ValueError(f"{heading!r} has {size} entries for {len(self.tokens)} tokens")

    @property
    def limits(self) -> tuple[float, float]:
        """The numbers at the ends of the colour scale."""
        return self.scale.least, self.scale.most

    def text(self) -> RenderableType:
        """A table with one token on each line."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        table.add_column("position", justify="right")
        table.add_column("token", overflow="fold")
        if self.unit:
            table.add_column("value", justify="right", no_wrap=True)
        for heading, column in self.details.items():
            is_text = any(isinstance(one, str) for one in column)
            table.add_column(Text(heading), justify="left" if is_text else "right", overflow="fold")
        for place, (token, colour) in enumerate(zip(self.tokens[:_PRINTED], self._colours()[:_PRINTED], strict=True)):
            style = f"{ink(colour)} on {colour}" if colour else ""
            sign = "+" if self.scale.is_signed else ""
            value = [Text(f"{self.values[place]:{sign}.2f}" if colour else "")] if self.unit else []
            more = [_said(column[place]) for column in self.details.values()]
            table.add_row(str(place), Text(quoted_token(token), style=style), *value, *map(Text, more))
        scale = [Text(self._scale(), style="dim")] if self.unit else []
        left = len(self.tokens) - _PRINTED
        rest = [Text(f"and {left:,} more, which .html and .json have")] if left > 0 else []
        return Group(Text(self.title), *scale, "", table, *rest)

    def size(self) -> tuple[float, float]:
        """Width and height of the picture in inches."""
        return 12.0, 0.9 + 0.5 * self._lines()

    def draw_on(self, figure: FigureBase) -> None:
        """Draws the tokens in lines, with their colours."""
        from matplotlib.patches import Rectangle

        head(figure, self._heading(), self.size()[0])
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set(xlim=(0, _PER_LINE), ylim=(self._lines(), 0))
        if len(self.tokens) > _DRAWN:
            rest = f"and {len(self.tokens) - _DRAWN:,} more, which .html and .json have"
            axes.text(0.03, self._lines() - 0.5, rest, va="center", fontsize=8, parse_math=False)
        for place, (token, colour) in enumerate(zip(self.tokens[:_DRAWN], self._colours()[:_DRAWN], strict=True)):
            line, column = divmod(place, _PER_LINE)
            # A dashed frame: a token without a number is not one with a small number.
            frame: dict[str, Any] = {
                "facecolor": colour or "none",
                "edgecolor": "#888888",
                "linestyle": "--" if self.unit and not colour else "-",
            }
            axes.add_patch(Rectangle((column + 0.03, line + 0.1), 0.94, 0.8, linewidth=0.5, **frame))
            caption = self.captions[place]
            # Tokens may be longer than their places. Dollar signs are text here.
            shown = [(0.42 if caption else 0.5, 8, short(visible(token), 12)), (0.76, 5, short(caption, 20))]
            for down, size, text in shown:
                axes.text(
                    column + 0.5,
                    line + down,
                    text,
                    ha="center",
                    va="center",
                    fontsize=size,
                    family=monospace(),
                    color=ink(colour) if colour else "#000000",
                    parse_math=False,
                )

    def part(self) -> Part:
        """The running text; the pointer shows a token's details, and a click highlights its occurrences."""
        items, written = [], self._numbers()
        for place, (token, colour) in enumerate(zip(self.tokens, self._colours(), strict=True)):
            known = [f"position {place}"] + ([f"{self.unit}: {self.values[place]:.4g}"] if colour else [])
            known += [f"{heading}: {_said(column[place])}" for heading, column in self.details.items()]
            style = f' style="background:{colour};color:{ink(colour)}"' if colour else ""
            hint = escape("\n".join(known))
            number = f"<sub>{escape(written[place])}</sub>" if written and written[place] else ""
            shown = escape(printable(token))
            items.append(f'<li><code tabindex="0" role="button" title="{hint}"{style}>{shown}</code>{number}</li>')
        return f'<p>{escape(self._scale())}</p>\n<ol class="tokens">\n' + "\n".join(items) + "\n</ol>" + _READ

    def data(self) -> Any:
        """The unit, and each token with its number and details."""
        rows = []
        for place, (token, value) in enumerate(zip(self.tokens, numbers(self.values), strict=True)):
            more = {heading: column[place] for heading, column in self.details.items()}
            rows.append({"token": token, "value": value, **more})
        return {"title": self.title, "unit": self.unit, "tokens": rows}

    def minus(self, other: Chart) -> Chart | None:
        """Returns the differences of the numbers, where both have equally many tokens."""
        if not isinstance(other, ColouredText) or len(other.tokens) != len(self.tokens) or other.unit != self.unit:
            return None
        values = self.values - other.values
        if self.of_tokens:
            values[[one != two for one, two in zip(other.tokens, self.tokens, strict=True)]] = np.nan
        scale = self.scale.difference(other.scale)
        return ColouredText(
            self.unit,
            joined(other.tokens, self.tokens),
            values,
            unit=f"difference, {self.unit}",
            limits=(scale.least, scale.most),
            signs=scale.signs,
        )

    def _lines(self) -> int:
        """Lines of a picture."""
        return max(1, -(-min(len(self.tokens), _DRAWN) // _PER_LINE)) + (len(self.tokens) > _DRAWN)

    def _heading(self) -> str:
        return f"{self.title}; {self._scale()}" if self.unit else self.title

    def _numbers(self) -> list[str]:
        """The numbers as texts, where they have a sign, so that the sign survives printing in grey."""
        found: list[str] = self.scale.written(self.values).tolist() if self.scale.is_signed else []
        return found

    def _scale(self) -> str:
        if not np.isfinite(self.values).any():
            return self.unit
        least, most = (f"{end:.4g}" for end in (self.scale.least, self.scale.most))
        if self.scale.is_signed:
            return f"{self.scale.legend(self.unit)}; from {least} (blue) to {most} (red)"
        return f"{self.unit}; from 0 (light) to {most}{' or more' if self.scale.is_fixed else ''} (dark)"

    def _colours(self) -> list[str]:
        """The colour of each token; None where there is no number."""
        return [self.scale.tint(value) if np.isfinite(value) else "" for value in self.values.tolist()]


def _said(value: str | int | float | None) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
