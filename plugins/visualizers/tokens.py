"""`tokens`: how a text is cut into tokens, each coloured by a number of the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from onnxlens.plugins.options import Option
from onnxlens.plugins.visualizers.base import LOGITS, View, Visualizer
from onnxlens.plugins.visualizers.labels import ink, printable, short, tint, visible
from onnxlens.plugins.visualizers.page import page
from onnxlens.plugins.visualizers.rendering import Rendering
from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.logits import log_softmax

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["Tokens", "TokensRendering"]

_MEANING = {
    "surprisal": "surprisal in nats: how little the model expected the token",
    "norm": "length of the residual stream after block {layer}",
    "nothing": "",
}
_PER_LINE = 12  # tokens in a line of a picture

_STYLE = """ol { list-style: none; padding: 0; line-height: 2.2; }
li { display: inline; }
code { border-radius: 3px; padding: .2em .1em; border: 1px solid #8884; }"""


@dataclass
class Tokens(Visualizer):
    """The tokens of a text, each coloured by how much the model was surprised by it."""

    colour: Annotated[
        Literal["surprisal", "norm", "nothing"],
        Option("what the colour shows: surprisal in nats, the length of the residual stream, or nothing"),
    ] = "surprisal"
    layer: Annotated[
        int | None,
        Option("for norm, the block whose residual stream is measured; from the end if negative, the last by default"),
    ] = None

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The logits, or one residual stream, or nothing."""
        if self.colour == "norm":
            return (f"blocks.{self._layer(config)}.hook_resid_post",)
        if self.layer is not None:
            raise InputError(f"layer says whose residual stream is measured: with colour norm, not {self.colour}.")
        return (LOGITS,) if self.colour == "surprisal" else ()

    def draw(self, view: View) -> TokensRendering:
        """Returns the tokens with their numbers."""
        values: list[float | None] = [None] * len(view.ids)
        meaning = _MEANING[self.colour]
        if self.colour == "norm":
            layer = self._layer(view.config)
            stream = view.cache[f"blocks.{layer}.hook_resid_post"].astype(np.float64)  # [P, D]
            values = np.linalg.norm(stream, axis=-1).tolist()
            meaning = meaning.format(layer=layer)
        elif self.colour == "surprisal" and view.logits is not None:
            logprobs = log_softmax(view.logits[:-1])[np.arange(len(view.ids) - 1), view.ids[1:]]  # [P - 1]
            values = [None, *(-logprobs).tolist()]  # nothing predicts the first one
        return TokensRendering(view.model, view.ids.tolist(), view.str_tokens, values, meaning)

    def _layer(self, config: ModelConfig) -> int:
        return config.n_layer - 1 if self.layer is None else self.numbered("layer", config.n_layer)


class TokensRendering(Rendering):
    """Tokens in a row, in every format.

    Args:
        model: the model's name.
        ids: the token ids.
        str_tokens: their texts.
        values: a number for each; None where there is none.
        meaning: what the numbers are; empty where there are none.
    """

    def __init__(
        self, model: str, ids: list[int], str_tokens: Sequence[str], values: list[float | None], meaning: str
    ) -> None:
        self.model, self.ids, self.str_tokens, self.values, self.meaning = model, ids, str_tokens, values, meaning

    def text(self) -> RenderableType:
        """A table, one token a line."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for heading in ("position", "token", "id", "value"):
            if heading != "value" or self.meaning:
                table.add_column(heading, justify="left" if heading == "token" else "right", overflow="fold")
        for position, (token, number, colour) in enumerate(self._coloured()):
            style = f"{ink(colour)} on {colour}" if colour else ""
            cells = [Text(str(position)), Text(repr(token), style=style), Text(str(self.ids[position]))]
            if self.meaning:
                cells.append(Text("" if number is None else f"{number:.2f}"))
            table.add_row(*cells)
        return Group(Text(self._title()), "", table)

    def figure(self) -> Figure:
        """The tokens in lines, on their colours."""
        from matplotlib.figure import Figure

        count = len(self.ids)
        lines = -(-count // _PER_LINE)
        figure = Figure(figsize=(12, 0.6 + 0.5 * lines))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, _PER_LINE), ylim=(lines, -1))
        axes.set_axis_off()
        axes.text(0.05, -0.5, self._title(), va="center", fontsize=10, parse_math=False)
        for position, (token, _, colour) in enumerate(self._coloured()):
            line, column = divmod(position, _PER_LINE)
            ground = {"facecolor": colour or "none", "edgecolor": "#888888", "linewidth": 0.5}
            if self.meaning and not colour:
                ground["linestyle"] = "--"  # that it has no number is not that it is small
            axes.add_patch(_rectangle(column, line, ground))
            axes.text(
                column + 0.5,
                line + 0.5,
                short(visible(token), 12),  # which may be longer than its place
                ha="center",
                va="center",
                fontsize=8,
                family="monospace",
                color=ink(colour) if colour else "#000000",
                parse_math=False,  # a dollar sign is one
            )
        return figure

    def html(self) -> str:
        """The text as it reads, each token on its colour, with its numbers where the pointer rests."""
        items = []
        for position, (token, number, colour) in enumerate(self._coloured()):
            hint = f"position {position}, id {self.ids[position]}" + ("" if number is None else f", {number:.3f}")
            style = f' style="background:{colour};color:{ink(colour)}"' if colour else ""
            items.append(f'<li><code title="{escape(hint)}"{style}>{escape(printable(token))}</code></li>')
        title = escape(self._title())
        return page(self.model, f"<h1>{title}</h1>\n<ol>\n" + "\n".join(items) + "\n</ol>", style=_STYLE)

    def data(self) -> Any:
        """The model, what the numbers mean, and each token with its number."""
        tokens = zip(self.ids, self.str_tokens, self.values, strict=True)
        return {
            "model": self.model,
            "value": self.meaning or None,
            "tokens": [{"id": number, "token": token, "value": value} for number, token, value in tokens],
        }

    def _title(self) -> str:
        if not self.meaning:
            return f"{printable(self.model)}: tokens"
        least, most = self._range()
        if all(value is None for value in self.values):  # a single token, which nothing predicts
            return f"{printable(self.model)}: {self.meaning}"
        return f"{printable(self.model)}: {self.meaning}; from {least:.2f} (light) to {most:.2f} (dark)"

    def _range(self) -> tuple[float, float]:
        """What the lightest and the darkest colour stand for."""
        known = [value for value in self.values if value is not None]
        # From 0, so that nearly equal numbers are not made to look different.
        return (min(0.0, *known), max(known)) if known else (0.0, 0.0)

    def _coloured(self) -> list[tuple[str, float | None, str]]:
        """Each token with its number and its colour; none where there is no number."""
        least, most = self._range()
        span = most - least
        shares = [None if value is None else (value - least) / span if span else 0.0 for value in self.values]
        return [
            (token, value, "" if share is None else tint(share))
            for token, value, share in zip(self.str_tokens, self.values, shares, strict=True)
        ]


def _rectangle(column: int, line: int, ground: dict[str, Any]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column + 0.03, line + 0.1), 0.94, 0.8, **ground)
