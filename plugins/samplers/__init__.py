"""How the next token is chosen: samplers, each from logits to logits.

A sampler takes logits [B, V] and a `Context`, and returns logits [B, V]: tokens that it rules out get -inf. What picks
the token in the end is a sampler too, one that leaves a single token in each row. A chain of samplers is a sampler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxlens.runtime.errors import InputError

__all__ = [
    "Chain",
    "Context",
    "Greedy",
    "Multinomial",
    "Sampler",
    "Temperature",
    "TopK",
    "TopP",
    "softmax",
    "standard",
]


_COLDEST = 1e-6


@dataclass(frozen=True)
class Context:
    """What a sampler may know besides the logits.

    Attributes:
        ids: the text so far, [B, T] int64.
        step: how many tokens were generated before this one.
        rng: the source of randomness; the only one, so that a seed decides everything.
    """

    ids: np.ndarray
    step: int
    rng: np.random.Generator


class Sampler(Protocol):
    """Anything that maps logits [B, V] to logits [B, V]."""

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the changed logits, leaving those given as they are."""
        ...


@dataclass(frozen=True)
class Chain:
    """Applies samplers one after the other."""

    samplers: tuple[Sampler, ...]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns what the last sampler returns."""
        for sampler in self.samplers:
            logits = sampler(logits, context)
        return logits


@dataclass(frozen=True)
class Temperature:
    """Divides the logits by a temperature (Ackley et al. 1985): below 1 sharpens the distribution, above flattens it.

    Raises:
        InputError: the temperature is not a positive number.
    """

    temperature: float

    def __post_init__(self) -> None:
        if not _is_number(self.temperature) or not 0 < self.temperature < math.inf:
            raise InputError(f"temperature must be a positive number, or 0 for greedy, not {self.temperature!r}.")
        if self.temperature < _COLDEST:  # logits divided by it would overflow
            raise InputError(f"temperature must be at least {_COLDEST}, or 0 for greedy, not {self.temperature!r}.")

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits divided, [B, V] float64."""
        return logits / np.float64(self.temperature)


@dataclass(frozen=True)
class TopK:
    """Keeps the k most probable tokens (Fan et al. 2018), and any that tie with the last of them.

    Raises:
        InputError: k is not a whole number of at least 1.
    """

    k: int

    def __post_init__(self) -> None:
        if type(self.k) is not int or self.k < 1:
            raise InputError(f"top_k must be a whole number of at least 1, not {self.k!r}; leave it out to keep all.")

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is not among the k best."""
        vocabulary = logits.shape[-1]
        if self.k >= vocabulary:
            return logits
        least = np.partition(logits, vocabulary - self.k, axis=-1)[:, vocabulary - self.k, np.newaxis]  # [B, 1]
        return np.where(logits < least, -np.inf, logits)


@dataclass(frozen=True)
class TopP:
    """Nucleus sampling (Holtzman et al. 2020): keeps the fewest tokens whose probabilities sum to at least p.

    Raises:
        InputError: p is not above 0 and at most 1.
    """

    p: float

    def __post_init__(self) -> None:
        if not _is_number(self.p) or not 0 < self.p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1, not {self.p!r}.")

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf outside the nucleus."""
        if self.p == 1:
            return logits
        order = np.argsort(-logits, axis=-1, kind="stable")  # [B, V], most probable first
        sorted_probabilities = np.take_along_axis(softmax(logits), order, axis=-1)
        before = np.cumsum(sorted_probabilities, axis=-1) - sorted_probabilities
        # A token stays if those before it do not reach p yet; so the first always stays.
        removed = np.empty(logits.shape, dtype=bool)
        np.put_along_axis(removed, order, before >= self.p, axis=-1)
        return np.where(removed, -np.inf, logits)


@dataclass(frozen=True)
class Greedy:
    """Leaves the most probable token of each row, the first of several equals."""

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf but for the chosen token."""
        return _only(logits, np.argmax(logits, axis=-1))


@dataclass(frozen=True)
class Multinomial:
    """Draws one token of each row from the distribution, by inverting its cumulative sum over the full vocabulary."""

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf but for the chosen token."""
        cumulative = np.cumsum(softmax(logits), axis=-1)  # [B, V]
        draws = context.rng.random(len(logits)) * cumulative[:, -1]
        # The first token whose cumulative probability exceeds the draw; it has a probability above 0.
        return _only(logits, np.argmax(cumulative > draws[:, np.newaxis], axis=-1))


def standard(*, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Sampler:
    """The usual chain: temperature, then top-k, then top-p, then a draw; greedy where the temperature is 0.

    Raises:
        InputError: an option has no usable value.
    """
    limits: list[Sampler] = []
    if top_k is not None:
        limits.append(TopK(top_k))
    if top_p is not None:
        limits.append(TopP(top_p))
    if _is_number(temperature) and temperature == 0:
        return Greedy()
    return Chain((Temperature(temperature), *limits, Multinomial()))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64.

    Raises:
        InputError: a row has no finite logit, or holds NaN.
    """
    wide = logits.astype(np.float64)
    largest = wide.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():
        raise InputError("The logits hold NaN, or no token is left to choose from.")
    exponentials = np.exp(wide - largest)
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def _only(logits: np.ndarray, chosen: Sequence[int] | np.ndarray) -> np.ndarray:
    left = np.full_like(logits, -np.inf)
    rows = np.arange(len(logits))
    left[rows, chosen] = logits[rows, chosen]
    return left


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
