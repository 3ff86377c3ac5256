"""Places: which elements of a hook point an intervention names, in a batch of given texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxlens.runtime._activations.applied import ONE
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.hooks import HookPoint, sizes
from onnxlens.runtime._interventions.interventions import Indices, Intervention, slice_text
from onnxlens.runtime.errors import InputError

__all__ = ["AXES", "Layout", "Place", "axis_size", "check_axes", "find_places"]

AXES = {
    "rows": ("batch",),
    "positions": ("pos", "query_pos"),
    "heads": ("head", "kv_head"),
    "neurons": ("d_mlp",),
    "keys": ("key_pos",),
}
_OF_TEXT = ("positions", "keys")  # axes that count the tokens of a row's own text


class Layout:
    """Where the texts of a batch stand.

    Args:
        mask: [rows, length], 0 where a token is padding.
        limit: how many positions there can be at most, if more will be generated; None for `length`.
        start: the first position that is computed; those before are in the KV cache.

    Attributes:
        mask: the same.
        rows: how many there are.
        length: the positions of the batch, padding included.
        limit: as given, or `length`.
        start: the same.
    """

    def __init__(self, mask: np.ndarray, limit: int | None = None, start: int = 0) -> None:
        self.mask, self.start = mask, start
        self.rows, self.length = mask.shape
        self.limit = self.length if limit is None else limit

    @property
    def is_padded(self) -> bool:
        """Whether there is any padding."""
        return not self.mask.all()

    def alike(self, rows: Sequence[int]) -> list[list[int]]:
        """The rows grouped by their padding: those of a group have it in the same places."""
        found: dict[bytes, list[int]] = {}
        for row in rows:
            found.setdefault(self.mask[row].tobytes(), []).append(row)
        return list(found.values())

    def columns(self, row: int) -> np.ndarray:
        """The columns of the batch that a row's own tokens have, including those that may be generated."""
        return np.concatenate([np.flatnonzero(self.mask[row]), np.arange(self.length, self.limit)])


def axis_size(axis: str, point: HookPoint, config: ModelConfig) -> int:
    """How many heads or neurons a hook point has; 1 where it has no such axis."""
    return next((sizes(config)[one] for one in AXES[axis] if one in point.axes), 1)


@dataclass(frozen=True)
class Place:
    """Elements of a hook point, in rows that are alike.

    Attributes:
        chosen: for each axis the indices in the batch, in order; None for all.
        named: the same as they are counted in a row's own text.
    """

    chosen: dict[str, list[int] | None]
    named: dict[str, list[int] | None]


def check_axes(intervention: Intervention, point: HookPoint, config: ModelConfig) -> None:
    """Checks what can be checked of an intervention before there is a text.

    Raises:
        InputError: the hook point does not have an axis that is named, or a head or neuron is not there.
    """
    for axis in AXES:
        if _stated(intervention, axis, point) is not None and axis in ("heads", "neurons"):
            _of_axis(intervention, axis, point, axis_size(axis, point, config))


def find_places(intervention: Intervention, point: HookPoint, config: ModelConfig, layout: Layout) -> list[Place]:
    """Finds what an intervention changes at a hook point.

    Positions and keys count the tokens of each row's own text. So rows whose padding differs are places of their own,
    where any of them are named.

    Raises:
        InputError: the hook point does not have an axis that is named, or an index is not there.
    """
    named: dict[str, list[int] | None] = dict.fromkeys(AXES)
    for axis in ("rows", "heads", "neurons"):
        if _stated(intervention, axis, point) is not None:
            size = layout.rows if axis == "rows" else axis_size(axis, point, config)
            named[axis] = _of_axis(intervention, axis, point, size)
    limited = [axis for axis in _OF_TEXT if _stated(intervention, axis, point) is not None]
    if not limited:
        return [Place(named, named)]
    rows = named["rows"] or range(layout.rows)
    groups = layout.alike(rows) if layout.is_padded else [list(rows)]
    found = [_of_texts(intervention, point, layout, limited, named, group, alone=len(groups) == 1) for group in groups]
    places = [place for place in found if isinstance(place, Place)]
    if not places:
        axis = next(axis for axis in found if isinstance(axis, str))
        last = max(len(layout.columns(group[0])) for group in groups) - 1
        raise InputError(
            f"The {axis} {slice_text(getattr(intervention, axis))} of the intervention at {point.name!r} select "
            f"nothing: there are {axis} {layout.start if axis == 'positions' else 0} to {last}."
        )
    return places


def _of_texts(
    intervention: Intervention,
    point: HookPoint,
    layout: Layout,
    limited: Sequence[str],
    named: dict[str, list[int] | None],
    rows: list[int],
    *,
    alone: bool,
) -> Place | str:
    """What is changed in rows that are alike; or the axis along which a slice selects nothing."""
    row = rows[0]
    columns = layout.columns(row)
    length = int(layout.mask[row].sum())
    counted, chosen = dict(named), dict(named)
    if not alone:
        counted["rows"] = chosen["rows"] = rows
    for axis in limited:
        stated = getattr(intervention, axis)
        first = int(layout.mask[row, : layout.start].sum()) if axis == "positions" else 0
        if isinstance(stated, slice):
            indices = [one for one in _within(stated, length, len(columns)) if one >= first]
            if not indices:
                return axis
        else:
            whose = "the text has" if alone else f"row {row} of the batch has"
            indices = _listed(intervention, axis, point, stated, length, len(columns), whose)
            if indices[0] < first:
                raise InputError(
                    f"The intervention at {point.name!r} names position {indices[0]}, which an earlier pass has "
                    f"computed: the KV cache holds positions 0 to {first - 1}."
                )
        counted[axis] = indices
        chosen[axis] = columns[indices].tolist()
    return Place(chosen, counted)


def _stated(intervention: Intervention, axis: str, point: HookPoint) -> Indices:
    """The indices that an intervention names on an axis, which the hook point must then have."""
    stated: Indices = getattr(intervention, axis)
    if stated is not None and not set(AXES[axis]) & set(point.axes):
        raise InputError(
            f"{point.name!r} has no {axis}: its axes are {', '.join(point.axes)}. Leave {axis} out, or choose other "
            "hook points."
        )
    return stated


def _of_axis(intervention: Intervention, axis: str, point: HookPoint, size: int) -> list[int]:
    """Indices of an axis that is the same in all texts."""
    stated = getattr(intervention, axis)
    if not isinstance(stated, slice):
        whose = "the batch has" if axis == "rows" else "it has"
        return _listed(intervention, axis, point, stated, size, size, whose)
    if not (found := _within(stated, size, size)):
        raise InputError(
            f"The {axis} {slice_text(stated)} of the intervention at {point.name!r} select nothing: there are {axis} 0 "
            "to "
            f"{size - 1}."
        )
    return found


def _listed(
    intervention: Intervention, axis: str, point: HookPoint, given: Any, length: int, size: int, whose: str
) -> list[int]:
    """Indices that are named one by one; negative ones count from `length`, and there are `size`."""
    if not given:
        raise InputError(f"The intervention at {point.name!r} lists no {axis}; leave {axis} out for all of them.")
    for one in given:
        if one < -length and length != size:
            raise InputError(
                f"The intervention at {point.name!r} names {ONE[axis]} {one}, counted from the end of the prompt, "
                f"which has {length} {axis}."
            )
        if not -length <= one < size:
            raise InputError(
                f"The intervention at {point.name!r} names {ONE[axis]} {one}, and {whose} {axis} 0 to {size - 1}."
            )
    return sorted({one + length if one < 0 else one for one in given})


def _within(given: slice, length: int, size: int) -> list[int]:
    """The indices of a slice among `size`, in order; negative bounds count from `length`, also with a negative step."""
    step = 1 if given.step is None else given.step

    def bound(value: int | None, missing: int, lowest: int, highest: int) -> int:
        if value is None:
            return missing
        return min(max(value + length if value < 0 else value, lowest), highest)

    if step > 0:
        found = range(bound(given.start, 0, 0, size), bound(given.stop, size, 0, size), step)
    else:
        found = range(bound(given.start, length - 1, -1, size - 1), bound(given.stop, -1, -1, size - 1), step)
    return sorted(found)
