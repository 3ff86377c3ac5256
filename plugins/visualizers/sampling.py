"""`sampling`: why a token was chosen: the effect of each sampler of a chain, and where the draw fell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._viewing.expected import names_of
from onnxlens.plugins._viewing.sampled import Sampled, described
from onnxlens.plugins._viewing.visualizer import View
from onnxlens.plugins._viewing.vocabulary import NextTokens
from onnxlens.plugins.charts.bars import Bars
from onnxlens.plugins.charts.base import Chart
from onnxlens.plugins.charts.scale import PROBABILITY
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._running.logits import log_softmax

__all__ = ["Sampling"]

_ROOM = 40  # tokens along the cumulative distribution


@dataclass
class Sampling(Sampled):
    """How the next token is chosen: the probability that each sampler removes, and the draw from the rest."""

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """None: the explanation runs the model."""
        return ()

    def draw(self, view: View) -> Stack:
        """Returns the stages, the most probable candidates, and the cumulative distribution with the draw."""
        sampling = self.sampling
        found = view.model_lens.explain_sampling(view.ids, **sampling)
        chosen = view.shown(found.chosen.id)
        rows = [[one.sampler, one.tokens, one.removed_tokens, one.removed, one.moved] for one in found.stages]
        headings = ["sampler", "tokens left", "removed", "their probability", "probability moved"]
        shown = list(dict.fromkeys(one.id for one in (*found.candidates, found.chosen)))
        logits = view.model_lens.run(view.ids[np.newaxis], logits="last", keep_cache=False).logits[0]  # [1, V]
        charts: list[Chart] = [
            Table("The effect of each sampler of the chain", headings, rows),
            NextTokens(
                "The candidates, before and after",
                view,
                {"left by the samplers": found.probabilities, "by the model": np.exp(log_softmax(logits))[0]},
                shown,
                unit="probability",
                marked=[found.chosen.id],
                together=True,
            ),
        ]
        if found.number is not None:
            charts.append(self._draw(view, found.probabilities, found.number, found.interval, found.chosen.id))
        how = f"by {found.choice}" if found.choice else "as the only token left"
        title = f"{printable(view.model)}: {chosen} was chosen of {found.tokens:,} {how}, {described(sampling)}"
        return Stack(printable(title), charts)

    def _draw(
        self, view: View, probabilities: np.ndarray, number: float, interval: tuple[float, float], chosen: int
    ) -> Bars:
        """The tokens along the cumulative distribution, in the order of ids."""
        left = np.flatnonzero(probabilities)
        cumulative = np.cumsum(probabilities[left])
        hit = int(np.searchsorted(left, chosen))
        # If there are too many to name, those around the draw.
        first = max(0, min(hit - _ROOM // 2, len(left) - _ROOM))
        tokens = left[first : first + _ROOM].tolist()
        names = names_of(view, tokens)
        return Bars(
            f"The random number {number:.4f} fell on {view.shown(chosen)}, which has {interval[0]:.4f} to "
            f"{interval[1]:.4f}: each token has a part of the line as long as its probability",
            list(zip(names, probabilities[tokens].tolist(), strict=True)),
            unit="cumulative probability",
            axis="token, in the order of ids",
            cumulative=True,
            start=float(cumulative[first - 1]) if first else 0.0,
            limits=PROBABILITY,
            marked=[names[hit - first]],
            level=(number, "the random number"),
        )
