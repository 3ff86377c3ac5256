"""Part of an axis: a number, a range, or a list of numbers, as TransformerLens takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxlens.runtime.errors import InputError

__all__ = ["Slice", "sliced"]

Slice = int | slice | tuple[int | None, ...] | Sequence[int] | np.ndarray | None


def sliced(array: np.ndarray, part: Slice, axis: int, name: str = "pos_slice") -> np.ndarray:
    """Takes part of one axis.

    Args:
        array: the values.
        part: a number, which drops the axis; a slice, or a tuple of its start, stop and perhaps step; a list or array
            of numbers; None for everything. Negative numbers count from the end.
        axis: which axis.
        name: what the caller calls `part`, for errors.

    Returns:
        A view, or for a list of numbers a copy.

    Raises:
        InputError: it is none of these, or out of range.
    """
    if part is None:
        return array
    index: Any = part
    if isinstance(part, tuple):
        if not 1 <= len(part) <= 3:
            raise InputError(f"{name} as a tuple is (start, stop) or (start, stop, step), not {part!r}.")
        index = slice(*part)
    elif not isinstance(part, int | np.integer | slice):
        index = np.asarray(part)
        if index.ndim != 1 or (index.size and not np.issubdtype(index.dtype, np.integer)):
            raise InputError(f"{name} must be a number, a slice, or a list of numbers, not {part!r}.")
        index = index.astype(np.int64)
    elif isinstance(part, bool):
        raise InputError(f"{name} must be a number, a slice, or a list of numbers, not {part!r}.")
    try:
        chosen = array[(*(slice(None),) * (axis % array.ndim), index)]
    except (IndexError, TypeError, ValueError) as error:
        size = array.shape[axis]
        raise InputError(f"{name} {part!r} is out of range: the axis has {size} entries, 0 to {size - 1}.") from error
    if array.size and not chosen.size:
        raise InputError(f"{name} {part!r} selects none of the {array.shape[axis]} entries of its axis.")
    return chosen
