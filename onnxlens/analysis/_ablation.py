"""Ablation: how a metric changes without each attention head, or each layer's MLP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxlens._measuring import of_row
from onnxlens.analysis._sweeps import HEADS, LAYERS, Text, Texts, heads_at, hooks, is_several, one_text, sweep
from onnxlens.metrics import AnyMetric
from onnxlens.runtime._interventions.interventions import Intervention
from onnxlens.runtime._result import Result
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["HeadAblation", "ablate_heads"]


@dataclass(frozen=True, kw_only=True)
class HeadAblation(Result):
    """A metric without each head, or the neurons of each layer, in turn.

    Attributes:
        values: the metric without the head, [layers, heads] float64, or [layers] for hook points without heads; the
            mean over several texts.
        baseline: the metric without ablation; the mean over several texts.
        each: the metric of each text, [texts, ...].
        baselines: the metric of each text without ablation, [texts].
        operation: `zero` or `mean`.
        hook: what was replaced.
        axes: of `values`.
        tokens: the text's token ids, [P]; of several texts a tuple of them.
    """

    values: np.ndarray
    baseline: float
    each: np.ndarray
    baselines: np.ndarray
    operation: str
    hook: str
    tokens: np.ndarray | tuple[np.ndarray, ...]
    axes: tuple[str, ...] = ("layer", "head")

    @property
    def effects(self) -> np.ndarray:
        """The change of the metric without each head, [layers, heads] or [layers]; the mean over several texts."""
        return self.values - self.baseline


def ablate_heads(
    lens: Lens,
    text: Text | Texts,
    metric: AnyMetric,
    *,
    hook: str = "z",
    operation: Literal["zero", "mean"] = "zero",
    reference: Text | list[str] | None = None,
    layers: Sequence[int] | None = None,
) -> HeadAblation:
    """Replaces the output of each head, one head at a time, at all positions.

    Args:
        lens: the model.
        text: a text, or its token ids; or several, of any lengths.
        metric: what is measured; see `onnxlens.metrics`. With several texts, it may name a token for each.
        hook: the hook point to replace, of each head: `z`, `result`, `q`, `k`, `v` or `pattern`, where `k` and `v` have
            a head for each group of heads that shares them; or, of each layer, `mlp.pre`, `mlp.post`, `attn_out` or
            `mlp_out`.
        operation: `zero`, or `mean` for the mean over positions, which keeps the part of a head's output that does not
            depend on the position.
        reference: for `mean`, the texts over whose positions the mean is taken; None for `text` itself, or for all
            texts together.
        layers: the layers to measure, in this order; None for all.

    Raises:
        InputError: the text, metric or an option cannot be used.
    """
    if operation not in ("zero", "mean"):
        raise InputError(f"operation must be 'zero' or 'mean', not {operation!r}.")
    if reference is not None and operation != "mean":
        raise InputError("A reference is for operation='mean'; 'zero' needs none.")
    names = hooks(lens, hook, HEADS + LAYERS, layers)
    texts: list[Any] = list(text) if is_several(text) else [text]
    rows = [one_text(lens, one, "ablate_heads") for one in texts]
    metrics = [of_row(metric, row, len(rows), lens.tokenizer, lens.config.d_vocab) for row in range(len(rows))]
    count = heads_at(lens, names[0])
    places: list[dict[str, Any]] = [{"heads": head} for head in range(count)] if hook in HEADS else [{}]
    if operation == "mean":
        read: Any = reference if reference is not None else text if is_several(text) else rows[0]
        _, cache = lens.run_with_cache(read, names_filter=names)
        changes = [[Intervention.mean(name, cache, **place)] for name in names for place in places]
    else:
        changes = [[Intervention.zero(name, **place)] for name in names for place in places]
    found = np.array([sweep(lens, ids, [[], *changes], one) for ids, one in zip(rows, metrics, strict=True)])
    shape = (len(names), len(places)) if hook in HEADS else (len(names),)
    each, baselines = found[:, 1:].reshape(-1, *shape), found[:, 0]  # [texts, ...], [texts]
    return HeadAblation(
        values=each.mean(axis=0),
        baseline=float(baselines.mean()),
        each=each,
        baselines=baselines,
        operation=operation,
        hook=hook,
        tokens=tuple(ids[0] for ids in rows) if is_several(text) else rows[0][0],
        axes=("layer", "head") if hook in HEADS else ("layer",),
    )
