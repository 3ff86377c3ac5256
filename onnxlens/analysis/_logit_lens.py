"""The logit lens: the model's predictions if it ended after each block (nostalgebraist 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.analysis._sweeps import Text, one_text, one_token
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._result import Result
from onnxlens.runtime._running.logits import log_softmax, top_ids
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["LogitLens", "logit_lens"]


@dataclass(frozen=True, kw_only=True)
class LogitLens(Result):
    """Predictions from the residual stream after each block. S states of the stream, P positions, K candidates.

    Attributes:
        ids: the most probable next tokens, most probable first, [S, P, K] int64.
        probabilities: their probabilities over the full vocabulary, [S, P, K] float64.
        entropy: the entropy of the whole prediction, in nats, [S, P] float64.
        rank: the rank of the model's final prediction, 0 for the most probable token, [S, P] int64.
        probability: the probability of the model's final prediction, [S, P] float64.
        watched: the ids of the W watched tokens.
        watched_rank: the rank of each of them, [S, P, W] int64.
        watched_probability: the probability of each, [S, P, W] float64.
        labels: the name of each state: `0_pre` before block 0, ..., `final_post` after the last.
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
    watched: tuple[int, ...] = ()
    watched_rank: np.ndarray
    watched_probability: np.ndarray
    axes: tuple[str, ...] = ("state", "pos", "candidate")


def logit_lens(lens: Lens, text: Text, *, top: int = 5, watch: Sequence[str | int] = ()) -> LogitLens:
    """Applies the final layer normalisation and the unembedding to the residual stream before each block.

    Args:
        lens: the model.
        text: a text, or its token ids.
        top: the number of candidates to keep.
        watch: tokens whose rank and probability to return for every state and position: texts of one token, or ids.

    Raises:
        InputError: the text cannot be used, `top` is not between 1 and the size of the vocabulary, a token to watch is
            not a token, or the final layer normalisation is changed in a block of `Lens.hooks`.
    """
    if not is_integer(top) or not 1 <= top <= lens.config.d_vocab:
        raise InputError(f"top must be a whole number from 1 to {lens.config.d_vocab}, not {top!r}.")
    if isinstance(watch, str) or not isinstance(watch, Sequence):
        raise InputError(f"watch takes a list of tokens, not {watch!r:.100}.")
    watched = tuple(one_token(lens, one) for one in watch)
    ids = one_text(lens, text, "logit_lens")
    last = f"blocks.{lens.config.n_layers - 1}.hook_resid_post"
    names = ["blocks.*.hook_resid_pre", last]
    logits, cache = lens.run_with_cache(ids, names_filter=names)
    if final := sorted(name for name in cache.changed if name.startswith("ln_final.")):
        raise InputError(
            f"logit_lens applies the model's own final layer normalisation to every state, but {final[0]!r} is "
            "changed; call it outside of the block of lens.hooks."
        )
    states, labels = cache.accumulated_resid(return_labels=True)  # [S, 1, P, D]
    asked = np.column_stack([logits[0].argmax(-1), *(np.full(ids.size, one) for one in watched)])  # [P, 1 + W]
    found = []
    for state in states[:-1]:  # the model itself computes logits from it: the same operators, the same rounding
        output = lens.runner.run(ids, feeds={last: state}, keep_cache=False)
        found.append(_predicted(output.logits[0], asked, top))
    found.append(_predicted(logits[0], asked, top))
    arrays = (np.stack(parts) for parts in zip(*found, strict=True))
    best, probabilities, entropy, rank, probability = arrays
    return LogitLens(
        ids=best,
        probabilities=probabilities,
        entropy=entropy,
        rank=rank[:, :, 0],
        probability=probability[:, :, 0],
        watched=watched,
        watched_rank=rank[:, :, 1:],
        watched_probability=probability[:, :, 1:],
        labels=tuple(labels),
        tokens=ids[0],
    )


def _predicted(logits: np.ndarray, asked: np.ndarray, top: int) -> tuple[np.ndarray, ...]:
    """From logits [P, V]: best ids and probabilities [P, K], entropy [P], rank and probability of those asked for."""
    logs = log_softmax(logits)  # [P, V]
    best = top_ids(logits, top)  # [P, K]
    chosen = np.take_along_axis(logits, asked, axis=-1)  # [P, A]
    rank = np.column_stack([(logits > one[:, np.newaxis]).sum(-1) for one in chosen.T])  # [P, A]
    entropy = -(np.exp(logs) * logs).sum(-1)
    probability = np.exp(np.take_along_axis(logs, asked, axis=-1))  # [P, A]
    return best, np.exp(np.take_along_axis(logs, best, axis=-1)), entropy, rank, probability
