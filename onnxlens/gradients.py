"""The gradient of a metric of the logits at hook points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.metrics import Metric, Token, TokenMetric, checked_gradient, checked_value
from onnxlens.runtime.activations import ActivationCache
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.hooks import NamesFilter

if TYPE_CHECKING:
    from onnxlens.runtime.runner import Runner
    from onnxlens.runtime.tokenizer import Tokenizer

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
    metric: TokenMetric,
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
        metric: what the gradient is of.
        names_filter: hook points at which the gradient is wanted.
        activations: hook points whose values are wanted.
        embeddings: [B, P, D] in place of `hook_embed`.
    """
    if not all(callable(getattr(metric, name, None)) for name in ("with_ids", "value", "gradient")):
        raise InputError(
            f"metric must be one of onnxlens.metrics, such as logit(' the'), or Metric(fn, grad), not {metric!r}."
        )
    gradients = runner.gradients  # first, because nothing of this works without that graph
    prepared = metric.with_ids(lambda token: _ids(token, tokenizer, runner.config.vocab_size, len(ids)))
    checked = isinstance(metric, Metric)  # by itself, already
    name = type(metric).__name__
    values: list[np.ndarray] = []

    def measured(logits: np.ndarray) -> None:
        value = prepared.value(logits, ids, mask)
        values.append(value if checked else checked_value(value, len(ids), f"{name}.value"))

    def cotangent(logits: np.ndarray) -> np.ndarray:
        measured(logits)
        gradient = prepared.gradient(logits, ids, mask)
        return gradient if checked else checked_gradient(gradient, logits.shape, f"{name}.gradient")

    output = gradients.run(
        ids,
        mask,
        cotangent=cotangent,
        names_filter=names_filter,
        activations=activations,
        embeddings=embeddings,
    )
    if not values:  # without a gradient to compute, nobody asked for the cotangent
        measured(output.logits)
    return GradientResult(
        value=values[0],
        logits=output.logits,
        gradients=ActivationCache(output.gradients, ids, mask, model=runner.bundle.name),
        activations=ActivationCache(output.activations, ids, mask, model=runner.bundle.name),
    )


def _ids(token: Token, tokenizer: Tokenizer, vocabulary: int, rows: int) -> np.ndarray:
    """The id of a token for each row, [B] int64."""
    if isinstance(token, str | int | np.integer):
        return np.full(rows, _id(token, tokenizer, vocabulary))
    try:
        each = list(token)
    except TypeError:
        raise InputError(f"A token is an id or a text, or one for each row, not {token!r}.") from None
    if len(each) != rows:
        raise InputError(f"The metric names {len(each)} tokens, one for each row, and there are {rows} rows.")
    return np.array([_id(one, tokenizer, vocabulary) for one in each], np.int64)


def _id(token: object, tokenizer: Tokenizer, vocabulary: int) -> int:
    if isinstance(token, str):
        ids = tokenizer.encode(token) if token else []
        if len(ids) != 1:
            parts = f" ({', '.join(map(repr, tokenizer.str_tokens(ids)))})" if ids else ""
            raise InputError(
                f"The metric's token {token!r} is {len(ids)} tokens{parts}, and must be exactly one; a leading space "
                "often makes the difference."
            )
        return ids[0]
    if not isinstance(token, int | np.integer) or isinstance(token, bool):
        raise InputError(f"A token is an id or a text, or one for each row, not {token!r}.")
    if not 0 <= token < vocabulary:
        raise InputError(f"Token id {token} is out of range: this model's ids are 0 to {vocabulary - 1}.")
    return int(token)
