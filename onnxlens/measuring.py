"""Metrics applied to a model's logits: their tokens made ids, their values checked."""

from __future__ import annotations

import numpy as np

from onnxlens.metrics import Metric, Token, TokenMetric, checked_gradient, checked_value
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.tokenizer import Tokenizer
from onnxlens.runtime.whole import is_whole

__all__ = ["Measure"]


class Measure:
    """A metric of a batch.

    Args:
        metric: one of `onnxlens.metrics`, or whatever has its methods.
        tokenizer: turns tokens that the metric names by text into ids.
        vocabulary: how many ids there are.
        rows: rows of the batch.

    Raises:
        InputError: it is no metric, or names a token that there is not.
    """

    def __init__(self, metric: TokenMetric, tokenizer: Tokenizer, vocabulary: int, rows: int) -> None:
        if not all(callable(getattr(metric, name, None)) for name in ("with_ids", "value", "gradient")):
            raise InputError(
                f"metric must be one of onnxlens.metrics, such as logit(' the'), or Metric(fn, grad), not {metric!r}."
            )
        self._metric = metric.with_ids(lambda token: _ids(token, tokenizer, vocabulary, rows))
        self._checked = isinstance(metric, Metric)  # by itself, already
        self._rows = rows

    @property
    def needs_all_positions(self) -> bool:
        """Whether it could look at other positions than the last."""
        return getattr(self._metric, "position", None) != -1

    def value(self, logits: np.ndarray, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The metric of each row, [B] float64.

        Raises:
            InputError: it is no finite number.
        """
        value = self._metric.value(logits, ids, mask)
        return value if self._checked else checked_value(value, self._rows, f"{type(self._metric).__name__}.value")

    def gradient(self, logits: np.ndarray, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The gradient of each row's value at the logits, [B, P, V].

        Raises:
            InputError: it has another shape, or holds what is no finite number.
        """
        gradient = self._metric.gradient(logits, ids, mask)
        name = f"{type(self._metric).__name__}.gradient"
        return gradient if self._checked else checked_gradient(gradient, logits.shape, name)


def _ids(token: Token, tokenizer: Tokenizer, vocabulary: int, rows: int) -> np.ndarray:
    """The id of a token for each row, [B] int64."""
    if isinstance(token, str | int | np.integer):
        return np.full(rows, _id(token, tokenizer, vocabulary))
    try:
        each = list(token)
    except TypeError:
        raise InputError(f"A token is an id or a text, or one for each row, not {token!r}.") from None
    if len(each) != rows:
        raise InputError(f"The metric names {len(each)} tokens, one for each row, and there are {rows} rows.")
    return np.array([_id(one, tokenizer, vocabulary) for one in each], np.int64)


def _id(token: object, tokenizer: Tokenizer, vocabulary: int) -> int:
    if isinstance(token, str):
        ids = tokenizer.encode(token) if token else []
        if len(ids) != 1:
            parts = f" ({', '.join(map(repr, tokenizer.str_tokens(ids)))})" if ids else ""
            raise InputError(
                f"The metric's token {token!r} is {len(ids)} tokens{parts}, and must be exactly one; a leading space "
                "often makes the difference."
            )
        return ids[0]
    if not is_whole(token):
        raise InputError(f"A token is an id or a text, or one for each row, not {token!r}.")
    if not 0 <= token < vocabulary:
        raise InputError(f"Token id {token} is out of range: this model's ids are 0 to {vocabulary - 1}.")
    return int(token)
