"""The logit lens: what the model would predict if it ended after each block (nostalgebraist 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.analysis.sweeps import Text, one_text
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.logits import log_softmax

if TYPE_CHECKING:
    from onnxlens.lens import Lens

__all__ = ["LogitLens", "logit_lens"]


@dataclass(frozen=True, kw_only=True)
class LogitLens:
    """Predictions from the residual stream as it grows. S states of the stream, P positions, K candidates.

    Attributes:
        ids: the most probable next tokens, most probable first, [S, P, K] int64.
        probabilities: theirs, over the full vocabulary, [S, P, K] float64.
        entropy: of the whole prediction, in nats, [S, P] float64.
        rank: which place the model's final prediction has, 0 for the first, [S, P] int64.
        probability: the probability of the model's final prediction, [S, P] float64.
        labels: what each state is: `0_pre` before block 0, ..., `final_post` after the last.
        axes: of the arrays.
        tokens: the text's token ids, [P].
    """

    ids: np.ndarray
    probabilities: np.ndarray
    entropy: np.ndarray
    rank: np.ndarray
    probability: np.ndarray
    labels: tuple[str, ...]
    tokens: np.ndarray
    axes: tuple[str, ...] = ("state", "pos", "candidate")


def logit_lens(lens: Lens, text: Text, *, top: int = 5) -> LogitLens:
    """Applies the final layer normalisation and the unembedding to the residual stream before each block.

    Args:
        lens: the model.
        text: a text, or its token ids.
        top: how many candidates to keep.

    Raises:
        InputError: the text cannot be used, `top` is not between 1 and the size of the vocabulary, or the final layer
            normalisation is changed in a block of `Lens.hooks`.
    """
    if type(top) is not int or not 1 <= top <= lens.config.vocab_size:
        raise InputError(f"top must be a whole number from 1 to {lens.config.vocab_size}, not {top!r}.")
    ids = one_text(lens, text, "logit_lens")
    last = f"blocks.{lens.config.n_layer - 1}.hook_resid_post"
    names = ["blocks.*.hook_resid_pre", last]
    logits, cache = lens.run_with_cache(ids, names_filter=names)
    if final := sorted(name for name in cache.changed if name.startswith("ln_final.")):
        raise InputError(
            "logit_lens applies the final layer normalisation to every state as it is, and "
            f"{final[0]!r} is changed; call it outside of the block of lens.hooks."
        )
    states, labels = cache.accumulated_resid(return_labels=True)  # [S, 1, P, D]
    predicted = logits[0].argmax(-1)  # [P]
    found = []
    for state in states[:-1]:  # the model itself computes logits from it: the same operators, the same rounding
        output = lens.runner.run(ids, feeds={last: state}, keep_cache=False)
        found.append(_predicted(output.logits[0], predicted, top))
    found.append(_predicted(logits[0], predicted, top))
    arrays = (np.stack(parts) for parts in zip(*found, strict=True))
    best, probabilities, entropy, rank, probability = arrays
    return LogitLens(
        ids=best,
        probabilities=probabilities,
        entropy=entropy,
        rank=rank,
        probability=probability,
        labels=tuple(labels),
        tokens=ids[0],
    )


def _predicted(logits: np.ndarray, final: np.ndarray, top: int) -> tuple[np.ndarray, ...]:
    """From logits [P, V]: best ids and probabilities [P, K], entropy, rank and probability of the final ones [P]."""
    logs = log_softmax(logits)  # [P, V]
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :top]  # [P, K]
    chosen = np.take_along_axis(logits, final[:, np.newaxis], axis=-1)  # [P, 1]
    rank = (logits > chosen).sum(-1)
    entropy = -(np.exp(logs) * logs).sum(-1)
    probability = np.exp(np.take_along_axis(logs, final[:, np.newaxis], axis=-1))[:, 0]
    return best, np.exp(np.take_along_axis(logs, best, axis=-1)), entropy, rank, probability
