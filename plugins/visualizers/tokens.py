"""`tokens`: how a text is cut into tokens, each coloured by a number of the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from onnxlens.plugins.charts.coloured import ColouredText
from onnxlens.plugins.options import Option
from onnxlens.plugins.visualizers.base import LOGITS, View, Visualizer
from onnxlens.plugins.visualizers.labels import printable
from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.logits import log_softmax

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


class TokensRendering(ColouredText):
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
        self.model, self.ids = model, ids
        numbers = [np.nan if value is None else value for value in values]
        super().__init__(f"{printable(model)}: tokens", str_tokens, numbers, unit=meaning, details={"id": ids})

    def data(self) -> Any:
        """The model, what the numbers mean, and each token with its number."""
        shown = super().data()["tokens"]
        tokens = [{"id": one["id"], "token": one["token"], "value": one["value"]} for one in shown]
        return {"model": self.model, "value": self.unit or None, "tokens": tokens}
