"""Part of an axis: a number, a range, or a list of numbers, as TransformerLens takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime.errors import InputError

__all__ = ["Slice", "positions_of", "sliced"]

Slice = int | slice | tuple[int | None, ...] | Sequence[int] | np.ndarray | None


def sliced(array: np.ndarray, part: Slice, axis: int, name: str = "pos_slice") -> np.ndarray:
    """Takes part of one axis.

    Args:
        array: the values.
        part: a number, which drops the axis; a slice, or a tuple of its stop, or its start, stop and perhaps step; a
            list or array of numbers; None for everything. Negative numbers count from the end.
        axis: which axis.
        name: what the caller calls `part`, for errors.

    Returns:
        A view, or for a list of numbers a copy.

    Raises:
        InputError: it is of another type, or out of range.
    """
    if part is None:
        return array
    try:
        chosen = array[(*(slice(None),) * (axis % array.ndim), _index(part, name))]
    except (IndexError, TypeError, ValueError) as error:
        size = array.shape[axis]
        raise InputError(f"{name} {part!r} is out of range: the axis has {size} entries, 0 to {size - 1}.") from error
    if array.size and not chosen.size:
        raise InputError(f"{name} {part!r} selects none of the {array.shape[axis]} entries of its axis.")
    return chosen


def positions_of(part: Slice, mask: np.ndarray) -> np.ndarray | None:
    """The positions that a `pos_slice` means in a pass.

    Args:
        part: as for `sliced`.
        mask: [B, P], 0 where a token is padding.

    Returns:
        [n] int64, from 0; None for all of them.

    Raises:
        InputError: it is not within the positions, or padding makes it mean different tokens in each row.
    """
    if part is None:
        return None
    found = np.atleast_1d(sliced(np.arange(mask.shape[1]), part, 0))
    if mask.all():
        return found
    row = int(mask.all(axis=1).argmin())
    padding = int((mask[row] == 0).sum())
    if not _counts_from_end(part):
        raise InputError(
            f"Row {row} of the batch has {padding} position{'s' * (padding != 1)} of padding, so pos_slice {part!r} "
            "would mean different tokens in each text; count from the end with negative positions, or run texts of one "
            "length."
        )
    if not mask[:, found].all():
        row = int(mask[:, found].all(axis=1).argmin())
        tokens = int(mask[row].sum())
        raise InputError(f"pos_slice {part!r} names padding in row {row} of the batch, whose text has {tokens} tokens.")
    return found


def _counts_from_end(part: Slice) -> bool:
    """Whether all of it counts from the end, so that it means the same tokens however texts are padded on the left."""
    index = _index(part, "pos_slice")
    if not isinstance(index, slice):
        return bool((np.asarray(index) < 0).all())
    forwards = index.step is None or index.step > 0
    first, last = (index.start, index.stop) if forwards else (index.stop, index.start)
    # Forwards from -3 on, or backwards down to it; where there is no end, that of the texts is meant.
    return first is not None and first < 0 and (last is None or last < 0)


def _index(part: Slice, name: str) -> Any:
    """The NumPy index of a part."""
    if isinstance(part, tuple):
        if not 1 <= len(part) <= 3:
            raise InputError(f"{name} as a tuple is (start, stop) or (start, stop, step), not {part!r}.")
        part = slice(*part)
    if isinstance(part, slice):
        if any(isinstance(one, bool) or not isinstance(one, int | np.integer | None) for one in _parts(part)):
            raise InputError(f"{name} must be a slice of whole numbers, not {part!r}.")
        if part.step == 0:
            raise InputError(f"{name} must be a slice whose step is not 0, not {part!r}.")
        return part
    if is_integer(part):
        return part
    try:
        index = np.asarray(part)
    except ValueError:
        index = np.empty((0, 0))
    if index.ndim > 1 or isinstance(part, bool) or (index.size and not np.issubdtype(index.dtype, np.integer)):
        raise InputError(f"{name} must be a number, a slice, or a list of numbers, not {part!r}.")
    return index.astype(np.int64)


def _parts(part: slice) -> tuple[Any, Any, Any]:
    return part.start, part.stop, part.step
