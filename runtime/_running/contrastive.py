"""Contrastive search: a probable token whose state is unlike those before it (Su et al. 2022).

"A Contrastive Framework for Neural Text Generation", equation 5: among the k most probable tokens v, the one with the
largest

    (1 - alpha) p(v) - alpha max_j cos(h_v, h_j)

where h are the states that the unembedding reads, h_v that of the candidate and h_j those of all tokens before it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnxlens.runtime._numbers import is_integer, is_number
from onnxlens.runtime._running.continuations import Continuations
from onnxlens.runtime._running.logits import log_softmax, top_ids
from onnxlens.runtime._running.runner import Output, Runner
from onnxlens.runtime.errors import InputError

__all__ = ["NORMALIZED", "contrastive_search"]

# The hook point that gives the states; the continuations must read it.
NORMALIZED = "ln_final.hook_normalized"


def contrastive_search(
    runner: Runner,
    texts: Continuations,
    *,
    top_k: int,
    penalty_alpha: float,
    max_new_tokens: int,
    end_tokens: Collection[int] = (),
) -> tuple[list[int], float]:
    """Continues a text by contrastive search; the candidates of a step are rows of one pass.

    Args:
        runner: the model.
        texts: the prompt on the model, which reads `NORMALIZED`, not started yet.
        top_k: how many candidates there are.
        penalty_alpha: the weight of likeness against probability, from 0 to 1.
        max_new_tokens: the most tokens to generate.
        end_tokens: the tokens that end the text.

    Returns:
        The new tokens, and the sum of their log-probabilities, in nats.

    Raises:
        InputError: the value of an option cannot be used.
    """
    if not is_integer(top_k) or not 1 <= top_k <= runner.config.d_vocab:
        raise InputError(f"top_k must be a whole number from 1 to {runner.config.d_vocab}, not {top_k!r}.")
    if not is_number(penalty_alpha) or not 0 <= penalty_alpha <= 1:
        raise InputError(f"penalty_alpha must be from 0 to 1, not {penalty_alpha!r}.")
    weights = runner.bundle.named_weights
    weight, bias = weights["ln_final.w"], weights.get("ln_final.b", np.float32(0))

    def states(output: Output) -> np.ndarray:
        """The directions of the states, [rows, positions, D]."""
        found = output.activations[NORMALIZED].astype(np.float64) * weight + bias
        directions: np.ndarray = found / np.linalg.norm(found, axis=-1, keepdims=True)
        return directions

    output = texts.start()
    earlier = states(output)[0]  # [T, D]
    row, total = 0, 0.0
    for _ in range(max_new_tokens):
        logprobs = log_softmax(output.logits[row, -1])  # [V]
        candidates = top_ids(logprobs, top_k)  # [k]
        output = texts.advance([row] * len(candidates), candidates)
        own = states(output)[:, 0]  # [k, D]
        alike = (own @ earlier.T).max(axis=1)
        row = int(np.argmax((1 - penalty_alpha) * np.exp(logprobs[candidates]) - penalty_alpha * alike))
        earlier = np.concatenate([earlier, own[row : row + 1]])
        total += float(logprobs[candidates[row]])
        if int(candidates[row]) in end_tokens:
            break
    found: list[int] = texts.ids[row].tolist()
    return found, total
