"""The gradient of a metric of the logits at hook points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxlens._measuring import Measure
from onnxlens.metrics import AnyMetric
from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._bundle.selection import NamesFilter

if TYPE_CHECKING:
    from onnxlens.runtime._running.runner import Runner
    from onnxlens.runtime._text.tokenizer import Tokenizer

__all__ = ["GradientResult", "differentiate"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientResult:
    """What `Lens.grad` computed.

    Attributes:
        value: the metric of each row, [B] float64.
        logits: [B, P, V] float32, from which the metric was computed.
        gradients: by hook point name the gradient of each row's metric, in the hook point's shape.
        activations: the values of the hook points that were asked for, from the same pass.
    """

    value: np.ndarray
    logits: np.ndarray
    gradients: ActivationCache
    activations: ActivationCache

    def __repr__(self) -> str:
        values = ", ".join(f"{number:.4f}" for number in self.value[:4])
        more = ", ..." if len(self.value) > 4 else ""
        return f"GradientResult(value [{values}{more}], gradients at {len(self.gradients)} hook points)"


def differentiate(
    runner: Runner,
    tokenizer: Tokenizer,
    ids: np.ndarray,
    mask: np.ndarray,
    metric: AnyMetric,
    *,
    names_filter: NamesFilter | None,
    activations: NamesFilter | None,
    embeddings: np.ndarray | None = None,
) -> GradientResult:
    """Runs a batch and differentiates a metric of its logits; `Lens.grad` says what the arguments are.

    Args:
        runner: the model.
        tokenizer: turns tokens that the metric names by text into ids.
        ids: [B, P] int64.
        mask: [B, P], 0 where a token is padding.
        metric: the metric to differentiate.
        names_filter: hook points at which the gradient is wanted.
        activations: hook points whose values are wanted.
        embeddings: [B, P, D] in place of `hook_embed`.
    """
    gradients = runner.gradients  # first, since nothing here works without that graph
    has_gradient = names_filter is not None
    measure = Measure(metric, tokenizer, runner.config.d_vocab, len(ids), has_gradient=has_gradient)
    values: list[np.ndarray] = []

    def cotangent(logits: np.ndarray) -> np.ndarray:
        values.append(measure.value(logits, ids, mask))
        return measure.gradient(logits, ids, mask)

    output = gradients.run(
        ids,
        mask,
        cotangent=cotangent,
        names_filter=names_filter,
        activations=activations,
        embeddings=embeddings,
    )
    if not values:  # without a gradient to compute, the cotangent was not requested
        values.append(measure.value(output.logits, ids, mask))
    return GradientResult(
        value=values[0],
        logits=output.logits,
        gradients=ActivationCache(output.gradients, ids, mask, facts=runner.bundle.facts),
        activations=ActivationCache(output.activations, ids, mask, facts=runner.bundle.facts),
    )
