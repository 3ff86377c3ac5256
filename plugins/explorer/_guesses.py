"""The model's best guesses at each depth, with those of a text's beginning kept while the text grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.runtime._running.logits import top_ids

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["Guesses"]

_MOST_LOGITS = 2**24  # in a pass: 64 MB


class Guesses:
    """Computes the logit lens: the most probable next tokens from each state of the stream.

    A causal model's states do not depend on later tokens. So while a text grows, only its new positions are computed.

    Args:
        lens: the model.
    """

    def __init__(self, lens: Lens) -> None:
        self._lens = lens
        self._ids: list[int] = []
        self._top = 0
        self._kept: tuple[np.ndarray, np.ndarray] | None = None

    def of(self, ids: Sequence[int], states: np.ndarray, top: int, *, keep: bool) -> tuple[np.ndarray, np.ndarray]:
        """Returns the most probable tokens, most probable first, and their probabilities.

        Args:
            ids: the text's token ids.
            states: the stream before each block and after the last, [S, P, D].
            top: how many tokens.
            keep: whether the run has no edits, so that results may be kept and used again.

        Returns:
            [S, P, top] int32, and [S, P, top] float32.
        """
        known = self._known(ids, top) if keep else 0
        found = [(self._kept[0][:, :known], self._kept[1][:, :known])] if known and self._kept else []
        count, size = len(states), self._lens.config.d_vocab
        step = max(1, _MOST_LOGITS // (count * size))
        for start in range(known, len(ids), step):
            logits = self.logits(states[:, start : start + step])  # [S, step, V]
            best = top_ids(logits, top)  # [S, step, top]
            largest = np.take_along_axis(logits, best, -1)
            total = np.exp(logits - largest[..., :1]).sum(-1, keepdims=True, dtype=np.float64)
            shares = np.exp((largest - largest[..., :1]).astype(np.float64)) / total
            found.append((best.astype(np.int32), shares.astype(np.float32)))
        both = np.concatenate([one for one, _ in found], 1), np.concatenate([one for _, one in found], 1)
        if keep:
            self._ids, self._top, self._kept = list(ids), top, both
        return both

    def logits(self, states: np.ndarray) -> np.ndarray:
        """The logits that the final normalisation and the unembedding make of states [S, P, D], as [S, P, V]."""
        last = f"blocks.{self._lens.config.n_layers - 1}.hook_resid_post"
        ids = np.zeros(states.shape[:2], np.int64)  # what is before the states is not computed
        return self._lens.runner.run(ids, feeds={last: states}, keep_cache=False).logits

    def _known(self, ids: Sequence[int], top: int) -> int:
        """How many positions of a text are the beginning of the one that was computed last."""
        if top != self._top:
            return 0
        pairs = zip(ids, self._ids, strict=False)
        return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(ids), len(self._ids)))
