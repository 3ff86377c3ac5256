"""How near two numbers must be: the one place from which every numeric test takes its bounds.

Processors round differently. Libraries choose other kernels for AVX2, AVX-512 and Arm, and other orders of summation
for another number of threads or another batch size. A test must not depend on that, and must still notice a mistake.
So there are two kinds of bounds, and both are relative to the size of the value:

- `close` compares two computations of the same value. What float32 rounding may do to a value is proportional to the
  largest number that was added on the way to it, so the difference may be a share of that: `SINGLE` for float32,
  `DOUBLE` for float64. The largest number is that of the expected array, unless the test names another: where numbers
  cancel, the sum is smaller than what rounding acts on. A mistake in an edit, a mask or a formula moves values by a
  hundred times as much.
- `Errors` decides whether float32 values are as exact as they can be. The truth is in float64, and the yardstick is
  the same computation in PyTorch float32, rounded in several ways (`eager.Eager`): no hook point's largest error may
  be more than twice the largest of theirs.

`probable` compares probabilities, `approximately` single numbers. Exact results (a lookup, a change that changes
nothing) are compared with `np.testing.assert_array_equal`. A test refuses other ways to compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest

__all__ = ["DOUBLE", "SINGLE", "Errors", "approximately", "close", "is_close", "probable", "ranks_of"]

# Of the size of the values: some 300 roundings in a row, all in the same direction.
SINGLE = 300 * float(np.spacing(np.float32(1)))  # 3.6e-5
DOUBLE = 1e-11  # the formulas of the tests are not all well conditioned


def wide(values: Any) -> np.ndarray:
    """Numbers in double precision."""
    return np.asarray(values, np.complex128 if np.iscomplexobj(values) else np.float64)


def size_of(values: Any) -> float:
    """The largest magnitude of the finite values; 0 if there are none."""
    values = np.abs(wide(values))
    return float(values[np.isfinite(values)].max(initial=0))


def excess(found: Any, expected: Any, *, scale: Any = None, within: float = SINGLE) -> str | None:
    """What `close` has to object, in words; None if nothing."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return f"has shape {list(found.shape)}, not {list(expected.shape)}"
    size = max(size_of(expected), 0 if scale is None else size_of(scale))
    error = largest_error(wide(found), wide(expected))
    if error <= within * size:
        return None
    return f"differs by {error:.3g}, and of values up to {size:.3g} {within * size:.3g} is allowed"


def close(found: Any, expected: Any, name: str = "", *, scale: Any = None, within: float = SINGLE) -> None:
    """Asserts that two computations gave the same but for rounding, which is relative to the largest value.

    Args:
        found: numbers, of any shape.
        expected: numbers of the same shape; where they are infinite or not a number, so must those found be.
        name: what is compared, for the message.
        scale: the numbers that were added or subtracted to get there, if some of them are larger than the result.
        within: the share of the largest number by which each may differ.
    """
    objection = excess(found, expected, scale=scale, within=within)
    assert objection is None, f"{name} {objection}".strip()


def is_close(found: Any, expected: Any, *, scale: Any = None, within: float = SINGLE) -> bool:
    """Whether `close` would pass."""
    return excess(found, expected, scale=scale, within=within) is None


def approximately(expected: float, *, scale: Any = None, within: float = SINGLE) -> Any:
    """`pytest.approx` with the bound of `close`, for a number inside of a larger comparison.

    Args:
        expected: the number.
        scale: the numbers that were added or subtracted to get there, if some of them are larger than the result.
        within: the share of the largest number by which it may differ.
    """
    return pytest.approx(expected, rel=0, abs=within * max(size_of(expected), 0 if scale is None else size_of(scale)))


def probable(found: Any, expected: Any, logits: Any, *, within: float = SINGLE, name: str = "") -> None:
    """Asserts that probabilities are the same but for rounding of the logits that they come from.

    An error of d in a logit multiplies a probability by exp(d) at most, and that of a logit is relative to the largest.
    So logarithms are compared. What is too improbable for float32 only has to be so twice.

    Args:
        found: probabilities, of any shape.
        expected: probabilities of the same shape.
        logits: what they were computed from; only the largest magnitude counts.
        within: the share of the largest logit by which logarithms may differ.
        name: what is compared, for the message.
    """
    tiny = 1e-30
    logarithms = (np.log(np.maximum(np.asarray(values, np.float64), tiny)) for values in (found, expected))
    close(*logarithms, scale=[1.0, size_of(logits)], within=within, name=name)


def ranks_of(found: Any, probabilities: np.ndarray, own: np.ndarray, *, near: float = 2e-3) -> bool:
    """Whether ranks are right but for tokens that are as probable, within rounding.

    Args:
        found: how many tokens are more probable than the one ranked, [...].
        probabilities: those of all tokens, [..., V].
        own: that of the token ranked, [...].
        near: the share by which probabilities may differ and still change places.
    """
    least, most = ((probabilities > own[..., np.newaxis] * factor).sum(-1) for factor in (1 + near, 1 - near))
    return bool(((least <= found) & (found < np.maximum(most, 1))).all())


def largest_error(found: np.ndarray, true: np.ndarray) -> float:
    """The largest difference; infinite where one is infinite or not a number, and the other is not the same."""
    with np.errstate(invalid="ignore"):
        same = (found == true) | (np.isnan(found) & np.isnan(true))
        errors = np.where(same, 0.0, np.abs(found - true))
    return float(np.where(np.isnan(errors), np.inf, errors).max(initial=0))


class Errors:
    """The largest errors of values over several passes, and those of the worst rounding of the reference.

    Args:
        ulps: how many float32 ulps of a value's largest magnitude are allowed beyond twice the reference's error. One,
            because where the reference happens to be exact (a lookup in a table), nothing can be better than that;
            more, where few values are compared, and the reference can be exact by luck.
    """

    def __init__(self, ulps: int = 1) -> None:
        self._allowed_ulps = ulps
        self._ours: dict[str, float] = {}
        self._references: dict[str, float] = {}
        self._ulps: dict[str, float] = {}

    def add(self, name: str, found: np.ndarray, true: np.ndarray, references: Iterable[np.ndarray]) -> None:
        """Measures one value.

        Args:
            name: what it is; the largest error over all values of a name is what counts.
            found: what is measured.
            true: the truth, of the same shape, in float64.
            references: the same value in float32, in several roundings.
        """
        assert found.shape == true.shape, name
        self._ours[name] = max(self._ours.get(name, 0.0), largest_error(found.astype(np.float64), true))
        worst = max(largest_error(reference.astype(np.float64), true) for reference in references)
        self._references[name] = max(self._references.get(name, 0.0), worst)
        self._ulps[name] = max(self._ulps.get(name, 0.0), float(np.spacing(np.float32(size_of(true)))))

    def add_pass(
        self,
        found: Mapping[str, np.ndarray],
        true: Mapping[str, np.ndarray],
        references: Iterable[Mapping[str, np.ndarray]],
        mask: np.ndarray,
        groups: Mapping[str, list[int]] | None = None,
    ) -> None:
        """Measures all hook points and logits of a pass.

        Args:
            found: values by name, [B, P, ...].
            true: the truth, in float64.
            references: the same pass in float32, in several roundings.
            mask: [B, P], 0 for padding, which is not compared.
            groups: rows whose errors are compared apart from those of the others, by what they are called; so that none
                hides behind the larger errors of another. None for all together.
        """
        references = list(references)
        assert {*found} == {*true} == {*references[0]}
        for name, value in true.items():
            for group, rows in ({"": list(range(len(mask)))} if groups is None else groups).items():
                key = f"{name} {group}".strip()
                apart = [real(name, values[name][rows], mask[rows]) for values in references]
                self.add(key, real(name, found[name][rows], mask[rows]), real(name, value[rows], mask[rows]), apart)

    def too_large(self) -> dict[str, str]:
        """The names whose error is more than twice that of the worst rounding of the reference."""
        return {
            name: f"{ours:.2e} where PyTorch has {self._references[name]:.2e}"
            for name, ours in self._ours.items()
            if not ours <= 2 * self._references[name] + self._allowed_ulps * self._ulps[name]
        }


def real(name: str, value: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The values at positions that are not padding; for attention, those of queries that are not."""
    by_position = value.swapaxes(1, 2) if name.endswith(("hook_attn_scores", "hook_pattern")) else value
    return by_position[mask == 1]
