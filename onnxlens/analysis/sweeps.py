"""Many changed runs of one text, as rows of a few batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.measuring import Measure
from onnxlens.metrics import TokenMetric
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.interventions import Intervention

if TYPE_CHECKING:
    from onnxlens.lens import Lens

__all__ = ["Text", "one_text", "sweep"]

Text = str | Sequence[int] | np.ndarray

_TOKENS = 2048  # in a pass: enough to keep a processor busy, little enough for its memory


def one_text(lens: Lens, text: Text, what: str) -> np.ndarray:
    """The token ids of one text, [1, P].

    Raises:
        InputError: there are several texts, or the ids cannot be used.
    """
    if not isinstance(text, str) and len(text) and isinstance(text[0], str):
        raise InputError(f"{what} takes one text at a time, not {len(text)}.")
    ids = lens.to_tokens(text) if isinstance(text, str) else lens.runner.check_ids(np.asarray(text))
    if len(ids) != 1:
        raise InputError(f"{what} takes one text at a time, not {len(ids)}.")
    return ids


def sweep(lens: Lens, ids: np.ndarray, changes: Sequence[Sequence[Intervention]], metric: TokenMetric) -> np.ndarray:
    """Measures a text under each of many changes.

    Args:
        lens: the model.
        ids: the text, [1, P].
        changes: for each run the interventions to make in it, which say nothing of rows; values are those of one row.
        metric: what is measured; see `onnxlens.metrics`.

    Returns:
        The metric of each run, [runs] float64.

    Raises:
        InputError: an intervention does not fit, or the metric names a token that there is not.
    """
    rows = max(1, _TOKENS // ids.shape[1])
    found = []
    for first in range(0, len(changes), rows):
        chosen = changes[first : first + rows]
        batch = np.repeat(ids, len(chosen), axis=0)  # [rows, P]
        found.append(_measured(lens, batch, [[i.at_rows(row) for i in c] for row, c in enumerate(chosen)], metric))
    return np.concatenate(found)


def _measured(
    lens: Lens, batch: np.ndarray, changes: Sequence[Sequence[Intervention]], metric: TokenMetric
) -> np.ndarray:
    measure = Measure(metric, lens.tokenizer, lens.config.vocab_size, len(batch))
    # Position by position, so that what many rows have in common stands side by side, and becomes one edit.
    deep = max(map(len, changes), default=0)
    ordered = [change[depth] for depth in range(deep) for change in changes if depth < len(change)]
    logits = "all" if measure.needs_all_positions else "last"
    output = lens.run(batch, logits=logits, interventions=ordered, keep_cache=False)
    seen = batch[:, -output.logits.shape[1] :]
    return measure.value(output.logits, seen, np.ones_like(seen))
