"""`predictions`: the most probable next tokens at every position, over the full vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.expected import expected
from onnxlens.plugins._viewing.visualizer import LOGITS, View, Visualizer
from onnxlens.plugins._viewing.vocabulary import Ladder, NextTokens
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._running.logits import log_softmax, top_ids

__all__ = ["Predictions"]

_NAMED = 3  # tokens, at every position
_TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass
class Predictions(Visualizer):
    """The most probable next tokens at every position, and the effect of temperature at one of them."""

    top: Annotated[int, Option("how many tokens", ge=1, le=50)] = 10
    position: Annotated[int, Option("the position to show in detail, negative from the end")] = -1

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The logits."""
        return (LOGITS,)

    def draw(self, view: View) -> Stack:
        """Returns the top tokens of one position, a temperature ladder, and the best of all positions."""
        assert view.logits is not None
        at = self.position_option("position", len(view.ids))
        logs = log_softmax(view.logits)  # [P, V]
        row = view.logits[at].astype(np.float64)  # [V]
        best = top_ids(row, self.top).tolist()
        bars = NextTokens(
            f"After token {at}, {view.labels[at]}",
            view,
            {"": np.exp(logs[at])},
            best,
            unit="probability, of the full vocabulary",
            notes={token: f"id {token}, logit {row[token]:.3f}" for token in best},
        )

        def by_temperature(tokens: np.ndarray) -> np.ndarray:
            """Probabilities of tokens [T], [temperatures, T]."""
            return np.stack([np.exp(log_softmax((row / t)[np.newaxis]))[0, tokens] for t in _TEMPERATURES])

        temperatures = Ladder(
            "The same at other temperatures",
            view,
            [f"T = {t:g}" for t in _TEMPERATURES],
            by_temperature,
            best,
            unrestricted=_TEMPERATURES.index(1.0),
            row_axis="temperature",
            column_axis="next token",
        )
        entropy = -(np.exp(logs) * logs).sum(-1)  # [P]
        named = expected(view, view.logits, logs, _NAMED)
        rows = [
            [
                place,
                label,
                named[place],
                float(entropy[place]),
                float(np.exp(entropy[place])),
            ]
            for place, label in enumerate(view.labels)
        ]
        headings = ["position", "after", "most probable next tokens", "entropy, nats", "effective choices (e^entropy)"]
        title = f"{printable(view.model)}: predictions over all {view.logits.shape[1]:,} tokens"
        return Stack(title, [bars, temperatures, Table("Every position", headings, rows)])
