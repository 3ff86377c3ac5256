"""Samplers that rule out tokens, mostly improbable ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins._options import Option
from onnxlens.plugins._sampling.candidates import Candidates, leading
from onnxlens.plugins._sampling.sampler import Context, Sampler, exponentials_of, softmax

__all__ = ["XTC", "Epsilon", "Eta", "MinP", "TailFree", "TopH", "TopK", "TopNSigma", "TopP", "Typical", "entropy"]


@dataclass(frozen=True)
class TopK(Sampler):
    """Keeps the k most probable tokens, and any that tie with the last of them.

    Fan, Lewis and Dauphin 2018, Hierarchical Neural Story Generation, arXiv:1805.04833.
    """

    k: Annotated[int, Option("How many tokens to keep.", ge=1)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is not among the k best."""
        return Candidates.best(logits, self.k).scatter()


@dataclass(frozen=True)
class TopP(Sampler):
    """Keeps the fewest most probable tokens whose probabilities sum to at least p; of equals, those of lower id.

    Nucleus sampling; Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, arXiv:1904.09751.
    """

    p: Annotated[float, Option("The least total probability of the kept tokens.", gt=0, le=1)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf outside the nucleus."""
        if self.p == 1:
            return logits
        return Candidates.of(logits).scatter_mass(self.p)


@dataclass(frozen=True)
class MinP(Sampler):
    """Keeps the tokens that are at least p times as probable as the most probable one.

    In logits: l >= max(l) + ln p. Nguyen et al. 2024, Turning Up the Heat: Min-p Sampling for Creative and Coherent
    LLM Outputs, arXiv:2407.01082.
    """

    p: Annotated[float, Option("The least probability, as a share of the largest one.", ge=0, le=1)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is too improbable."""
        if self.p == 0:
            return logits
        least = logits.max(axis=-1, keepdims=True).astype(np.float64) + np.log(self.p)  # [B, 1]
        return np.where(logits < least, -np.inf, logits)


@dataclass(frozen=True)
class Typical(Sampler):
    """Keeps the tokens whose surprisal is closest to the entropy, until their total probability is p.

    In the order of |-ln p_i - H|, until p is reached, and any that tie with the last of them. Locally typical sampling;
    Meister et al. 2022, arXiv:2202.00666.
    """

    p: Annotated[float, Option("The least total probability of the kept tokens.", gt=0, le=1)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is not typical enough."""
        if self.p == 1:
            return logits
        probabilities = softmax(logits)  # [B, V]
        surprises = _surprises(probabilities)
        expected = (probabilities * surprises).sum(axis=-1, keepdims=True)  # [B, 1], the entropy
        atypical = np.where(probabilities > 0, np.abs(surprises - expected), np.inf)
        index, counts = leading(-atypical, probabilities, self.p)
        last = np.take_along_axis(index, counts[:, np.newaxis] - 1, axis=-1)  # [B, 1]
        return np.where(atypical > np.take_along_axis(atypical, last, axis=-1), -np.inf, logits)


@dataclass(frozen=True)
class Epsilon(Sampler):
    """Keeps the tokens of at least a given probability; if there is none, the most probable one.

    Hewitt, Manning and Liang 2022, Truncation Sampling as Language Model Desmoothing, arXiv:2210.15191.
    """

    epsilon: Annotated[float, Option("The least probability.", gt=0, lt=1)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is too improbable."""
        return _at_least(self.epsilon, softmax(logits), logits)


@dataclass(frozen=True)
class Eta(Sampler):
    """Keeps the tokens of at least probability min(e, sqrt(e) exp(-H)), where H is the entropy.

    If there is none, the most probable token is kept. Hewitt, Manning and Liang 2022, Truncation Sampling as Language
    Model Desmoothing, arXiv:2210.15191.
    """

    epsilon: Annotated[float, Option("e, the least probability if the entropy is small.", gt=0, lt=1)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is too improbable."""
        probabilities = softmax(logits)
        eta = np.minimum(self.epsilon, np.sqrt(self.epsilon) * np.exp(-entropy(probabilities)))
        return _at_least(eta[:, np.newaxis], probabilities, logits)


@dataclass(frozen=True)
class TailFree(Sampler):
    """Cuts off the tail of the sorted probabilities by their second differences.

    With the probabilities in descending order, w_i = |(p_i - p_{i+1}) - (p_{i+1} - p_{i+2})|, divided by their sum;
    kept are the i most probable tokens, i being the first place (counted from 0, at least 1) at which w_0 + ... + w_i
    exceeds z; all, if it never does. Trenton Bricken, Tail Free Sampling,
    https://trentbrick.github.io/Tail-Free-Sampling; as llama.cpp had it.
    """

    z: Annotated[float, Option("The share of the second differences that is kept.", gt=0, le=1)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf in the tail."""
        candidates = Candidates.of(logits)
        width = candidates.logits.shape[-1]
        if self.z == 1 or width <= 2:
            return logits
        # The sum is over all tokens, so all are sorted; but only their values, which is fast.
        ordered = candidates.ordered(width)
        probabilities = exponentials_of(ordered)
        probabilities /= np.cumsum(probabilities, axis=-1)[:, -1:]
        there = (ordered != -np.inf).sum(axis=-1, keepdims=True)  # [B, 1]
        places = np.arange(width - 2)
        bends = np.where(places < there - 2, np.abs(np.diff(probabilities, n=2, axis=-1)), 0)  # [B, K - 2]
        total = np.cumsum(bends, axis=-1)[:, -1:]
        even = (places < there - 2) / np.maximum(there - 2, 1)
        # A straight line has no second differences.
        weights = np.where(total > 1e-6, bends / np.where(total > 0, total, 1), even)
        beyond = (np.cumsum(weights, axis=-1) > self.z) & (places >= 1) & (places < there - 2)
        counts = np.where(beyond.any(axis=-1), beyond.argmax(axis=-1), there[:, 0])
        return candidates.scatter_best(counts, ordered)


@dataclass(frozen=True)
class TopNSigma(Sampler):
    """Keeps the tokens whose logit is within n standard deviations of the largest.

    l >= max(l) - n sigma(l), over the tokens that are not ruled out. A temperature, before or after, does not change
    what is kept. Tang et al. 2024, Top-n sigma: Not All Logits Are You Need, arXiv:2411.07641.
    """

    n: Annotated[float, Option("How many standard deviations.", gt=0, le=1e6)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is too far below the largest."""
        there = logits != -np.inf
        wide = np.where(there, logits, 0).astype(np.float64)
        count = there.sum(axis=-1, keepdims=True)  # [B, 1]
        mean = wide.sum(axis=-1, keepdims=True) / count
        deviation = np.sqrt((np.where(there, wide - mean, 0) ** 2).sum(axis=-1, keepdims=True) / count)
        least = logits.max(axis=-1, keepdims=True) - self.n * deviation
        return np.where(logits < least, -np.inf, logits)


@dataclass(frozen=True)
class TopH(Sampler):
    """Keeps the most probable tokens that make up a share h of the entropy, but at least the first.

    Of the `tokens` most probable ones, with probabilities p that sum to 1 and in descending order, those are kept up to
    which the sum of -p ln p is at most h times the whole. Baghaei Potraghloo et al. 2025, Top-H Decoding: Adapting the
    Creativity and Coherence with Bounded Entropy in Text Generation, arXiv:2509.02510; computed as in transformers,
    which also considers 100 tokens only.
    """

    h: Annotated[float, Option("The share of the entropy.", gt=0, le=1)]
    tokens: Annotated[int, Option("The number of most probable tokens that are considered.", ge=1)] = 100

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is beyond the share."""
        candidates = Candidates.best(logits, self.tokens)
        order = np.argsort(-candidates.logits, axis=-1, kind="stable")[:, : self.tokens]  # [B, N]
        exponentials = np.take_along_axis(candidates.probabilities, order, axis=-1)
        probabilities = exponentials / np.cumsum(exponentials, axis=-1)[:, -1:]
        gathered = np.cumsum(probabilities * _surprises(probabilities), axis=-1)
        # A tiny excess does not count: sums of equal probabilities may miss the share by rounding.
        keep = (gathered <= self.h * gathered[:, -1:] * (1 + 1e-12)) & (probabilities > 0)
        keep[:, 0] = True
        return candidates.scatter_at(order, keep)


@dataclass(frozen=True)
class XTC(Sampler):
    """Exclude top choices: at random, rules out all tokens above a threshold except the least probable one.

    Whether to do so is drawn for each row at each step. If fewer than two tokens reach the threshold, nothing happens.
    p-e-w 2024, https://github.com/oobabooga/text-generation-webui/pull/6335; as in llama.cpp.
    """

    probability: Annotated[float, Option("The probability of acting at a step.", ge=0, le=1)]
    threshold: Annotated[float, Option("The least probability of a top choice.", gt=0, le=1)] = 0.1

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf for all top choices except the last, where it acts."""
        acts = context.rng.random(len(logits)) < self.probability  # always drawn, so that later draws stay the same
        if not acts.any():
            return logits
        candidates = Candidates.of(logits)
        top = (candidates.probabilities >= self.threshold) & acts[:, np.newaxis]
        choices = np.where(top, candidates.logits, np.inf)  # which differ even where probabilities round to the same
        width = choices.shape[-1]
        least = width - 1 - np.argmin(choices[:, ::-1], axis=-1)  # of equals, that of the highest id, which sorts last
        top[np.arange(len(top)), least] = False
        return candidates.scatter(~top)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """The entropy of each row, [B], in nats."""
    total: np.ndarray = (probabilities * _surprises(probabilities)).sum(axis=-1)
    return total


def _surprises(probabilities: np.ndarray) -> np.ndarray:
    """-ln p, and 0 where the probability is 0, so that it adds nothing to an entropy."""
    logarithms: np.ndarray = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return -logarithms


def _at_least(least: float | np.ndarray, probabilities: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The logits of tokens of at least a probability, or of the most probable ones if there are none."""
    removed = (probabilities < least) & (logits < logits.max(axis=-1, keepdims=True))
    return np.where(removed, -np.inf, logits)
