"""Ablation: what becomes of a metric without each of the attention heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxlens.analysis.sweeps import Text, one_text, sweep
from onnxlens.metrics import TokenMetric
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.interventions import Intervention

if TYPE_CHECKING:
    from onnxlens.lens import Lens

__all__ = ["HeadAblation", "ablate_heads"]

_Z = "blocks.{}.attn.hook_z"


@dataclass(frozen=True, kw_only=True)
class HeadAblation:
    """A metric without each head in turn.

    Attributes:
        values: the metric without the head, [layers, heads] float64.
        baseline: the metric with all heads.
        operation: what was put in place of the head's output.
        axes: of `values`.
        tokens: the text's token ids, [P].
    """

    values: np.ndarray
    baseline: float
    operation: str
    tokens: np.ndarray
    axes: tuple[str, ...] = ("layer", "head")

    @property
    def effects(self) -> np.ndarray:
        """By how much the metric changes without the head, [layers, heads]."""
        return self.values - self.baseline


def ablate_heads(
    lens: Lens,
    text: Text,
    metric: TokenMetric,
    *,
    operation: Literal["zero", "mean"] = "zero",
    reference: Text | list[str] | None = None,
) -> HeadAblation:
    """Replaces the output of each head (`hook_z`), one head at a time, at all positions.

    Args:
        lens: the model.
        text: a text, or its token ids.
        metric: what is measured; see `onnxlens.metrics`.
        operation: `zero`, or `mean` for the head's mean output, which leaves what a head does whatever it reads.
        reference: for `mean`, the texts over whose positions the mean is taken; None for the text itself.

    Raises:
        InputError: the text, metric or an option cannot be used.
    """
    if operation not in ("zero", "mean"):
        raise InputError(f"operation must be 'zero' or 'mean', not {operation!r}.")
    if reference is not None and operation != "mean":
        raise InputError("A reference is for operation='mean'; 'zero' needs none.")
    ids = one_text(lens, text, "ablate_heads")
    layers, heads = lens.config.n_layer, lens.config.n_head
    if operation == "mean":
        _, cache = lens.run_with_cache(ids if reference is None else reference, names_filter=_Z.format("*"))
        changes = [[Intervention.mean(_Z.format(n), cache, heads=head)] for n in range(layers) for head in range(heads)]
    else:
        changes = [[Intervention.zero(_Z.format(n), heads=head)] for n in range(layers) for head in range(heads)]
    values = sweep(lens, ids, [[], *changes], metric)
    return HeadAblation(
        values=values[1:].reshape(layers, heads), baseline=float(values[0]), operation=operation, tokens=ids[0]
    )
