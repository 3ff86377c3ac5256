"""Attribution by gradients: the positions, heads and neurons to which a metric of the logits is due.

All three methods multiply a gradient with a difference of values, and add the products up along the axes `d_model` and
`d_head`: single coordinates of these have no meaning by themselves. The remaining axes are batch, position, head,
neuron, query and key.

Letters in shape comments: B batch, P position, D d_model, S steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxlens.metrics import TokenMetric
from onnxlens.runtime._bundle.selection import NamesFilter
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._result import Result
from onnxlens.runtime.errors import HookPointError, InputError, suggestion

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = [
    "Attribution",
    "IntegratedGradients",
    "PatchingAttribution",
    "attribution_patching",
    "gradient_times_input",
    "integrated_gradients",
]

_SUMMED = ("d_model", "d_head")
_EMBEDDING = "hook_embed"

Text = str | Sequence[int] | np.ndarray | Sequence[str]


class _NoScoresError(HookPointError, KeyError):
    """A KeyError too, so that `get` works as for every mapping."""

    __str__ = Exception.__str__  # KeyError's own puts the text in quotes


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution(Result, Mapping[str, np.ndarray]):
    """Scores by hook point name.

    Attributes:
        scores: for each hook point an array, float32.
        axes: for each hook point what the axes of its array count, as in the hook table, without those that were added
            up.
        value: the metric of each row, [B].
        tokens: the token ids that were run, [B, P].
        attention_mask: [B, P], 0 where a token is padding; scores there are 0.
    """

    scores: dict[str, np.ndarray]
    axes: dict[str, tuple[str, ...]]
    value: np.ndarray
    tokens: np.ndarray
    attention_mask: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.scores:
            near = suggestion(str(name), self.scores)
            raise _NoScoresError(f"There are no scores at {name!r}.{near} Name it in names_filter.")
        return self.scores[name]

    def __contains__(self, name: object) -> bool:
        return name in self.scores

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchingAttribution(Attribution):
    """What `attribution_patching` estimates.

    Attributes:
        value: the metric of each corrupted text, [B].
        clean_value: the metric of each clean text, [B].
        clean_tokens: the token ids of the clean texts, [B, P].
    """

    clean_value: np.ndarray
    clean_tokens: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegratedGradients(Result):
    """What each token of a text contributes to a metric, by `integrated_gradients`.

    Attributes:
        scores: [P] float64; their sum is `value - baseline_value + gap`.
        coordinates: [P, D] float64, the same before summing over d_model.
        axes: of `scores`: `("pos",)`.
        value: the metric of the text.
        baseline_value: the metric with the baseline in place of the token embeddings.
        steps: the number of points between the two at which the gradient was taken.
        tokens: the token ids, [P].
    """

    scores: np.ndarray
    coordinates: np.ndarray
    axes: tuple[str, ...]
    value: float
    baseline_value: float
    steps: int
    tokens: np.ndarray

    @property
    def gap(self) -> float:
        """The sum of the scores minus `value - baseline_value`: 0 for infinitely many steps (completeness)."""
        return float(self.scores.sum() - (self.value - self.baseline_value))


def gradient_times_input(
    lens: Lens, text: Text, metric: TokenMetric, *, names_filter: NamesFilter = _EMBEDDING
) -> Attribution:
    """The gradient of a metric at hook points, times their values.

    To first order, that is how much the metric would fall if a value were 0 (Shrikumar et al. 2016, "Not Just a Black
    Box: Learning Important Features Through Propagating Activation Differences").

    Args:
        lens: the model.
        text: a text, or its token ids, or several texts.
        metric: the metric to differentiate, see `onnxlens.metrics`.
        names_filter: hook points; the token embeddings if not given, which gives one score for each position.

    Raises:
        As `Lens.grad` does.
    """
    result = lens.grad(text, metric=metric, names_filter=names_filter, activations=True)
    scores = {name: _finite(value) * result.gradients[name] for name, value in result.activations.items()}
    return Attribution(
        scores={name: _added_up(lens, name, product) for name, product in scores.items()},
        axes={name: _axes_left(lens, name) for name in scores},
        value=result.value,
        tokens=result.gradients.tokens,
        attention_mask=result.gradients.attention_mask,
    )


def attribution_patching(
    lens: Lens, clean: Text, corrupted: Text, metric: TokenMetric, *, names_filter: NamesFilter = "*"
) -> PatchingAttribution:
    """Estimates the effect on a metric of patching each value of a clean run into a corrupted one.

    The estimate is (clean - corrupted) times the gradient at the corrupted run: activation patching to first order, for
    all values at once, from two forward passes and one backward pass (Nanda 2023, "Attribution Patching: Activation
    Patching At Industrial Scale").

    Args:
        lens: the model.
        clean: a text, or its token ids, or several texts.
        corrupted: as many texts, each with as many tokens as its clean one.
        metric: the metric, see `onnxlens.metrics`; tokens and positions are those of both runs.
        names_filter: hook points; all with a gradient if not given.

    Raises:
        InputError: the texts have different numbers of tokens.
        As `Lens.grad` does.
    """
    clean_run = lens.grad(clean, metric=metric, names_filter=None, activations=names_filter)
    corrupted_run = lens.grad(corrupted, metric=metric, names_filter=names_filter, activations=True)
    clean_mask, mask = clean_run.activations.attention_mask, corrupted_run.activations.attention_mask
    if not np.array_equal(clean_mask, mask):  # their shapes count, too
        counts = " and ".join(str(found.sum(axis=1).tolist()) for found in (clean_mask, mask))
        raise InputError(
            f"Clean and corrupted texts must have the same numbers of tokens, text by text; they have {counts}."
        )
    scores = {}
    for name, gradient in corrupted_run.gradients.items():
        difference = _finite(clean_run.activations[name]) - _finite(corrupted_run.activations[name])
        scores[name] = _added_up(lens, name, difference * gradient)
    return PatchingAttribution(
        scores=scores,
        axes={name: _axes_left(lens, name) for name in scores},
        value=corrupted_run.value,
        tokens=corrupted_run.gradients.tokens,
        attention_mask=mask,
        clean_value=clean_run.value,
        clean_tokens=clean_run.activations.tokens,
    )


def integrated_gradients(
    lens: Lens,
    text: str | Sequence[int] | np.ndarray,
    metric: TokenMetric,
    *,
    baseline: Literal["zeros", "mean"] | np.ndarray = "zeros",
    steps: int = 32,
    batch_size: int = 8,
) -> IntegratedGradients:
    """Integrates the gradient at the token embeddings from a baseline to the text's own.

    (x - x') times the integral over a in [0, 1] of the gradient at x' + a (x - x') (Sundararajan, Taly and Yan 2017,
    "Axiomatic Attribution for Deep Networks", equation 1). The integral is taken by Gauss-Legendre quadrature, which
    for a smooth function needs far fewer points than an even grid. Position embeddings stay as they are.

    Args:
        lens: the model.
        text: a text, or its token ids.
        metric: the metric to differentiate, see `onnxlens.metrics`.
        baseline: the embeddings of the baseline: `zeros`, `mean` (of all tokens' embeddings), or an array that
            broadcasts to [P, D].
        steps: the number of points at which the gradient is taken.
        batch_size: the number of points that are computed at once.

    Raises:
        InputError: there are several texts, or the value of an option cannot be used. As `Lens.grad` does.
    """
    for name, number in (("steps", steps), ("batch_size", batch_size)):
        if not is_integer(number) or number < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {number!r}.")
    own = lens.grad(text, metric=metric, names_filter=None, activations=_EMBEDDING)
    tokens, end = own.activations.tokens, own.activations[_EMBEDDING]
    if len(tokens) != 1:
        raise InputError(f"integrated_gradients takes one text at a time, not {len(tokens)}.")
    start = _baseline(lens, baseline, end.shape[1:])[np.newaxis]  # [1, P, D]
    at_start = lens.grad(tokens, metric=metric, names_filter=None, embeddings=start)
    points, weights = _quadrature(int(steps))
    total = np.zeros(end.shape[1:])  # [P, D]
    for first in range(0, len(points), batch_size):
        chosen = points[first : first + batch_size].astype(np.float32)
        path = start + chosen[:, None, None] * (end - start)  # [S, P, D]
        repeated = np.repeat(tokens, len(path), axis=0)  # [S, P]
        result = lens.grad(repeated, metric=metric, names_filter=_EMBEDDING, embeddings=path)
        total += np.tensordot(weights[first : first + batch_size], result.gradients[_EMBEDDING], axes=1)  # [P, D]
    coordinates = total * (end - start)[0]
    return IntegratedGradients(
        scores=coordinates.sum(-1),  # [P]
        coordinates=coordinates,
        axes=("pos",),
        value=float(own.value[0]),
        baseline_value=float(at_start.value[0]),
        steps=int(steps),
        tokens=tokens[0],
    )


def _quadrature(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of Gauss-Legendre quadrature on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (points + 1) / 2, weights / 2


def _baseline(lens: Lens, baseline: object, shape: tuple[int, ...]) -> np.ndarray:
    """The embeddings of the baseline, [P, D] float32."""
    if isinstance(baseline, str):
        if baseline not in ("zeros", "mean"):
            raise InputError(f"baseline must be 'zeros', 'mean' or an array, not {baseline!r}.")
        if baseline == "zeros":
            return np.zeros(shape, np.float32)
        baseline = lens.weights["W_E"].mean(axis=0, dtype=np.float64)  # [D]
    try:
        return np.broadcast_to(np.asarray(baseline, np.float32), shape)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"baseline must be 'zeros', 'mean' or numbers that broadcast to [positions, width] {list(shape)}: "
            f"{' '.join(str(error).split())}."
        ) from error


def _finite(values: np.ndarray) -> np.ndarray:
    """The values with 0 in place of -inf: masked attention scores, whose gradient is 0."""
    return np.where(np.isneginf(values), np.float32(0), values)


def _added_up(lens: Lens, name: str, product: np.ndarray) -> np.ndarray:
    axes = _axes(lens, name)
    total: np.ndarray = product.sum(axis=tuple(i for i, axis in enumerate(axes) if axis in _SUMMED))
    return total


def _axes_left(lens: Lens, name: str) -> tuple[str, ...]:
    return tuple(axis for axis in _axes(lens, name) if axis not in _SUMMED)


def _axes(lens: Lens, name: str) -> tuple[str, ...]:
    return next(point.axes for point in lens.hook_points if point.name == name)
