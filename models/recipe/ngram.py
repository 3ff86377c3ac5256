"""The 5-gram model that the small GPT-2 has to beat: interpolated, modified Kneser-Ney, on the same tokens.

No library at hand does this: KenLM's wheel reads models and cannot estimate them (`lmplz` is a program of its own, in
C++ with Boost); NLTK has neither the three discounts nor arrays, only dictionaries of Python objects, ten million
n-grams an order here. With sorted arrays it is a minute's work in NumPy.
"""

from __future__ import annotations

__all__ = ["KneserNey"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FALLBACK = (0.5, 1.0, 1.5)  # KenLM's --discount_fallback, for counts of which there are too few


@dataclass(frozen=True)
class _Order:
    """The n-grams of one order, and what they give to the tokens after their first n - 1."""

    keys: Ints  # sorted; an n-gram is the number of its first n - 1 tokens times the vocabulary, plus its last token
    discounted: Floats  # count less discount, of each n-gram
    total: Floats  # counts of all n-grams that begin with the same n - 1 tokens, by the number of those
    kept_back: Floats  # sum of their discounts, which the order below spreads


class KneserNey:
    """Interpolated modified Kneser-Ney smoothing, of Chen and Goodman, "An Empirical Study of Smoothing Techniques".

    An n-gram counts as often as it occurs if it is of the highest order or begins a document, and else as many
    different tokens as stand before it; three discounts an order, estimated from the counts of counts (their equation
    26; KenLM's fallback where one cannot be); what is discounted goes to the order below, and below single tokens to
    all tokens alike. These are KenLM's choices as well. A document begins after the end-of-text token, and no n-gram
    reaches across that.

    Args:
        ids: token ids of documents, each with the end-of-text token last, [N].
        vocabulary: how many tokens there are; ids are below.
        end: the end-of-text token.
        order: the highest order.

    Attributes:
        discounts: for each order, from 1, what is taken off a count of one, of two, and of more.

    Raises:
        ValueError: there are no tokens, or the last is not the end of a text.
    """

    def __init__(self, ids: NDArray[np.integer], vocabulary: int, end: int, order: int = 5) -> None:
        if len(ids) == 0 or ids[-1] != end:
            raise ValueError("The training tokens must be whole documents, each with the end-of-text token last.")
        self._vocabulary, self._end = vocabulary, end
        stream, age = self._stream(ids)
        # Each order: its n-grams, and the number of the n-gram that ends at each position.
        numbers = [stream]
        keys, first, counts = [np.arange(vocabulary)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for size in range(2, order + 1):
            there = np.flatnonzero(age >= size - 1)
            found, where, number, count = np.unique(
                numbers[-1][there - 1] * vocabulary + stream[there],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            numbers.append(np.full(len(stream), -1))
            numbers[-1][there] = number
            keys.append(found)
            first.append(there[where])
            counts.append(count)
        self._orders: list[_Order] = []
        self.discounts: list[tuple[float, ...]] = []
        for index in range(order):
            if index + 1 < order:  # in how many different (n+1)-grams it is the end
                adjusted = np.bincount(numbers[index][first[index + 1]], minlength=len(keys[index]))
                if index > 0:
                    begins = age[first[index]] == index  # its first token is the end of the text before
                    adjusted = np.where(begins, counts[index], adjusted)
            else:
                adjusted = counts[index] if index else np.bincount(stream[1:], minlength=vocabulary)
            discounts = np.array([0.0, *_discounts(adjusted)])
            discount = discounts[np.minimum(adjusted, 3)]
            history = keys[index] // vocabulary  # single tokens have one: none
            histories = len(keys[index - 1]) if index else 1
            total = np.bincount(history, adjusted, histories).astype(np.float64)
            kept_back = np.bincount(history, discount, histories).astype(np.float64)
            self._orders.append(_Order(keys[index], adjusted - discount, total, kept_back))
            self.discounts.append(tuple(discounts[1:].tolist()))

    def probabilities(self, ids: NDArray[np.integer]) -> Floats:
        """The probability of each token given up to four before it in its document.

        Args:
            ids: token ids of documents, each but perhaps the last with the end-of-text token last, [N].
        """
        stream, age = self._stream(ids)
        number = stream  # of the (n-1)-gram that ends at each position, -1 where training did not have it
        likely = np.full(len(ids), 1 / self._vocabulary)
        for index, order in enumerate(self._orders):
            history = number[:-1] if index else np.zeros(len(ids), np.int64)
            usable = (history >= 0) & (age[1:] >= index)
            key = history * self._vocabulary * (index > 0) + stream[1:]
            place = np.minimum(np.searchsorted(order.keys, key), len(order.keys) - 1)
            found = usable & (order.keys[place] == key)
            usable &= order.total[history] > 0
            told = np.where(found, order.discounted[place], 0) + order.kept_back[history] * likely
            likely = np.where(usable, told / np.where(usable, order.total[history], 1), likely)
            if index:
                number = np.concatenate([[-1], np.where(found, place, -1)])
        return likely

    def _stream(self, ids: NDArray[np.integer]) -> tuple[Ints, Ints]:
        """The ids after an end-of-text token, [1 + N], and how far before each the latest such token stands."""
        stream = np.concatenate([[self._end], ids]).astype(np.int64)
        positions = np.arange(len(stream))
        ends = np.where(stream == self._end, positions, 0)
        latest = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]])
        return stream, positions - latest


def _discounts(counts: Ints) -> tuple[float, ...]:
    one, two, three, four = (int((counts == number).sum()) for number in (1, 2, 3, 4))
    if not (one and two and three and four):
        return FALLBACK
    share = one / (one + 2 * two)
    found = (1 - 2 * share * two / one, 2 - 3 * share * three / two, 3 - 4 * share * four / three)
    return found if all(0 < discount <= size for size, discount in enumerate(found, 1)) else FALLBACK
