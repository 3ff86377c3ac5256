"""What logits say: probabilities, as logarithms, and which are the largest."""

from __future__ import annotations

import numpy as np

__all__ = ["log_softmax", "top_ids"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The natural logarithm of softmax over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)  # against overflow
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def top_ids(logits: np.ndarray, count: int) -> np.ndarray:
    """The places of the largest of the last axis, [..., V], largest first: [..., K]; of equal ones the first."""
    size = logits.shape[-1]
    count = min(count, size)
    rows = logits.reshape(-1, size)
    found = np.empty((len(rows), count), np.int64)
    for row, best in zip(rows, found, strict=True):
        # Sorting a whole vocabulary takes ten times as long as telling the largest from the rest.
        least = np.partition(row, size - count)[size - count] if count else np.inf
        possible = np.flatnonzero(row >= least)
        best[:] = possible[np.argsort(-row[possible], kind="stable")[:count]]
    return found.reshape(*logits.shape[:-1], count)
