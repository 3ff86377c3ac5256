"""The tokens that may still be chosen, without the tens of thousands that were ruled out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxlens.plugins._sampling.sampler import exponentials_of

__all__ = ["Candidates", "leading"]

_BLOCK = 32  # logits of which the largest is compared first
_SPARSE = 4  # fewer candidates than a fourth of the vocabulary are packed
_FIRST = 256  # how many of the largest are sorted at first
_MORE = 16  # times as many, if they are too few
_NEARLY = 1 - 1e-12  # of a mass counts as the mass: sums of equal probabilities may miss it by rounding


@dataclass(frozen=True)
class Candidates:
    """Tokens that may still be chosen, in the order of their ids.

    If they are few, they are packed, so that samplers after a truncation are fast. Sums are sequential, so that neither
    packing nor the other rows of a batch change a bit.

    Attributes:
        ids: [B, K] int64; arbitrary where a row has fewer than K candidates.
        logits: [B, K], -inf where a row has fewer.
        vocabulary: how many tokens there are in all, V.
    """

    ids: np.ndarray
    logits: np.ndarray
    vocabulary: int

    @classmethod
    def of(cls, logits: np.ndarray) -> Candidates:
        """The tokens that are not ruled out in logits [B, V]."""
        return cls._where(logits, logits != -np.inf)

    @classmethod
    def best(cls, logits: np.ndarray, count: int) -> Candidates:
        """The `count` largest logits of each row, and any that tie with the last of them; found without sorting."""
        width = logits.shape[-1]
        if count >= width:
            return cls.of(logits)
        found, blocks = None, width // _BLOCK
        if 2 * count <= blocks:
            # `count` blocks have a maximum of at least the bound, so all `count` largest logits reach it, and few
            # others do.
            maxima = logits[:, : blocks * _BLOCK].reshape(-1, _BLOCK, blocks).max(axis=1)  # [B, blocks]
            found = cls._where(logits, logits >= _largest(maxima, count))
            logits = found.logits
            if logits.shape[-1] <= count:
                return found
        least = _largest(logits, count)
        if found is None:
            return cls._where(logits, logits >= least)
        return cls(found.ids, np.where(logits >= least, logits, -np.inf), width)

    @classmethod
    def _where(cls, logits: np.ndarray, chosen: np.ndarray) -> Candidates:
        rows, width = logits.shape
        flat = np.flatnonzero(chosen)
        counts = np.array([len(flat)]) if rows == 1 else np.count_nonzero(chosen, axis=-1)
        if _SPARSE * counts.max(initial=0) >= width:
            ids = np.broadcast_to(np.arange(width), logits.shape)
            return cls(ids, logits if len(flat) == chosen.size else np.where(chosen, logits, -np.inf), width)
        row = flat // width
        place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = rows, int(counts.max(initial=1))
        ids, packed = np.zeros(shape, np.int64), np.full(shape, -np.inf, logits.dtype)
        ids[row, place] = flat - row * width
        packed[row, place] = logits.reshape(-1)[flat]
        return cls(ids, packed, width)

    @property
    def probabilities(self) -> np.ndarray:
        """Their probabilities, [B, K] float64, 0 where a row has fewer.

        Raises:
            InputError: a row has no candidate, or holds NaN.
        """
        exponentials = exponentials_of(self.logits)
        probabilities: np.ndarray = exponentials / np.cumsum(exponentials, axis=-1)[:, -1:]
        return probabilities

    def scatter(self, keep: np.ndarray | bool = True) -> np.ndarray:
        """Logits over the whole vocabulary, [B, V], -inf except for the candidates to keep, [B, K]."""
        if self.logits.shape[-1] == self.vocabulary:
            return np.where(keep, self.logits, -np.inf)
        left = np.full((len(self.logits), self.vocabulary), -np.inf, self.logits.dtype)
        rows, places = np.nonzero((self.logits != -np.inf) & keep)
        left[rows, self.ids[rows, places]] = self.logits[rows, places]
        return left

    def scatter_at(self, index: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Logits over the vocabulary, [B, V], -inf except for those candidates at indexes [B, N] to keep, [B, N]."""
        mask = np.zeros(self.logits.shape, dtype=bool)
        rows, places = np.nonzero(keep)
        mask[rows, index[rows, places]] = True
        return self.scatter(mask)

    def scatter_mass(self, mass: float) -> np.ndarray:
        """Logits over the vocabulary, [B, V], -inf except for the fewest best candidates with a probability mass."""
        total = np.cumsum(exponentials_of(self.logits), axis=-1)[:, -1:]  # [B, 1]
        count, width = _FIRST, self.logits.shape[-1]
        while True:
            ordered = self.ordered(count)
            gathered = np.cumsum(exponentials_of(ordered) / total, axis=-1)
            if count >= width or (gathered[:, -1] >= mass * _NEARLY).all():
                break
            count *= _MORE
        # A token stays if those before it do not reach the mass; so the first always stays.
        before = (gathered[:, :-1] < mass * _NEARLY) & (ordered[:, 1:] != -np.inf)
        return self.scatter_best(1 + before.sum(axis=-1), ordered)

    def scatter_best(self, counts: np.ndarray, ordered: np.ndarray) -> np.ndarray:
        """Logits over the whole vocabulary, [B, V], -inf except for the best ones; of equals, those of lower id.

        Args:
            counts: how many to keep in each row, [B], at least 1 and at most as many as there are.
            ordered: the largest logits of each row, at least as many, the largest first.
        """
        counts = counts[:, np.newaxis]  # [B, 1]
        least = np.take_along_axis(ordered, counts - 1, axis=-1)  # [B, 1]
        keep, equal = self.logits >= least, self.logits == least
        surplus = keep.sum(axis=-1, keepdims=True) - counts
        if surplus.any():
            keep &= ~equal | (np.cumsum(equal, axis=-1) <= equal.sum(axis=-1, keepdims=True) - surplus)
        return self.scatter(keep)

    def ordered(self, count: int) -> np.ndarray:
        """The largest logits of each row, the largest first, [B, count] or fewer."""
        logits = self.logits
        if count < logits.shape[-1]:
            place = logits.shape[-1] - count
            logits = np.partition(logits, place, axis=-1)[:, place:]
        return np.sort(logits, axis=-1)[:, ::-1]


def leading(scores: np.ndarray, probabilities: np.ndarray, mass: float) -> tuple[np.ndarray, np.ndarray]:
    """Sorts tokens by score, best first and equals by id, as far as needed to reach a probability mass.

    Args:
        scores: [B, K], -inf for tokens that are not candidates.
        probabilities: [B, K].
        mass: the probability to reach in each row.

    Returns:
        Indexes [B, N] of the best, in that order; and how many of them reach the mass, [B]; all of them if their sum is
        smaller.
    """
    count = _FIRST
    while True:
        best = Candidates.best(scores, count)
        order = np.argsort(-best.logits, axis=-1, kind="stable")  # [B, N]
        index = np.take_along_axis(best.ids, order, axis=-1)
        there = np.take_along_axis(best.logits, order, axis=-1) != -np.inf
        taken = np.where(there, np.take_along_axis(probabilities, index, axis=-1), 0)
        gathered = np.cumsum(taken, axis=-1)
        if count >= scores.shape[-1] or (gathered[:, -1] >= mass * _NEARLY).all():
            break
        count *= _MORE
    # Those before the mass is reached, and the one that reaches it.
    counts = np.minimum((gathered < mass * _NEARLY).sum(axis=-1) + 1, there.sum(axis=-1))
    return index, counts


def _largest(logits: np.ndarray, count: int) -> np.ndarray:
    """The `count`-th largest logit of each row, [B, 1], or the least finite number where that is -inf."""
    place = logits.shape[-1] - count
    found = np.partition(logits, place, axis=-1)[:, place, np.newaxis]
    return np.maximum(found, np.finfo(logits.dtype).min)
