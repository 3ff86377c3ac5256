"""Edits: interventions resolved for one model and batch, as arrays that a compiled graph takes for inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxlens.runtime._activations.applied import ONE, Applied, Indices, listed_text
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.hooks import HookPoint
from onnxlens.runtime._bundle.selection import NamesFilter
from onnxlens.runtime._graphs.names import EditKind, edit_inputs
from onnxlens.runtime._interventions.interventions import Intervention, Source, listed, slice_text
from onnxlens.runtime._interventions.places import AXES, Layout, Place, axis_size, check_axes, find_places
from onnxlens.runtime.errors import InputError

__all__ = ["Edits", "check", "resolve"]

_POSITIONS = {"pos", "query_pos", "key_pos"}


@dataclass(frozen=True)
class _Slot:
    """One edit in the graph: elements of one hook point, and how they change.

    Attributes:
        point: the hook point.
        kind: how the graph does it.
        where: which elements, broadcastable to the hook point's shape; along positions, up to the last one that is
            treated unlike all later ones.
        beyond: the same for every later position, with length 1 along positions.
        value: the value that is set or added, broadcastable.
        factor: the factor by which the elements are multiplied first, broadcastable.
    """

    point: HookPoint
    kind: EditKind
    where: np.ndarray
    beyond: np.ndarray
    value: np.ndarray
    factor: np.ndarray


class Edits:
    """Interventions, resolved for a model and a batch.

    Attributes:
        applied: what each intervention changes where.
        plan: hook points and kinds of edit, in the order in which a graph makes them.
    """

    def __init__(
        self, slots: Sequence[_Slot], applied: Sequence[Applied], interventions: Sequence[Intervention] = ()
    ) -> None:
        self._slots = tuple(slots)
        self._interventions = tuple(interventions)
        self.applied = tuple(applied)
        self.plan: tuple[tuple[str, EditKind], ...] = tuple((slot.point.name, slot.kind) for slot in slots)

    def inputs(self, start: int, stop: int, present: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
        """The inputs of a pass over the positions from `start` to before `stop`, of which `stop` are looked at.

        Args:
            start: the first position.
            stop: the position after the last.
            present: how many rows there are at each hook point; None for all of them everywhere.
        """
        found: dict[str, np.ndarray] = {}
        for index, slot in enumerate(self._slots):
            names = edit_inputs(index, slot.kind)
            rows = None if present is None else present[slot.point.name]
            found |= zip(names, (array[:rows] for array in _window(slot, start, stop)), strict=False)
        return found

    def applied_within(self, computed: int) -> tuple[Applied, ...]:
        """What was changed where, in a text of which so many positions were computed in the end."""
        found = []
        for one in self.applied:
            kept: dict[str, Any] = {
                axis: tuple(i for i in indices if i < computed) for axis, indices in _of_text(one).items()
            }
            if all(kept.values()):
                found.append(replace(one, **kept))
        return tuple(found)

    def check_reached(self, computed: int) -> None:
        """Checks that no named position comes after the end of a text; slices are cut to the text.

        Raises:
            InputError: a named position, or all of a slice, comes later.
        """
        for one in self.applied:
            for axis, indices in _of_text(one).items():
                stated = getattr(self._interventions[one.intervention], axis)
                last = indices[0] if isinstance(stated, slice) else indices[-1]
                if last >= computed:
                    what = f"{axis} {slice_text(stated)}" if isinstance(stated, slice) else f"{ONE[axis]} {last}"
                    raise InputError(
                        f"An intervention at {what} was never reached: the text ended when {computed} positions had "
                        "been computed."
                    )


def _of_text(applied: Applied) -> dict[str, tuple[int, ...]]:
    """The limits of a change that count the tokens of a text."""
    limits = {"positions": applied.positions, "keys": applied.keys}
    return {axis: indices for axis, indices in limits.items() if indices is not None}


def check(
    interventions: Iterable[Intervention] | Intervention | None,
    points: Sequence[HookPoint],
    select: Callable[[NamesFilter], tuple[str, ...]],
    config: ModelConfig,
    model: Source,
) -> None:
    """Checks what can be checked of interventions before there is a text; arguments and errors as for `resolve`."""
    by_name = {point.name: point for point in points}
    for intervention in listed(interventions):
        _check_one(intervention, model)
        for name in select(intervention.hook):
            check_axes(intervention, by_name[name], config)


def resolve(
    interventions: Iterable[Intervention] | Intervention | None,
    points: Sequence[HookPoint],
    select: Callable[[NamesFilter], tuple[str, ...]],
    config: ModelConfig,
    model: Source,
    *,
    mask: np.ndarray,
    limit: int | None = None,
    start: int = 0,
) -> Edits:
    """Finds what interventions change in a model and a batch of texts.

    Edits at one hook point are made in the order given; the hook points follow in the order of computation.

    Args:
        interventions: what to change.
        points: the model's hook points.
        select: finds hook points by name or glob.
        config: the model's shape.
        model: its name and hash.
        mask: [rows, positions] of the text, or of the prompt; 0 where a token is padding.
        limit: positions that can be computed at most, if more will be generated.
        start: the first position that is computed; those before are in the KV cache.

    Raises:
        HookPointError: a name or glob matches nothing.
        InputError: an index is out of range, a hook point has no such axis, a value does not fit, or it was read from
            another model.
    """
    layout = Layout(mask, limit, start)
    by_name = {point.name: point for point in points}
    slots: dict[str, list[_Slot]] = {}
    applied = []
    interventions = listed(interventions)
    for number, intervention in enumerate(interventions):
        _check_one(intervention, model)
        for name in select(intervention.hook):
            point = by_name[name]
            places = find_places(intervention, point, config, layout)
            slot = _slot(intervention, point, places, point.shape(config, layout.rows, layout.length), config, layout)
            applied += [
                Applied(number, intervention.operation, name, **_ended(limits, slot, layout))
                for limits in _limits(places, layout.rows)
            ]
            earlier = slots.setdefault(name, [])
            if earlier and (merged := _merged(earlier[-1], slot)):
                earlier[-1] = merged
            else:
                earlier.append(slot)
    return Edits([slot for point in points for slot in slots.get(point.name, [])], applied, interventions)


def _check_one(intervention: Intervention, model: Source) -> None:
    if intervention.source is not None and intervention.source.hash != model.hash:
        raise InputError(
            f"The value of {intervention.operation!r} was read from the model {intervention.source.model!r} "
            f"({intervention.source.hash[:12]}), and this is {model.model!r} ({model.hash[:12]}): weights or graph "
            "differ."
        )


def _limits(places: Sequence[Place], count: int) -> list[dict[str, Indices]]:
    """The limits of places; places that differ in their rows only are combined. There are `count` rows."""
    found: dict[tuple[Indices, ...], list[int] | None] = {}
    for place in places:
        others = tuple(None if (one := place.named[axis]) is None else tuple(one) for axis in AXES if axis != "rows")
        rows = place.named["rows"]
        found[others] = rows if others not in found or rows is None else sorted([*(found[others] or ()), *rows])
    names = [axis for axis in AXES if axis != "rows"]
    return [
        {
            "rows": None if rows is None or (len(places) > 1 and len(rows) == count) else tuple(rows),
            **dict(zip(names, others, strict=True)),
        }
        for others, rows in found.items()
    ]


def _ended(limits: dict[str, Indices], slot: _Slot, layout: Layout) -> dict[str, Indices]:
    """The same limits, cut to the prompt's positions where the value has none for those that will be generated."""
    by_position = slot.where.shape[slot.point.position_axis] > 0
    if limits["positions"] is None and by_position and layout.limit > layout.length:
        return {**limits, "positions": tuple(range(layout.length))}
    return limits


def _slot(
    intervention: Intervention,
    point: HookPoint,
    places: Sequence[Place],
    shape: tuple[int, ...],
    config: ModelConfig,
    layout: Layout,
) -> _Slot:
    value = _value(intervention, point, shape)
    _check_padding(intervention, point, value, places, layout)
    at = point.position_axis
    per_position = value.shape[at] > 1 or (intervention.operation in ("patch", "freeze") and shape[at] == 1)
    sizes = {"rows": layout.rows, "positions": layout.limit, "keys": layout.limit}
    sizes |= {axis: axis_size(axis, point, config) for axis in ("heads", "neurons")}
    parts = [_elements(point, place.chosen, sizes, shape[at] if per_position else None) for place in places]
    where, beyond = parts[0]
    for other, later in parts[1:]:
        where, beyond = where | other, beyond | later
    kind: EditKind = "affine" if intervention.operation in ("add", "scale") else "set"
    factor = np.ones([1] * len(shape), np.float32)
    if intervention.operation == "scale":
        factor *= np.float32(intervention.factor)
    elif intervention.operation == "add":
        with np.errstate(over="ignore"):
            value = value * np.float32(intervention.factor)
        if np.isinf(value).any():
            raise InputError(
                f"The value of 'add' at {point.name!r}, times the factor {intervention.factor!r}, holds infinity."
            )
    return _Slot(point, kind, where, beyond, value, factor)


def _elements(
    point: HookPoint, chosen: Mapping[str, list[int] | None], sizes: Mapping[str, int], valued: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """A place as `where` and `beyond` of a slot; with `valued`, the value has that many positions only."""
    axis_of = {name: next((point.axes.index(a) for a in axes if a in point.axes), None) for name, axes in AXES.items()}
    rank, at = len(point.axes), point.position_axis

    def along(axis: int, mask: np.ndarray) -> np.ndarray:
        return mask.reshape([-1 if i == axis else 1 for i in range(rank)])

    where = np.ones([1] * rank, np.bool_)
    for name, indices in chosen.items():
        axis = axis_of[name]
        if indices is not None and axis is not None and name != "positions":
            mask = np.zeros(sizes[name], np.bool_)
            mask[indices] = True
            where = where & along(axis, mask)
    named = chosen["positions"]
    beyond = where & (named is None and valued is None)
    some = np.zeros(0, np.bool_)
    if named is not None or valued is not None:
        some = np.zeros(sizes["positions"], np.bool_)
        some[slice(None) if named is None else named] = True
        some[valued:] &= valued is None
    return where & along(at, some), beyond


def _check_padding(
    intervention: Intervention, point: HookPoint, value: np.ndarray, places: Sequence[Place], layout: Layout
) -> None:
    """Checks that values by position were read where the row's text has the same position.

    Where all positions are counted from the end, at which padded texts are aligned, it is enough that they were tokens.
    """
    axes = [axis for axis, name in enumerate(point.axes) if name in _POSITIONS]
    if all(value.shape[axis] == 1 for axis in axes) or (
        intervention.source is None and intervention.attention_mask is None
    ):
        return
    known = intervention.attention_mask
    read = np.ones((1, layout.length), np.int64) if known is None else known
    if read.shape[1] != layout.length or len(read) not in (1, layout.rows):
        return  # the value has the shape of the batch, so it is not this mask's
    positions = intervention.positions
    from_end = isinstance(positions, tuple) and max(positions) < 0 and len(axes) == 1
    for place in places:
        rows, columns = place.chosen["rows"], place.chosen["positions"]
        for row in range(layout.rows) if rows is None else rows:
            own, other = layout.mask[row], read[row if len(read) > 1 else 0]
            if not np.array_equal(own, other) and not (from_end and other[columns].all()):
                raise InputError(
                    f"The value of {intervention.operation!r} at {point.name!r} was read from a text of "
                    f"{int(other.sum())} tokens, and row {row} of the batch has {int(own.sum())}, so that its "
                    "positions are others. Take texts of one length, or leave that row out (rows)."
                )


def _value(intervention: Intervention, point: HookPoint, shape: tuple[int, ...]) -> np.ndarray:
    """The intervention's value at a hook point with as many axes as that has, each 1 or of the shape's size."""
    source = intervention.value
    if source is None:
        return np.zeros([1] * len(shape), np.float32)
    if not isinstance(source, np.ndarray):
        if point.name not in source:
            raise InputError(
                f"The value of {intervention.operation!r} has nothing for {point.name!r}; it has "
                f"{listed_text(list(map(repr, source)))}. Read that hook point too, or choose fewer."
            )
        source = source[point.name]
    value = source.reshape([1] * (len(shape) - source.ndim) + list(source.shape))
    # What was read at each position of a text is no value for all positions of another, though it had one token only.
    read = intervention.operation in ("patch", "freeze") or intervention.attention_mask is not None
    wrong = {
        axis
        for axis, a, b in zip(point.axes, value.shape, shape, strict=False)
        if a != b and (a != 1 or (read and axis in _POSITIONS))
    }
    if wrong or value.ndim != len(shape):
        why = _why(wrong) if value.ndim == len(shape) else ": it has too many axes"
        raise InputError(
            f"The value of {intervention.operation!r} at {point.name!r} has shape {list(source.shape)}, and the "
            f"activation has {list(shape)} ({', '.join(point.axes)}){why}."
        )
    if np.isinf(value).any() and not (point.name.endswith("hook_attn_scores") and not np.isposinf(value).any()):
        raise InputError(f"The value of {intervention.operation!r} at {point.name!r} holds infinity.")
    return value


def _why(wrong: set[str]) -> str:
    """The probable cause of a wrong shape, judged by the axes that do not fit."""
    if wrong <= _POSITIONS:
        return ": it comes from a text of another length"
    if wrong <= {"head", "kv_head", "d_model", "d_head", "d_mlp"}:
        return ": it comes from another model, or belongs to another hook point"
    if wrong == {"batch"}:
        return ": it has several rows, and not as many as there are texts"
    return ""


def _merged(first: _Slot, second: _Slot) -> _Slot | None:
    """One edit that does both, where they change different elements: a sweep over rows of a batch is then one edit."""
    at = first.point.position_axis
    length = max(first.where.shape[at], second.where.shape[at])
    if first.kind != second.kind:
        return None
    masks = [_lengthened(slot, at, length) for slot in (first, second)]
    try:
        if (masks[0] & masks[1]).any() or (first.beyond & second.beyond).any():
            return None
        latter = masks[1] if length else second.beyond
        if length and second.beyond.any():
            return None  # the choice of a value by position has no end
        value, factor = (_either(latter, getattr(second, name), getattr(first, name)) for name in ("value", "factor"))
        return _Slot(first.point, first.kind, masks[0] | masks[1], first.beyond | second.beyond, value, factor)
    except ValueError:  # shapes that do not broadcast: lengths of keys or positions differ
        return None


def _either(where: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The first array where `where` holds, else the second; without a copy where both are the same."""
    if one.shape == other.shape and np.array_equal(one, other):
        return one
    return np.where(where, one, other).astype(np.float32)


def _lengthened(slot: _Slot, at: int, length: int) -> np.ndarray:
    missing = length - slot.where.shape[at]
    return (
        slot.where if not missing else np.concatenate([slot.where, np.repeat(slot.beyond, missing, axis=at)], axis=at)
    )


def _window(slot: _Slot, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where, value and factor for some positions."""
    axes = slot.point.axes
    at = slot.point.position_axis
    known = slot.where.shape[at]
    inside = slot.where.take(range(start, min(stop, known)), axis=at)
    parts = [inside] if inside.shape[at] else []
    if stop > known:
        count = stop - max(start, known)
        parts.append(slot.beyond if not parts else np.repeat(slot.beyond, count, axis=at))
    arrays = [np.concatenate(parts, axis=at), *(_taken(a, at, start, stop) for a in (slot.value, slot.factor))]
    if "key_pos" in axes:
        arrays = [_fitted(array, axes.index("key_pos"), stop) for array in arrays]
    where, value, factor = map(np.ascontiguousarray, arrays)
    return where, value, factor


def _taken(array: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    size = array.shape[axis]
    if size == 1 or (start == 0 and size == stop):
        return array
    taken = array.take(range(min(start, size), min(stop, size)), axis=axis)
    return _padded(taken, axis, stop - start)


def _fitted(array: np.ndarray, axis: int, keys: int) -> np.ndarray:
    """The array with `keys` entries along an axis: keys that came later get 0, as patterns have, or False."""
    if array.shape[axis] in (1, keys):
        return array
    return _padded(array.take(range(min(keys, array.shape[axis])), axis=axis), axis, keys)


def _padded(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    missing = [(0, size - array.shape[i] if i == axis else 0) for i in range(array.ndim)]
    return np.pad(array, missing)
