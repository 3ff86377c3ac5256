"""`tokens`: the tokens of a text, each coloured by a number that the model computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from onnxlens.plugins._drawing.labels import printable, readable, visible
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.visualizer import LOGITS, View, Visualizer
from onnxlens.plugins.charts.base import Chart
from onnxlens.plugins.charts.coloured import ColouredText
from onnxlens.plugins.charts.scale import NATS
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._running.logits import log_softmax
from onnxlens.runtime.errors import InputError

__all__ = ["Tokens", "TokensRendering"]

_MEANING = {
    "surprisal": "surprisal in nats: how little the model expected the token",
    "norm": "length of the residual stream after block {layer}",
    "nothing": "",
}


@dataclass
class Tokens(Visualizer):
    """The tokens of a text, each coloured by how much the model was surprised by it."""

    colour: Annotated[
        Literal["surprisal", "norm", "nothing"],
        Option("the number to show as colour: surprisal in nats, the length of the residual stream, or none"),
    ] = "surprisal"
    layer: Annotated[
        int | None,
        Option("for norm, the block whose residual stream is measured, negative from the end; by default the last"),
    ] = None

    word: Annotated[
        int | None,
        Option("a position, negative from the end: show the merge steps of its token's word"),
    ] = None

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The logits, or one residual stream, or nothing."""
        if self.colour == "norm":
            return (f"blocks.{self._layer(config)}.hook_resid_post",)
        if self.layer is not None:
            raise InputError(
                f"layer is the block whose residual stream is measured, which needs colour norm, not {self.colour}."
            )
        return (LOGITS,) if self.colour == "surprisal" else ()

    def draw(self, view: View) -> Chart:
        """Returns the tokens with their numbers, and the merge steps of one word."""
        values: list[float | None] = [None] * len(view.ids)
        meaning = _MEANING[self.colour]
        if self.colour == "norm":
            layer = self._layer(view.config)
            stream = view.cache[f"blocks.{layer}.hook_resid_post"].astype(np.float64)  # [P, D]
            values = np.linalg.norm(stream, axis=-1).tolist()
            meaning = meaning.format(layer=layer)
        elif self.colour == "surprisal" and view.logits is not None:
            logprobs = log_softmax(view.logits[:-1])[np.arange(len(view.ids) - 1), view.ids[1:]]  # [P - 1]
            values = [None, *(-logprobs).tolist()]  # the first one has no prediction
        ids = view.ids.tolist()
        encoded = [view.tokenizer.token_bytes(token) for token in ids] if view.tokenizer else None
        limits = NATS if self.colour == "surprisal" else None
        tokens = TokensRendering(view.model, ids, view.pieces, values, meaning, encoded, limits)
        if self.word is None:
            return tokens
        return Stack(
            tokens.title, [tokens.titled("Tokens"), self._merged(view, self.position_option("word", len(ids)))]
        )

    def _merged(self, view: View, at: int) -> Table:
        """The merge steps of a word."""
        if view.tokenizer is None:
            raise InputError("The merge steps of a word need a tokenizer, and the view has none.")
        text = view.tokenizer.decode(view.ids.tolist())
        if view.tokenizer.encode(text) != view.ids.tolist():
            raise InputError("These ids are not the tokens of their text, so they have no merge steps; give the text.")
        places, steps = view.tokenizer.merge_steps(text, at)
        tokens = [view.tokenizer.token_bytes(token) for token in view.ids[places.start : places.stop].tolist()]
        word = b"".join(tokens)
        letters = [word] if not steps and len(tokens) == 1 else [word[one : one + 1] for one in range(len(word))]
        rows: list[list[str | int | None]] = [[0, None, None, _pieces(letters)]]
        for number, step in enumerate(steps, 1):
            rows.append([number, " + ".join(map(_piece, step.pair)), step.rank, _pieces(step.pieces)])
        how = "the pair that was learned first is joined, until no learned pair is left"
        title = f"Merge steps of {_piece(word)}: {how if steps or len(tokens) > 1 else 'it is never cut'}"
        return Table(title, ["step", "joined", "rank", "pieces"], rows)

    def _layer(self, config: ModelConfig) -> int:
        return config.n_layers - 1 if self.layer is None else self.index_option("layer", config.n_layers)


class TokensRendering(ColouredText):
    """Tokens in a row, in every format.

    Args:
        model: the model's name.
        ids: the token ids.
        str_tokens: their texts.
        values: a number for each; None where there is none.
        meaning: the name of the numbers; empty where there are none.
        encoded: their bytes, where they are known.
        limits: the numbers at the ends of the colour scale.
    """

    def __init__(
        self,
        model: str,
        ids: list[int],
        str_tokens: Sequence[str],
        values: list[float | None],
        meaning: str,
        encoded: Sequence[bytes] | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self.model = model
        numbers = [np.nan if value is None else value for value in values]
        details: dict[str, Sequence[str | int]] = {"id": ids}
        if encoded is not None:
            details["bytes"] = [one.hex(" ") for one in encoded]
        captions = [f"{position}: id {token}" for position, token in enumerate(ids)]
        title = f"{printable(model)}: tokens"
        super().__init__(
            title,
            str_tokens,
            numbers,
            unit=meaning,
            details=details,
            captions=captions,
            limits=limits,
            of_tokens=limits is not None,
        )

    def data(self) -> Any:
        """The model, the name of the numbers, and each token with its number."""
        return {"model": self.model, "value": self.unit or None, "tokens": super().data()["tokens"]}


def _piece(encoded: bytes) -> str:
    return visible(readable(encoded))


def _pieces(pieces: Sequence[bytes]) -> str:
    return " · ".join(map(_piece, pieces))
