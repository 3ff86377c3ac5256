"""Many rows of token ids through a model, a few in each pass.

Logarithms are of float32 logits, taken in float64.
"""

from __future__ import annotations

__all__ = ["Floats", "Ints", "NextTokens", "batched", "next_tokens", "padded"]

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxlens.runtime._running.logits import log_softmax
from onnxlens.runtime._running.runner import Runner

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
NextTokens = Callable[[Sequence[Sequence[int]]], Floats]  # rows of token ids -> log-probabilities [rows, V]

T = TypeVar("T")


def batched(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Values in groups of at most a size."""
    return (values[start : start + size] for start in range(0, len(values), size))


def padded(rows: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Rows padded on the left, and the mask of what is real, both [rows, longest]."""
    longest = max(map(len, rows))
    ids = np.array([[0] * (longest - len(row)) + list(row) for row in rows])
    mask = np.array([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def next_tokens(runner: Runner, *, rows: int = 32) -> NextTokens:
    """A model as a function from rows of token ids, of any lengths, to log-probabilities of the next token."""

    def predict(texts: Sequence[Sequence[int]]) -> Floats:
        found = np.empty((len(texts), runner.config.d_vocab))
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for batch in batched(order, rows):
            ids, mask = padded([texts[index] for index in batch])
            found[list(batch)] = log_softmax(runner.run(ids, mask, logits="last").logits[:, 0])
        return found

    return predict
