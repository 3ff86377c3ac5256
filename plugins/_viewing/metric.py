"""The metric of sweeps, from the options of a visualizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxlens.plugins._viewing.visualizer import View

if TYPE_CHECKING:
    from onnxlens.metrics import TokenMetric

__all__ = ["FLOOR", "metric_of", "signs_of"]

FLOOR = 0.1  # nats or logits: the least end of the colour scale of effects


def metric_of(view: View, token: str | None, against: str | None) -> tuple[TokenMetric, str, tuple[str, str]]:
    """The metric, its name and the meaning of its signs: a log-probability, or a difference of two logits.

    Args:
        view: the text.
        token: the token's text; None for the most probable one.
        against: a token whose logit is subtracted, or None.

    Raises:
        InputError: a text is not one token.
    """
    from onnxlens import metrics

    lens = view.model_lens
    if token is None:
        chosen = int(np.argmax(lens.run(view.ids[np.newaxis], logits="last", keep_cache=False).logits[0, -1]))
    else:
        chosen = lens.runner.bundle.facts.token(token)
    if against is None:
        return (
            metrics.log_probability(chosen),
            f"log-probability (nats) of {view.shown(chosen)}",
            signs_of(view, chosen),
        )
    other = lens.runner.bundle.facts.token(against)
    unit = f"logit of {view.shown(chosen)} minus that of {view.shown(other)}"
    return metrics.logit_difference(chosen, other), unit, signs_of(view, chosen, other)


def signs_of(view: View, token: int, against: int | None = None) -> tuple[str, str]:
    """The meaning of numbers above and below zero in every view of an answer.

    Args:
        view: the text.
        token: the answer's id.
        against: the id of the token that it is compared with, or None.
    """
    answer = view.shown(token)
    return f"supports {answer}", f"opposes {answer}" if against is None else f"supports {view.shown(against)}"
