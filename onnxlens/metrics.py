"""Metrics: functions of the logits, one number a text, each with its exact gradient.

A gradient needs one number to be the gradient of. The ready metrics here name a token by its id or by a text that is
exactly one token, and a position by its index among a text's tokens, negative from the end, padding not counted:

    lens.grad("The capital of France is", metric=logit_difference(" Paris", " Rome"))

Where no gradient is needed, any function from the logits of one text, [1, P, V], to a number is a metric, too.

Letters in shape comments: B batch, P position, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np

from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._running.logits import log_softmax
from onnxlens.runtime.errors import InputError

__all__ = [
    "AnyMetric",
    "LogProbability",
    "Logit",
    "LogitDifference",
    "Loss",
    "Metric",
    "Token",
    "TokenMetric",
    "log_probability",
    "logit",
    "logit_difference",
    "loss",
]

# A token by id or text; or one for each row of a batch.
Token = int | str | Sequence[int] | Sequence[str] | np.ndarray


class TokenMetric(Protocol):
    """The methods that `Lens.grad` needs of a metric; every class here has them, and so can your own.

    A metric that reads only the logits at the last position of each row may have an attribute or property
    `reads_last_only` that is True: sweeps then compute no others. Without it, a metric gets all positions.
    """

    def with_ids(self, to_ids: Callable[[Token], np.ndarray]) -> TokenMetric:
        """The same metric, with tokens that were given as text turned into ids.

        Args:
            to_ids: from a token, or one for each row, to ids [B].
        """
        ...

    def value(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The metric of each row, [B] float64.

        Args:
            logits: [B, P, V].
            tokens: [B, P] int64, the tokens that were run.
            mask: [B, P], 0 where a token is padding.
        """
        ...

    def gradient(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The gradient of each row's value at the logits, [B, P, V]; arguments as for `value`."""
        ...


@dataclass(frozen=True)
class Logit:
    """The logit of a token at a position; its gradient is 1 there.

    Attributes:
        token: an id, a text that is one token, or one of these for each row.
        position: among the text's tokens, negative from the end.
    """

    token: Token
    position: int = -1

    @property
    def reads_last_only(self) -> bool:
        """Whether it reads the logits at the last position of each row only."""
        return self.position == -1

    def with_ids(self, to_ids: Callable[[Token], np.ndarray]) -> Self:
        """The same metric with ids for tokens."""
        return replace(self, token=to_ids(self.token))

    def value(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The metric of each row, [B] float64."""
        picked: np.ndarray = logits[_where(self.position, mask, self.token)].astype(np.float64)  # [B]
        return picked

    def gradient(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The gradient of each row's value at the logits, [B, P, V]."""
        gradient = np.zeros_like(logits)
        gradient[_where(self.position, mask, self.token)] = 1
        return gradient


@dataclass(frozen=True)
class LogitDifference:
    """The difference between the logits of two tokens at a position.

    Attributes:
        a: the token whose logit counts in full: an id, a text that is one token, or one of these for each row.
        b: the token whose logit is subtracted, likewise.
        position: among the text's tokens, negative from the end.
    """

    a: Token
    b: Token
    position: int = -1

    @property
    def reads_last_only(self) -> bool:
        """Whether it reads the logits at the last position of each row only."""
        return self.position == -1

    def with_ids(self, to_ids: Callable[[Token], np.ndarray]) -> Self:
        """The same metric with ids for tokens."""
        return replace(self, a=to_ids(self.a), b=to_ids(self.b))

    def value(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The metric of each row, [B] float64."""
        one, other = (logits[_where(self.position, mask, token)].astype(np.float64) for token in (self.a, self.b))
        difference: np.ndarray = one - other  # [B]
        return difference

    def gradient(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The gradient of each row's value at the logits, [B, P, V]."""
        gradient = np.zeros_like(logits)
        gradient[_where(self.position, mask, self.a)] += 1
        gradient[_where(self.position, mask, self.b)] -= 1  # where both are the same token, 0 is left
        return gradient


@dataclass(frozen=True)
class LogProbability:
    """The natural logarithm of a token's probability at a position: its logit minus log(sum(exp(logits))).

    The gradient is 1 at the token, minus the probabilities.

    Attributes:
        token: an id, a text that is one token, or one of these for each row.
        position: among the text's tokens, negative from the end.
    """

    token: Token
    position: int = -1

    @property
    def reads_last_only(self) -> bool:
        """Whether it reads the logits at the last position of each row only."""
        return self.position == -1

    def with_ids(self, to_ids: Callable[[Token], np.ndarray]) -> Self:
        """The same metric with ids for tokens."""
        return replace(self, token=to_ids(self.token))

    def value(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The metric of each row, [B] float64."""
        rows, columns, ids = _where(self.position, mask, self.token)
        picked: np.ndarray = log_softmax(logits[rows, columns])[rows, ids]  # [B, V], then [B]
        return picked

    def gradient(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The gradient of each row's value at the logits, [B, P, V]."""
        rows, columns, ids = _where(self.position, mask, self.token)
        gradient = np.zeros_like(logits)
        gradient[rows, columns] = -np.exp(log_softmax(logits[rows, columns]))  # [B, V]
        gradient[rows, columns, ids] += 1
        return gradient


@dataclass(frozen=True)
class Loss:
    """The mean cross-entropy of the next token, in nats, over all tokens of a text but the first."""

    def with_ids(self, to_ids: Callable[[Token], np.ndarray]) -> Self:
        """The metric itself: it names no token."""
        return self

    def value(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The metric of each row, [B] float64."""
        losses = []
        for row, (now, following) in enumerate(_steps(mask)):
            losses.append(-_log_probabilities(logits[row, now], tokens[row, following]).mean())
        return np.array(losses)

    def gradient(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The gradient of each row's value at the logits, [B, P, V]."""
        gradient = np.zeros_like(logits)
        for row, (now, following) in enumerate(_steps(mask)):
            gradient[row, now] = np.exp(log_softmax(logits[row, now]))  # [steps, V]
            gradient[row, now, tokens[row, following]] -= 1
            gradient[row, now] /= len(now)
        return gradient


@dataclass(frozen=True)
class Metric:
    """A metric of your own: a function of the logits, given with its gradient.

    Attributes:
        fn: from logits [B, P, V] float32 to one number for each row, [B]; that of a row depends on its logits only.
        grad: from the same to the gradient of each row's number at its logits, [B, P, V]; None where no gradient is
            needed.
    """

    fn: Callable[[np.ndarray], Any]
    grad: Callable[[np.ndarray], Any] | None = None

    def with_ids(self, to_ids: Callable[[Token], np.ndarray]) -> Self:
        """The metric itself: its function knows its tokens."""
        return self

    def value(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The checked result of `fn`, [B] float64.

        Raises:
            InputError: it is not one finite number for each row.
        """
        return checked_value(self.fn(_read_only(logits)), len(logits), "The metric's fn")

    def gradient(self, logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The checked result of `grad`, [B, P, V].

        Raises:
            InputError: there is none, it has another shape than the logits, or holds anything but finite real numbers.
        """
        if self.grad is None:
            raise InputError("The metric has no gradient, which is needed here; give Metric(fn, grad).")
        return checked_gradient(self.grad(_read_only(logits)), logits.shape, "The metric's grad")


# Where no gradient is needed: a metric, or a function from the logits of one text, [1, P, V], to a number.
AnyMetric = TokenMetric | Callable[[np.ndarray], Any]


def logit(token: Token, position: int = -1) -> Logit:
    """The logit of a token at a position."""
    return Logit(token, position)


def logit_difference(a: Token, b: Token, position: int = -1) -> LogitDifference:
    """The logit of token `a` minus that of token `b` at a position."""
    return LogitDifference(a, b, position)


def log_probability(token: Token, position: int = -1) -> LogProbability:
    """The natural logarithm of a token's probability at a position."""
    return LogProbability(token, position)


def loss() -> Loss:
    """The mean cross-entropy of the next token, in nats, over all tokens of a text but the first."""
    return Loss()


def _log_probabilities(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The log-probability of one token for each row of logits [N, V], [N] float64.

    Exponentials are taken in the precision of the logits, whose own rounding is larger, and added up in float64: over a
    large vocabulary that takes a fraction of the time of `log_softmax`.
    """
    largest = logits.max(-1)  # [N]
    shifted = logits - largest[:, np.newaxis]  # [N, V]
    total = np.exp(shifted, out=shifted).sum(-1, dtype=np.float64)  # in place: another array costs half as much as exp
    own: np.ndarray = logits[np.arange(len(ids)), ids].astype(np.float64) - largest - np.log(total)
    return own


def checked_value(returned: object, rows: int, what: str) -> np.ndarray:
    """The value that a metric returned, as [B] float64.

    Raises:
        InputError: it is not one finite number for each row.
    """
    value = _real(returned, what).astype(np.float64)
    if value.shape == () and rows == 1:
        value = value[np.newaxis]  # [1]
    if value.shape != (rows,):
        raise InputError(f"{what} must return one number for each row, shape [{rows}], not {list(value.shape)}.")
    return _finite(value, what)


def checked_gradient(returned: object, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The gradient that a metric returned, as an array of the logits' shape.

    Raises:
        InputError: it has another shape than the logits, or holds anything but finite real numbers.
    """
    gradient = _real(returned, what)
    if gradient.shape != shape:
        raise InputError(f"{what} must return an array of the logits' shape {list(shape)}, not {list(gradient.shape)}.")
    return _finite(gradient, what)


def _real(returned: object, what: str) -> np.ndarray:
    try:
        array = np.asarray(returned)
    except ValueError as error:
        raise InputError(f"{what} must return an array of numbers, not {type(returned).__name__}.") from error
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"{what} must return real numbers, not {array.dtype}.")
    return array


def _finite(array: np.ndarray, what: str) -> np.ndarray:
    # Checked as float32, in which the model computes.
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(array.astype(np.float32))
    if bad.any():
        first = [int(index) for index in np.argwhere(bad)[0]]
        raise InputError(
            f"{what} returned {int(bad.sum())} numbers that are NaN, infinite or beyond float32; the first is at "
            f"index {first}."
        )
    return array


def _read_only(logits: np.ndarray) -> np.ndarray:
    view = logits.view()
    view.flags.writeable = False
    return view


def _where(position: int, mask: np.ndarray, token: Token) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and id of each row's entry in the logits, [B] each."""
    rows = np.arange(len(mask))
    return rows, _columns(position, mask), np.broadcast_to(np.asarray(token), rows.shape)


def _columns(position: int, mask: np.ndarray) -> np.ndarray:
    """The column of each row's token at a position, padding not counted, [B]."""
    if not is_integer(position):
        raise InputError(f"position must be a whole number, not {position!r}.")
    columns = []
    for row, kept in enumerate(mask):
        real = np.flatnonzero(kept)
        if not -len(real) <= position < len(real):
            raise InputError(
                f"Position {position} is out of range: row {row} has {len(real)} tokens, padding not counted, so "
                f"positions go from {-len(real)} to {len(real) - 1}."
            )
        columns.append(real[position])
    return np.array(columns)


def _steps(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each row, the columns from which a token is predicted, and those of the tokens predicted."""
    steps = []
    for row, kept in enumerate(mask):
        real = np.flatnonzero(kept)
        if len(real) < 2:
            raise InputError(
                f"The loss needs a text of at least 2 tokens, of which the first predicts the second; row {row} has "
                f"{len(real)}."
            )
        steps.append((real[:-1], real[1:]))
    return steps
