"""Samplers that choose the token: they leave one in each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxlens.plugins._sampling.candidates import Candidates
from onnxlens.plugins._sampling.sampler import Context, Sampler, only

__all__ = ["Greedy", "Gumbel", "Multinomial"]


@dataclass(frozen=True)
class Greedy(Sampler):
    """Takes the most probable token, the first of several equals."""

    chooses: ClassVar[bool] = True

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf except for the chosen token."""
        return only(logits, np.argmax(logits, axis=-1))


@dataclass(frozen=True)
class Multinomial(Sampler):
    """Draws a token from the distribution: the first at which the cumulative probability exceeds a random number.

    Probabilities are summed in the order of ids over the full vocabulary, and the number is uniform in [0, 1), one for
    each row.
    """

    chooses: ClassVar[bool] = True
    inverts: ClassVar[bool] = True

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf except for the chosen token."""
        candidates = Candidates.of(logits)
        sums = np.cumsum(candidates.probabilities, axis=-1)  # [B, K]
        draws = context.rng.random(len(logits)) * sums[:, -1]
        # The first token whose cumulative probability exceeds the draw; it has a probability above 0.
        places = np.argmax(sums > draws[:, np.newaxis], axis=-1)
        return only(logits, candidates.ids[np.arange(len(logits)), places])


@dataclass(frozen=True)
class Gumbel(Sampler):
    """Draws a token by adding Gumbel noise to all logits and taking the largest: argmax(l - ln(-ln u)).

    This draws from the same distribution as `multinomial`; since every token of the vocabulary has its own noise,
    ruling out others does not change which of two is preferred. Gumbel 1954, Statistical Theory of Extreme Values and
    Some Practical Applications; Maddison, Tarlow and Minka 2014, A* Sampling, arXiv:1411.0030.
    """

    chooses: ClassVar[bool] = True

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf except for the chosen token."""
        return only(logits, np.argmax(logits + context.rng.gumbel(size=logits.shape), axis=-1))
