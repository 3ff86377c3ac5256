"""Log-probabilities, losses and the largest entries of logits."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["lm_accuracy", "lm_cross_entropy_loss", "log_softmax", "top_ids"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The natural logarithm of softmax over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)  # against overflow
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def lm_cross_entropy_loss(
    logits: np.ndarray, tokens: np.ndarray, attention_mask: np.ndarray | None = None, per_token: bool = False
) -> Any:
    """The cross-entropy of each next token, in nats.

    Args:
        logits: [B, P, V].
        tokens: [B, P], the tokens that were run.
        attention_mask: [B, P], 0 where a token is padding; None for no padding.
        per_token: return the loss of each token but the first.

    Returns:
        The mean over all tokens that follow another one, float64; or each one's, [B, P - 1], 0 where it or the token
        before it is padding. The mean of no token is NaN.
    """
    losses = np.empty(tokens[:, 1:].shape)
    for row, (values, following) in enumerate(
        zip(logits, tokens[:, 1:], strict=True)
    ):  # float64 for one text at a time
        losses[row] = -np.take_along_axis(log_softmax(values[:-1]), following[:, np.newaxis], -1)[:, 0]
    counted = np.ones(losses.shape, bool)
    if attention_mask is not None:
        counted = (attention_mask[:, 1:] == 1) & (attention_mask[:, :-1] == 1)
    if per_token:
        return np.where(counted, losses, 0)
    return losses[counted].mean() if counted.any() else np.float64("nan")


def lm_accuracy(logits: np.ndarray, tokens: np.ndarray, per_token: bool = False) -> Any:
    """How often the next token is the most probable one.

    Args:
        logits: [B, P, V].
        tokens: [B, P], the tokens that were run.
        per_token: return for each token but the first whether it is.

    Returns:
        The share of tokens, or truth values [B, P - 1].
    """
    correct = logits[:, :-1].argmax(-1) == tokens[:, 1:]
    return correct if per_token else correct.mean()


def top_ids(logits: np.ndarray, count: int) -> np.ndarray:
    """The indices of the largest entries, [..., V] to [..., count], largest first; of equal ones the first."""
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
