"""Statistics of activations over many texts, run one after the other: memory does not grow with their number."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.analysis._sweeps import Text, one_text
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._result import Result
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["ActivationStatistics", "Context", "activation_statistics"]


@dataclass(frozen=True, order=True)
class Context(Result):
    """Where a unit was active.

    Attributes:
        value: the activation.
        text: which text, counted from 0.
        position: the position in it.
    """

    value: float
    text: int
    position: int


@dataclass(frozen=True, kw_only=True)
class ActivationStatistics(Result):
    """Mean, variance and extremes of a hook point's units over all positions of all texts.

    Attributes:
        hook: the hook point.
        mean: in the hook point's shape without batch and position, float64.
        variance: in the same shape: that of the positions seen, not an estimate for others.
        minimum: in the same shape, float32.
        maximum: in the same shape, float32.
        count: how many positions were seen.
        texts: how many texts.
        top: for each unit asked for, its highest activations, highest first, at most one from each text.
        axes: of the arrays.
    """

    hook: str
    mean: np.ndarray
    variance: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    count: int
    texts: int
    top: dict[int, tuple[Context, ...]]
    axes: tuple[str, ...]


def activation_statistics(
    lens: Lens,
    texts: Iterable[Text],
    hook: str,
    *,
    units: Iterable[int] = (),
    top: int = 10,
) -> ActivationStatistics:
    """Runs texts and collects statistics of one hook point.

    Mean and variance are updated text by text (Chan, Golub and LeVeque 1983), so that they stay exact over any number
    of positions.

    Args:
        lens: the model.
        texts: texts, or token ids; each is run once and not kept.
        hook: a hook point with an axis of positions; not scores or patterns.
        units: units of the last axis (neurons of an MLP, coordinates of the stream) whose highest activations to keep.
        top: how many activations to keep for each unit.

    Raises:
        HookPointError: there is no such hook point, or it has no axis of positions.
        InputError: there is no text, a text cannot be used, or there is no such unit.
    """
    names = lens.runner.select(hook)
    if len(names) != 1:
        raise InputError(f"activation_statistics takes one hook point, and {hook!r} matches {len(names)}.")
    name = names[0]
    point = next(point for point in lens.hook_points if point.name == name)
    if "pos" not in point.axes:
        raise InputError(f"{name!r} has a value for each pair of positions; statistics need one for each position.")
    shape = point.shape(lens.config, 1, 1)[2:]
    chosen = list(dict.fromkeys(units))
    for unit in chosen:
        if not is_integer(unit) or not 0 <= unit < shape[-1]:
            raise InputError(f"{name!r} has units 0 to {shape[-1] - 1}, not {unit!r}.")
    if chosen and len(shape) > 1:
        raise InputError(f"{name!r} has several axes of units ({', '.join(point.axes[2:])}); units need one.")
    if not is_integer(top) or top < 1:
        raise InputError(f"top must be a whole number of at least 1, not {top!r}.")
    count, number = 0, 0
    mean, squares = np.zeros(shape), np.zeros(shape)
    lowest, highest = np.full(shape, np.inf, np.float32), np.full(shape, -np.inf, np.float32)
    best: dict[int, list[Context]] = {unit: [] for unit in chosen}
    for number, text in enumerate(texts, 1):
        ids = one_text(lens, text, "a text of activation_statistics")
        value = lens.run(ids, names_filter=name, logits="last", keep_cache=False).activations[name][0]  # [P, ...]
        wide = value.astype(np.float64)
        size, own = len(wide), wide.mean(axis=0)
        delta, total = own - mean, count + size
        squares += np.square(wide - own).sum(axis=0) + np.square(delta) * count * size / total
        mean, count = mean + delta * size / total, total
        lowest, highest = np.minimum(lowest, value.min(axis=0)), np.maximum(highest, value.max(axis=0))
        for unit, contexts in best.items():
            position = int(value[:, unit].argmax())
            found = Context(float(value[position, unit]), number - 1, position)
            if len(contexts) < top:
                heapq.heappush(contexts, found)
            else:
                heapq.heappushpop(contexts, found)
    if not count:
        raise InputError("There is no text to take statistics of.")
    return ActivationStatistics(
        hook=name,
        mean=mean,
        variance=squares / count,
        minimum=lowest,
        maximum=highest,
        count=count,
        texts=number,
        top={unit: tuple(sorted(contexts, reverse=True)) for unit, contexts in best.items()},
        axes=point.axes[2:],
    )
