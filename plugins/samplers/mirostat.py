"""Samplers that control the surprisal of a text by feedback from the chosen tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from onnxlens.plugins._options import Option
from onnxlens.plugins._sampling.candidates import Candidates
from onnxlens.plugins._sampling.sampler import Context, Sampler

__all__ = ["Mirostat", "MirostatV2"]

_Tau = Annotated[float, Option("The target surprisal, in bits.", gt=0, le=1e6)]
_Eta = Annotated[float, Option("The learning rate of the correction.", gt=0, le=1e6)]


@dataclass
class _Feedback(Sampler):
    """Keeps mu, the largest surprisal allowed, for each row; each chosen token corrects it."""

    tau: _Tau = 5.0
    eta: _Eta = 0.1
    _mu: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)  # [B]
    _left: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)  # [B, V]

    def reset(self) -> None:
        """Resets mu to twice the target surprisal."""
        self._mu = self._left = None

    def accept(self, ids: np.ndarray, context: Context) -> None:
        """Corrects mu by the difference between the surprisal of the chosen tokens and the target."""
        if self._left is None or self._mu is None:
            return
        left = Candidates.of(self._left)
        probabilities = np.where(left.ids == ids[:, np.newaxis], left.probabilities, 0).sum(axis=-1)  # [B]
        known = probabilities > 0  # otherwise another sampler chose it
        surprises = -np.log2(np.where(known, probabilities, 1))
        self._mu = self._mu - np.where(known, self.eta * (surprises - self.tau), 0)
        self._left = None

    def _allowed(self, rows: int) -> np.ndarray:
        """The largest surprisal allowed in each row, [B]; the initial value if the batch size changed."""
        if self._mu is None or len(self._mu) != rows:
            self._mu = np.full(rows, 2 * self.tau)
        return self._mu


@dataclass
class Mirostat(_Feedback):
    """Keeps as many of the most probable tokens as give a text of constant surprisal, assuming Zipf's law.

    From the m most probable tokens, s = sum(t_i b_i) / sum(t_i^2) with t_i = ln((i + 1) / i), b_i = ln(p_i / p_{i+1});
    e = s - 1; kept are k = (e 2^mu / (1 - V^-e))^(1 / s) tokens. mu starts at 2 tau, and after each token becomes mu -
    eta (surprisal - tau), with the surprisal in bits among the tokens kept. Basu et al. 2021, Mirostat,
    arXiv:2007.14966; as in llama.cpp (the authors' code takes the surprisal among all tokens).
    """

    m: Annotated[int, Option("The number of tokens from which Zipf's law is estimated.", ge=2)] = 100

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf except for the k most probable tokens."""
        mu = self._allowed(len(logits))
        candidates = Candidates.of(logits)
        first = candidates.ordered(self.m).astype(np.float64)  # [B, m]
        there = first[:, 1:] != -np.inf
        t = np.log1p(1 / np.arange(1, first.shape[-1]))
        b = np.where(there, first[:, :-1] - np.where(there, first[:, 1:], 0), 0)  # ln p_i - ln p_i+1
        squares = np.where(there, t**2, 0).sum(axis=-1)
        s = (t * b).sum(axis=-1) / np.where(squares > 0, squares, 1)
        counts = [_kept(*each, logits.shape[-1]) for each in zip(s.tolist(), mu.tolist(), strict=True)]
        kept = np.minimum(counts, (candidates.logits != -np.inf).sum(axis=-1))
        self._left = candidates.scatter_best(kept, candidates.ordered(int(kept.max())))
        return self._left


@dataclass
class MirostatV2(_Feedback):
    """Keeps the tokens whose surprisal is at most mu, which feedback adjusts to a constant surprisal.

    That is, -log2 p <= mu; or the most probable token where there is no such token. mu starts at 2 tau, and after each
    token becomes mu - eta (surprisal - tau), with the surprisal in bits among the tokens kept. The second version of
    Basu et al. 2021, Mirostat, arXiv:2007.14966; as in llama.cpp (the authors' code takes the surprisal among all
    tokens).
    """

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is too surprising."""
        mu = self._allowed(len(logits))
        candidates = Candidates.of(logits)
        probabilities = candidates.probabilities
        keep = probabilities >= np.exp2(np.minimum(-mu, 1))[:, np.newaxis]
        keep[np.arange(len(keep)), np.argmax(candidates.logits, axis=-1)] = True
        self._left = candidates.scatter(keep)
        return self._left


def _kept(s: float, mu: float, vocabulary: int) -> int:
    """The number of tokens that Mirostat keeps, from 1 to all; in logarithms, since s may be near 0."""
    if vocabulary == 1:
        return 1
    e, size = s - 1, math.log(vocabulary)
    # e / (1 - V^-e), whose limit for e = 0 is 1 / ln V; where V^-e is too large for a number, it is -e V^e.
    if abs(e * size) < 1e-12:
        factor = -math.log(size)
    elif -e * size > 700:
        factor = math.log(-e) + e * size
    else:
        factor = math.log(e / -math.expm1(-e * size))
    exponent = mu * math.log(2) + factor
    if exponent <= 0:
        return 1
    return vocabulary if exponent >= s * size else max(int(math.exp(exponent / s)), 1)
