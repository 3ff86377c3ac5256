"""Edits: what interventions come to for one model and text, as arrays that a compiled graph takes for inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxlens.runtime.compile import EditKind, edit_inputs
from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.hooks import HookPoint, NamesFilter
from onnxlens.runtime.interventions import Intervention, Source

__all__ = ["Applied", "Edits", "resolve"]

_AXES = {"rows": ("batch",), "positions": ("pos", "query_pos"), "heads": ("head",), "neurons": ("d_mlp",)}
_AXES["keys"] = ("key_pos",)
_ONE = {"rows": "row", "positions": "position", "heads": "head", "neurons": "neuron", "keys": "key"}
_SHOWN = 8  # indices listed in a sentence

_Listed = tuple[int, ...] | None  # None for all


@dataclass(frozen=True)
class Applied:
    """What one intervention changed at one hook point.

    Attributes:
        intervention: its number in the list that was given.
        operation: what it did.
        hook: where.
        positions: the positions that it changed, from the start of the text; None for all.
        heads: the heads; None for all there are.
        neurons: the neurons; None for all there are.
        keys: the positions looked at; None for all.
        rows: the rows of the batch; None for all.
    """

    intervention: int
    operation: str
    hook: str
    positions: _Listed = None
    heads: _Listed = None
    neurons: _Listed = None
    keys: _Listed = None
    rows: _Listed = None

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Applied:
        """Reads what `dataclasses.asdict` made of one, from JSON."""
        given: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in entries.items()}
        return cls(**given)

    def __str__(self) -> str:
        limits = ((_ONE[name], getattr(self, name)) for name in ("rows", "positions", "heads", "neurons", "keys"))
        return ", ".join([f"{self.operation} at {self.hook}", *(_said(one, found) for one, found in limits if found)])


@dataclass(frozen=True)
class _Slot:
    """One edit in the graph: elements of one hook point, and what becomes of them.

    Attributes:
        point: the hook point.
        kind: how the graph does it.
        where: which elements, broadcastable to the hook point's shape; along positions as long as anything is limited
            to certain ones, which may be not at all.
        beyond: the same for every later position; 1 along positions.
        value: what is put there or added, broadcastable.
        factor: what they are multiplied by first, broadcastable.
    """

    point: HookPoint
    kind: EditKind
    where: np.ndarray
    beyond: np.ndarray
    value: np.ndarray
    factor: np.ndarray


class Edits:
    """Resolved interventions.

    Attributes:
        applied: what each of them changes where.
        plan: hook points and kinds of edit, in the order in which a graph makes them.
        last_position: the last position that is named; -1 if none is.
    """

    def __init__(self, slots: Sequence[_Slot], applied: Sequence[Applied]) -> None:
        self._slots = tuple(slots)
        self.applied = tuple(applied)
        self.plan: tuple[tuple[str, EditKind], ...] = tuple((slot.point.name, slot.kind) for slot in slots)
        self.last_position = max((max(one.positions) for one in applied if one.positions), default=-1)

    def inputs(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """The inputs of a pass over the positions from `start` to before `stop`, of which `stop` are looked at."""
        found: dict[str, np.ndarray] = {}
        for index, slot in enumerate(self._slots):
            names = edit_inputs(index, slot.kind)
            found |= zip(names, _window(slot, start, stop), strict=False)
        return found


def resolve(
    interventions: Iterable[Intervention],
    points: Sequence[HookPoint],
    select: Callable[[NamesFilter], tuple[str, ...]],
    config: ModelConfig,
    model: Source,
    *,
    rows: int,
    length: int,
    limit: int | None = None,
) -> Edits:
    """Finds what interventions change in a model and a text.

    Edits at one hook point are made in the order given; the hook points follow in the order of computation.

    Args:
        interventions: what to change.
        points: the model's hook points.
        select: finds hook points by name or glob.
        config: the model's shape.
        model: its name and hash.
        rows: rows of the batch.
        length: positions of the text, or of the prompt.
        limit: positions that there can be at most, if more will be generated.

    Raises:
        HookPointError: a name or glob matches nothing.
        InputError: an index is out of range, a hook point has no such axis, a value does not fit, or it was read from
            another model.
    """
    sizes = {"rows": rows, "positions": limit or length, "heads": config.n_head, "neurons": config.d_mlp}
    sizes["keys"] = length
    by_name = {point.name: point for point in points}
    slots: dict[str, list[_Slot]] = {}
    applied = []
    for number, intervention in enumerate(interventions):
        if not isinstance(intervention, Intervention):
            raise InputError(f"Expected an Intervention, not {intervention!r}; Intervention.zero(...) makes one.")
        if intervention.source is not None and intervention.source.hash != model.hash:
            raise InputError(
                f"The value of {intervention.operation!r} was read from the model {intervention.source.model!r} "
                f"({intervention.source.hash[:12]}), and this is {model.model!r} ({model.hash[:12]}): weights or graph "
                "differ."
            )
        for name in select(intervention.hook):
            point = by_name[name]
            chosen = {axis: _chosen(intervention, axis, point, sizes[axis], length) for axis in _AXES}
            listed = {axis: None if found is None else tuple(found) for axis, found in chosen.items()}
            applied.append(Applied(number, intervention.operation, name, **listed))
            slot = _slot(intervention, point, chosen, point.shape(config, rows, length), sizes)
            before = slots.setdefault(name, [])
            if before and (merged := _merged(before[-1], slot)):
                before[-1] = merged
            else:
                before.append(slot)
    return Edits([slot for point in points for slot in slots.get(point.name, [])], applied)


def _chosen(intervention: Intervention, axis: str, point: HookPoint, size: int, length: int) -> list[int] | None:
    """Which indices of an axis are changed; None for all."""
    given = getattr(intervention, axis)
    if given is None:
        return None
    if not set(_AXES[axis]) & set(point.axes):
        raise InputError(
            f"{point.name!r} has no {axis}: its axes are {', '.join(point.axes)}. Leave {axis} out, or choose other "
            "hook points."
        )
    backwards = length if axis == "positions" else size  # from where negative ones count
    if isinstance(given, slice):
        start, stop, step = given.indices(backwards)
        if given.stop is None and (given.step or 1) > 0:
            start, stop, step = given.indices(size) if given.start is None or given.start >= 0 else (start, size, step)
        found = list(range(start, stop, step))
        if not found:
            raise InputError(
                f"The {axis} {given.start}:{given.stop} of the intervention at {point.name!r} are none; there are "
                f"{size} {axis}."
            )
        return sorted(found)
    if not given:
        raise InputError(f"The intervention at {point.name!r} lists no {axis}; leave {axis} out for all of them.")
    for one in given:
        if not -backwards <= one < size:
            what = "the text has" if axis in ("positions", "keys") else "the batch has" if axis == "rows" else "it has"
            raise InputError(
                f"The intervention at {point.name!r} names {_ONE[axis]} {one}, and {what} {axis} 0 to {size - 1}."
            )
    return sorted({one + backwards if one < 0 else one for one in given})


def _slot(
    intervention: Intervention,
    point: HookPoint,
    chosen: dict[str, list[int] | None],
    shape: tuple[int, ...],
    sizes: dict[str, int],
) -> _Slot:
    axis_of = {name: next((point.axes.index(a) for a in axes if a in point.axes), None) for name, axes in _AXES.items()}
    at = point.position_axis
    value = _value(intervention, point, shape)
    where = np.ones([1] * len(shape), np.bool_)
    for name, indices in chosen.items():
        axis = axis_of[name]
        if indices is not None and axis is not None and name != "positions":
            mask = np.zeros(sizes[name], np.bool_)
            mask[indices] = True
            where = where & mask.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    per_position = value.shape[at] > 1 or (intervention.operation in ("patch", "freeze") and shape[at] == 1)
    named = chosen["positions"]
    beyond = where & (named is None and not per_position)
    some = np.zeros(0, np.bool_)
    if named is not None or per_position:
        some = np.zeros(sizes["positions"], np.bool_)
        some[slice(None) if named is None else named] = True
        if per_position:
            some[shape[at] :] = False
    where = where & some.reshape([-1 if i == at else 1 for i in range(len(shape))])
    kind: EditKind = "affine" if intervention.operation in ("add", "scale") else "set"
    factor = np.ones([1] * len(shape), np.float32)
    if intervention.operation == "scale":
        factor *= np.float32(intervention.factor)
    elif intervention.operation == "add":
        value = value * np.float32(intervention.factor)
    return _Slot(point, kind, where, beyond, value, factor)


def _value(intervention: Intervention, point: HookPoint, shape: tuple[int, ...]) -> np.ndarray:
    """The intervention's value at a hook point with as many axes as that has, each 1 or of the shape's size."""
    given = intervention.value
    if given is None:
        return np.zeros([1] * len(shape), np.float32)
    if not isinstance(given, np.ndarray):
        if point.name not in given:
            raise InputError(
                f"The value of {intervention.operation!r} has nothing for {point.name!r}; it has "
                f"{_some(list(map(repr, given)))}. Read that hook point too, or choose fewer."
            )
        given = given[point.name]
    value = given.reshape([1] * (len(shape) - given.ndim) + list(given.shape))
    fits = value.ndim == len(shape) and all(a in (1, b) for a, b in zip(value.shape, shape, strict=True))
    if not fits:
        raise InputError(
            f"The value of {intervention.operation!r} at {point.name!r} has shape {list(given.shape)}, and the "
            f"activation has {list(shape)} ({', '.join(point.axes)}){_why(value, shape, point)}."
        )
    if np.isinf(value).any() and not (point.name.endswith("hook_attn_scores") and not np.isposinf(value).any()):
        raise InputError(f"The value of {intervention.operation!r} at {point.name!r} holds infinity.")
    return value


def _why(value: np.ndarray, shape: tuple[int, ...], point: HookPoint) -> str:
    """What is probably wrong about a shape."""
    if value.ndim != len(shape):
        return ": it has too many axes"
    wrong = {axis for axis, a, b in zip(point.axes, value.shape, shape, strict=True) if a not in (1, b)}
    if wrong <= {"pos", "query_pos", "key_pos"}:
        return ": it comes from a text of another length"
    if wrong <= {"head", "d_model", "d_head", "d_mlp"}:
        return ": it comes from another model, or belongs to another hook point"
    return ""


def _merged(first: _Slot, second: _Slot) -> _Slot | None:
    """Both in one where they change different elements: a sweep over rows of a batch is then one edit."""
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
    """One where it is so, else the other; without a copy where both are the same."""
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
        arrays = [_widened(array, axes.index("key_pos"), stop) for array in arrays]
    where, value, factor = map(np.ascontiguousarray, arrays)
    return where, value, factor


def _taken(array: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    size = array.shape[axis]
    if size == 1 or (start == 0 and size == stop):
        return array
    taken = array.take(range(min(start, size), min(stop, size)), axis=axis)
    return _padded(taken, axis, stop - start)


def _widened(array: np.ndarray, axis: int, keys: int) -> np.ndarray:
    """Keys that came later were not looked at then: 0 in a pattern; nowhere, in what is not limited to some keys."""
    return array if array.shape[axis] in (1, keys) else _padded(array, axis, keys)


def _padded(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    missing = [(0, size - array.shape[i] if i == axis else 0) for i in range(array.ndim)]
    return np.pad(array, missing)


def _said(one: str, indices: tuple[int, ...]) -> str:
    return f"{one if len(indices) == 1 else f'{one}s'} {_some(list(map(str, indices)))}"


def _some(words: list[str]) -> str:
    return ", ".join(words if len(words) <= _SHOWN else [*words[: _SHOWN - 1], f"… ({len(words)} in all)"])
