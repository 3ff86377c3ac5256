"""What sweeps measure, as options of a visualizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxlens.plugins.visualizers.base import View

if TYPE_CHECKING:
    from onnxlens.metrics import TokenMetric

__all__ = ["metric_of"]


def metric_of(view: View, token: str | None, against: str | None) -> tuple[TokenMetric, str]:
    """The log-probability of the next token, or a difference of two logits; and what it is called.

    Args:
        view: the text.
        token: the token's text; None for the most probable one.
        against: a token whose logit is subtracted, or None.

    Raises:
        InputError: a text is no single token.
    """
    from onnxlens import metrics

    lens = view.model_lens
    if token is None:
        chosen = int(np.argmax(lens.run(view.ids[np.newaxis], logits="last", keep_cache=False).logits[0, -1]))
    else:
        chosen = lens.runner.bundle.facts.token(token)
    if against is None:
        return metrics.log_probability(chosen), f"log-probability (nats) of {view.shown(chosen)}"
    other = lens.runner.bundle.facts.token(against)
    return metrics.logit_difference(chosen, other), f"logit of {view.shown(chosen)} less that of {view.shown(other)}"
