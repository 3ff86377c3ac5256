"""Applies metrics to a model's logits: turns their tokens into ids and checks their values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np

from onnxlens.metrics import AnyMetric, Metric, Token, TokenMetric, checked_gradient, checked_value
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._text.token_text import quoted_token
from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import InputError

__all__ = ["Measure", "of_row"]

_NO_GRADIENT = (
    "The metric is a function without a gradient, which is needed here; give one of onnxlens.metrics, such "
    "as logit(' the'), or Metric(fn, grad)."
)


class Measure:
    """A metric of a batch.

    Args:
        metric: one of `onnxlens.metrics`, or an object with its methods; or a function, see `AnyMetric`.
        tokenizer: turns tokens that the metric names by text into ids.
        vocabulary: how many ids there are.
        rows: rows of the batch.
        has_gradient: whether the gradient will be asked for.

    Raises:
        InputError: it is not a metric, has no gradient though one is needed, or names an unknown token.
    """

    def __init__(
        self, metric: AnyMetric, tokenizer: Tokenizer, vocabulary: int, rows: int, *, has_gradient: bool = False
    ) -> None:
        metric = _metric(metric, has_gradient)
        self._metric = metric.with_ids(lambda token: _ids(token, tokenizer, vocabulary, rows))
        self._checked = isinstance(metric, Metric)  # its own gradient
        self._rows = rows

    @property
    def needs_all_positions(self) -> bool:
        """Whether it may read other positions than the last: true unless the metric says that it does not."""
        return getattr(self._metric, "reads_last_only", False) is not True

    def value(self, logits: np.ndarray, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The metric of each row, [B] float64.

        Raises:
            InputError: it is not a finite number.
        """
        value = self._metric.value(logits, ids, mask)
        return value if self._checked else checked_value(value, self._rows, f"{type(self._metric).__name__}.value")

    def gradient(self, logits: np.ndarray, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The gradient of each row's value at the logits, [B, P, V].

        Raises:
            InputError: it has another shape, or holds NaN or infinity.
        """
        gradient = self._metric.gradient(logits, ids, mask)
        name = f"{type(self._metric).__name__}.gradient"
        return gradient if self._checked else checked_gradient(gradient, logits.shape, name)


def of_row(metric: AnyMetric, row: int, rows: int, tokenizer: Tokenizer, vocabulary: int) -> TokenMetric:
    """The metric of one row of a batch, for which it may name a token of its own.

    Raises:
        InputError: it is not a metric, or names an unknown token.
    """
    return _metric(metric, False).with_ids(lambda token: _ids(token, tokenizer, vocabulary, rows)[row])


@dataclass(frozen=True)
class _Function:
    """A function of the logits of one text, as a metric."""

    fn: Callable[[np.ndarray], Any]

    def with_ids(self, to_ids: Callable[[Token], np.ndarray]) -> Self:
        return self

    def value(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.array([self._of_one(row[kept == 1]) for row, kept in zip(logits, mask, strict=True)])  # [B]

    def gradient(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        raise InputError(_NO_GRADIENT)

    def _of_one(self, logits: np.ndarray) -> float:
        """The value for logits [P, V]."""
        view = logits[np.newaxis]  # [1, P, V]
        view.flags.writeable = False
        name = getattr(self.fn, "__name__", repr(self.fn))
        try:
            value = self.fn(view)
        except Exception as error:
            raise InputError(f"The metric {name!r} raised {type(error).__name__}: {error}") from error
        return float(checked_value(value, 1, f"The metric {name!r}")[0])


def _metric(metric: object, has_gradient: bool) -> TokenMetric:
    """Turns what a caller passes as a metric into one.

    Raises:
        InputError: it is not a metric, or has no gradient though one is needed.
    """
    if all(callable(getattr(metric, name, None)) for name in ("with_ids", "value", "gradient")) and not isinstance(
        metric, type
    ):
        if has_gradient and isinstance(metric, Metric) and metric.grad is None:
            raise InputError(_NO_GRADIENT)
        return cast(TokenMetric, metric)
    if callable(metric) and not isinstance(metric, type):
        if has_gradient:
            raise InputError(_NO_GRADIENT)
        return _Function(metric)
    raise InputError(
        "metric must be one of onnxlens.metrics, such as logit(' the'), Metric(fn, grad), or, where no gradient is "
        f"needed, a function of the logits of one text, not {metric!r:.200}."
    )


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
        ids = tokenizer.encode_word(token)
        if len(ids) != 1:
            parts = f" ({', '.join(map(quoted_token, tokenizer.pieces(ids)))})" if ids else ""
            raise InputError(
                f"The metric's token {token!r} is {len(ids)} tokens{parts}, and must be exactly one; a leading space "
                "often makes the difference."
            )
        return ids[0]
    if not is_integer(token):
        raise InputError(f"A token is an id or a text, or one for each row, not {token!r}.")
    if not 0 <= token < vocabulary:
        raise InputError(f"Token id {token} is out of range: this model's ids are 0 to {vocabulary - 1}.")
    return int(token)
