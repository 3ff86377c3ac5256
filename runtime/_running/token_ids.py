"""Token ids as they are run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxlens.runtime.errors import InputError

__all__ = ["check_ids"]


def check_ids(input_ids: npt.ArrayLike, d_vocab: int) -> np.ndarray:
    """Checks token ids.

    Args:
        input_ids: token ids, [B, P] or [P] for one row.
        d_vocab: number of tokens of the model.

    Returns:
        The same, [B, P] int64.

    Raises:
        InputError: they are of another shape or type, or out of range.
    """
    try:
        ids = np.asarray(input_ids)
    except ValueError as error:
        raise InputError("The rows of input_ids have different lengths; pad shorter ones on the left.") from error
    if ids.ndim == 0:
        raise InputError(f"input_ids must be token ids, [batch, positions], not {input_ids!r:.100}.")
    if ids.ndim == 1:
        ids = ids[np.newaxis]
    if ids.ndim != 2 or ids.size == 0:
        raise InputError(
            f"input_ids must be [batch, positions] with at least one token; their shape is {list(ids.shape)}."
        )
    if not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"input_ids must be whole numbers, not {ids.dtype}.")
    outside = (ids < 0) | (ids >= d_vocab)
    if outside.any():
        raise InputError(f"Token id {ids[outside][0]} is out of range: this model's ids are 0 to {d_vocab - 1}.")
    return ids.astype(np.int64)
