"""`attribution`: the parts of a prediction: embeddings, heads, MLPs, and input tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.metric import FLOOR, signs_of
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.bars import Bars
from onnxlens.plugins.charts.base import Chart
from onnxlens.plugins.charts.coloured import ColouredText
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.stack import Stack
from onnxlens.runtime._bundle.config import ModelConfig

__all__ = ["Attribution"]


@dataclass
class Attribution(Visualizer):
    """The parts of a logit: embeddings, heads, MLPs; and gradient times input of each token.

    Direct logit attribution: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
    """

    token: Annotated[str | None, Option("the token, as text; the most probable one if left out")] = None
    against: Annotated[str | None, Option("a token whose logit is subtracted")] = None
    position: Annotated[int, Option("the position after which it is predicted, negative from the end")] = -1

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """None: the analyses run the model."""
        return ()

    def draw(self, view: View) -> Stack:
        """Returns a waterfall of the parts, a map of the heads, and the text by gradient times input."""
        from onnxlens.analysis import attribute_logit

        lens, at = view.model_lens, self.position_option("position", len(view.ids))
        found = attribute_logit(lens, view.ids, self.token, self.against, position=at)
        named = view.shown(found.token)
        what = f"logit of {named}" + ("" if found.against is None else f" minus that of {view.shown(found.against)}")
        parts = [("token embedding", found.embed)]
        if view.config.positional_embedding_type == "standard":
            parts.append(("position embedding", found.pos_embed))
        for layer, heads in enumerate(found.heads):
            parts += [
                (f"block {layer} attention", float(heads.sum())),
                (f"block {layer} MLP", float(found.mlps[layer])),
            ]
        parts.append(("biases", found.biases))
        if found.change:
            parts.append(("changes of the stream", found.change))
        has_tokens = lens.runner.bundle.has_gradients and not lens.is_changed
        scores = self._by_token(view, found.token, found.against, at) if has_tokens else np.zeros(0)
        largest = max(float(np.abs(found.heads).max()), float(np.abs(scores).max(initial=0.0)), FLOOR)
        signs = signs_of(view, found.token, found.against)
        how: dict[str, Any] = {"limits": (-largest, largest), "signs": signs}  # one scale of colours for both
        charts: list[Chart] = [
            Bars(
                f"The parts of the {what}, {found.logit:.3f}",
                parts,
                unit=what,
                axis="part",
                cumulative=True,
                signs=signs,
            ),
            Heatmap(
                f"What each head adds to the {what}",
                found.heads,
                [f"block {layer}" for layer in range(view.config.n_layers)],
                [f"head {head}" for head in range(view.config.n_heads)],
                unit=what,
                row_axis="block",
                column_axis="head",
                **how,
            ),
        ]
        if has_tokens:
            title = f"What each token adds to the {what}, to first order: gradient times input"
            charts.append(ColouredText(title, view.pieces, scores, unit=what, **how))
        question = f"why {named}?" if found.against is None else f"why {named} rather than {view.shown(found.against)}?"
        kind = "logit" if found.against is None else "logit difference"
        return Stack(f"{printable(view.model)}: {question} ({kind} after token {at}, by component)", charts)

    def _by_token(self, view: View, token: int, against: int | None, at: int) -> np.ndarray:
        from onnxlens import metrics
        from onnxlens.analysis import gradient_times_input

        metric = metrics.logit(token, at) if against is None else metrics.logit_difference(token, against, at)
        scores: np.ndarray = gradient_times_input(view.model_lens, view.ids, metric)["hook_embed"][0]  # [P]
        return scores
