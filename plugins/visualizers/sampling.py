"""`sampling`: why a token was chosen: what each sampler of a chain removed, and where the draw fell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins.charts.bars import Bars
from onnxlens.plugins.charts.base import Chart
from onnxlens.plugins.charts.lines import Lines
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table
from onnxlens.plugins.options import Option
from onnxlens.plugins.visualizers.base import View, Visualizer
from onnxlens.plugins.visualizers.expected import names_of
from onnxlens.plugins.visualizers.labels import printable
from onnxlens.runtime.config import ModelConfig

__all__ = ["Sampling"]

_ROOM = 60  # tokens along the cumulative distribution


@dataclass
class Sampling(Visualizer):
    """How the next token is chosen: the mass that each sampler removes, and the draw on the distribution left."""

    sampler: Annotated[str, Option("the chain of samplers, as text")] = "top_k=40 | top_p=0.95 | temperature=0.8"
    seed: Annotated[int, Option("of the draw", ge=0)] = 0

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """None: the explanation runs the model."""
        return ()

    def draw(self, view: View) -> Stack:
        """Returns the stages, the most probable candidates, and the cumulative distribution with the draw."""
        found = view.model_lens.explain_sampling(view.ids, sampler=self.sampler, seed=self.seed)
        chosen = view.shown(found.chosen.id)
        rows = [[one.sampler, one.tokens, one.removed_tokens, one.removed, one.moved] for one in found.stages]
        headings = ["sampler", "tokens left", "removed", "their probability", "probability moved"]
        candidates = {one.id: one for one in (*found.candidates, found.chosen)}
        names = dict(zip(candidates, names_of(view, list(candidates)), strict=True))
        charts: list[Chart] = [
            Table("What each sampler of the chain did", headings, rows),
            Bars(
                "The candidates, before and after",
                {
                    when: [(names[token], getattr(one, field)) for token, one in candidates.items()]
                    for when, field in (("left by the samplers", "probability"), ("by the model", "model_probability"))
                },
                unit="probability",
                axis="token",
                marked=[names[found.chosen.id]],
            ),
        ]
        if found.number is not None:
            charts.append(self._draw(view, found.probabilities, found.number, found.interval, chosen))
        how = f"by {found.choice}" if found.choice else "as the only one left"
        title = (
            f"{printable(view.model)}: {chosen} was chosen of {found.tokens:,} {how}, {self.sampler}, seed {self.seed}"
        )
        return Stack(printable(title), charts)

    def _draw(
        self, view: View, probabilities: np.ndarray, number: float, interval: tuple[float, float], chosen: str
    ) -> Lines:
        """The cumulative distribution in the order of ids, in which the draw is made."""
        left = np.flatnonzero(probabilities)
        cumulative = np.cumsum(probabilities[left])
        hit = int(np.searchsorted(cumulative, number, side="right"))
        # Too many to name: those around the draw.
        start = max(0, min(hit - _ROOM // 2, len(left) - _ROOM))
        window = slice(start, start + _ROOM)
        within = f"{interval[0]:.4f} to {interval[1]:.4f}"
        return Lines(
            f"The random number {number:.4f} fell on {chosen}, which has {within}",
            {"cumulative probability": cumulative[window]},
            [view.shown(token) for token in left[window].tolist()],
            unit="cumulative probability",
            axis="token, in the order of ids",
            level=(number, "the random number"),
        )
