"""`surprisal`: how unexpected each token of a text is, and what was expected in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins.charts.coloured import ColouredText
from onnxlens.plugins.charts.scale import NATS
from onnxlens.plugins.drawing.labels import printable
from onnxlens.plugins.options import Option
from onnxlens.plugins.viewing.expected import expected
from onnxlens.plugins.viewing.visualizer import LOGITS, View, Visualizer
from onnxlens.runtime.bundle.config import ModelConfig
from onnxlens.runtime.running.logits import log_softmax

__all__ = ["Surprisal"]


@dataclass
class Surprisal(Visualizer):
    """The text coloured by surprisal, with rank and what the model expected in place of each token."""

    alternatives: Annotated[int, Option("how many of the most probable tokens to name", ge=1, le=20)] = 3

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The logits."""
        return (LOGITS,)

    def draw(self, view: View) -> ColouredText:
        """Returns the tokens on their surprisal; the first is predicted by nothing."""
        assert view.logits is not None
        logits = view.logits[:-1]  # [P - 1, V]
        logs = log_softmax(logits)
        following = view.ids[1:, np.newaxis]  # [P - 1, 1]
        own = np.take_along_axis(logits, following, axis=-1)
        ranks = (logits > own).sum(-1).tolist()
        named = expected(view, logits, logs, self.alternatives)
        values = -np.take_along_axis(logs, following, axis=-1)[:, 0]
        loss = f"; mean {values.mean():.3f}, perplexity {np.exp(values.mean()):.2f}" if len(values) else ""
        return ColouredText(
            f"{printable(view.model)}: surprisal{loss}",
            view.pieces,
            [np.nan, *values],
            unit="surprisal in nats",
            details={"rank": [None, *ranks], "expected": [None, *named]},
            limits=NATS,
            of_tokens=True,
        )
