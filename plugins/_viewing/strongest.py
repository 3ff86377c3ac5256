"""The default block or head of a view: the one with the largest effect on the prediction, and why it was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxlens.plugins._viewing.visualizer import View

if TYPE_CHECKING:
    from onnxlens.runtime._activations.cache import ActivationCache

__all__ = ["read_again", "strongest_block", "strongest_head"]


def strongest_head(
    view: View, layer: int | None = None, head: int | None = None, *, position: int = -1
) -> tuple[int, int, str]:
    """The head that changes the logit of the most probable token most, by direct logit attribution.

    Args:
        view: the text.
        layer: only heads of this block; None for all.
        head: only heads with this index; None for all.
        position: the position that predicts.

    Returns:
        The block, the head, and a clause that says why they were chosen, to follow their names; empty if both were
        given.
    """
    if layer is not None and head is not None:
        return layer, head, ""
    from onnxlens.analysis import attribute_logit

    found = attribute_logit(view.model_lens, view.ids, position=position)
    sizes = np.full(found.heads.shape, -1.0)  # [L, H]
    where = slice(layer, None if layer is None else layer + 1), slice(head, None if head is None else head + 1)
    sizes[where] = np.abs(found.heads[where])
    best, which = (int(one) for one in np.unravel_index(sizes.argmax(), sizes.shape))
    among = f"heads of block {layer}" if layer is not None else "heads" if head is None else f"heads {head}"
    return best, which, _because(view, among, found.token, float(found.heads[best, which]))


def strongest_block(view: View, part: Literal["attention", "MLP"]) -> tuple[int, str]:
    """The block whose attention or MLP changes the logit of the most probable token most.

    Args:
        view: the text.
        part: `attn` or `mlp`.

    Returns:
        The block, and a clause that says why it was chosen, to follow its name.
    """
    from onnxlens.analysis import attribute_logit

    found = attribute_logit(view.model_lens, view.ids)
    values = found.heads.sum(-1) if part == "attention" else found.mlps  # [L]
    best = int(np.abs(values).argmax())
    return best, _because(view, f"blocks' {part}", found.token, float(values[best]))


def read_again(view: View, names: Sequence[str]) -> ActivationCache:
    """Activations of the text at hook points that depend on an earlier run, without a batch axis."""
    _, cache = view.model_lens.run_with_cache(view.ids[np.newaxis], names_filter=list(names))
    cache.remove_batch_dim()
    return cache


def _because(view: View, what: str, token: int, change: float) -> str:
    return f", which of all {what} changes the logit of {view.shown(token)} most, by {change:+.2f}"
