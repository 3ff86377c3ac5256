"""`surprisal`: how unexpected each token of a text is, and which tokens were expected instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.expected import expected
from onnxlens.plugins._viewing.visualizer import LOGITS, View, Visualizer
from onnxlens.plugins.charts.coloured import ColouredText
from onnxlens.plugins.charts.scale import NATS
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._running.logits import log_softmax

__all__ = ["Surprisal"]


@dataclass
class Surprisal(Visualizer):
    """The text coloured by surprisal, with the rank of each token and the tokens expected instead."""

    alternatives: Annotated[int, Option("how many of the most probable tokens to name", ge=1, le=20)] = 3

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The logits."""
        return (LOGITS,)

    def draw(self, view: View) -> ColouredText:
        """Returns the tokens with their surprisal; the first one has no prediction."""
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
