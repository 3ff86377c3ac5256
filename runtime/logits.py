"""What logits say: probabilities, as logarithms."""

from __future__ import annotations

import numpy as np

__all__ = ["log_softmax"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The natural logarithm of softmax over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)  # against overflow
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
