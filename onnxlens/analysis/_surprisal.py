"""Surprisal: how unexpected each token of a text is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.analysis._sweeps import Text, one_text
from onnxlens.runtime._result import Result
from onnxlens.runtime._running.logits import log_softmax
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["Surprisal", "surprisal"]


@dataclass(frozen=True, kw_only=True)
class Surprisal(Result):
    """The surprisal of each token but the first, for which there is no prediction.

    Attributes:
        values: -ln p(token | the tokens before it), in nats, [P - 1] float64.
        rank: how many tokens were more probable, [P - 1] int64.
        entropy: of the prediction, in nats, [P - 1] float64: the expected surprisal.
        tokens: the ids of the tokens, without the first, [P - 1].
        axes: of the arrays.
    """

    values: np.ndarray
    rank: np.ndarray
    entropy: np.ndarray
    tokens: np.ndarray
    axes: tuple[str, ...] = ("pos",)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields for JSON, `values` as `surprisal`, with loss and perplexity."""
        fields = super().to_dict()
        return {"loss": self.loss, "perplexity": self.perplexity, "surprisal": fields.pop("values"), **fields}

    @property
    def loss(self) -> float:
        """The mean over the tokens, in nats."""
        return float(self.values.mean())

    @property
    def perplexity(self) -> float:
        """The exponential of the loss."""
        return float(np.exp(self.loss))


def surprisal(lens: Lens, text: Text) -> Surprisal:
    """Measures how unexpected each token is, in one pass.

    Args:
        lens: the model.
        text: a text, or its token ids; at least two tokens.

    Raises:
        InputError: the text cannot be used.
    """
    ids = one_text(lens, text, "surprisal")
    if ids.shape[1] < 2:
        raise InputError("There is no prediction for the first token of a text; give a text of at least two tokens.")
    logits = lens.run(ids, keep_cache=False).logits[0, :-1]  # [P - 1, V]
    logs = log_softmax(logits)
    following = ids[0, 1:, np.newaxis]  # [P - 1, 1]
    own = np.take_along_axis(logits, following, axis=-1)
    return Surprisal(
        values=-np.take_along_axis(logs, following, axis=-1)[:, 0],
        rank=(logits > own).sum(-1),
        entropy=-(np.exp(logs) * logs).sum(-1),
        tokens=ids[0, 1:],
    )
