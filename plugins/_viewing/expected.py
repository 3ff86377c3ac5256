"""The most probable next tokens, in words."""

from __future__ import annotations

import numpy as np

from onnxlens.plugins._viewing.visualizer import View
from onnxlens.runtime._running.logits import top_ids

__all__ = ["expected", "names_of"]


def expected(view: View, logits: np.ndarray, logprobs: np.ndarray, count: int) -> list[str]:
    """Names the most probable tokens of each position with their probabilities.

    Args:
        view: the text.
        logits: [P, V].
        logprobs: their log-softmax, [P, V].
        count: how many tokens to name.
    """
    best = top_ids(logits, count).tolist()
    return [
        "  ".join(f"{view.shown(token)} {100 * np.exp(logprobs[place, token]):.3g}%" for token in tokens)
        for place, tokens in enumerate(best)
    ]


def names_of(view: View, tokens: list[int]) -> list[str]:
    """Names for candidates, with their ids where texts are equal."""
    shown = [view.shown(token) for token in tokens]
    return [
        f"{label} (id {token})" if shown.count(label) > 1 else label for label, token in zip(shown, tokens, strict=True)
    ]
