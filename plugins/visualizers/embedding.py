"""`embedding`: the input of the first block: token embedding, and position embedding where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.base import Chart
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._running.logits import top_ids

__all__ = ["Embedding"]


@dataclass
class Embedding(Visualizer):
    """Token embedding plus position embedding, as stripes; norms, and the nearest tokens in embedding space."""

    position: Annotated[int, Option("the position of the token, negative from the end")] = -1
    nearest: Annotated[int, Option("the number of tokens with the most similar embeddings", ge=0, le=100)] = 8

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The embeddings."""
        return ("hook_*embed",)

    def draw(self, view: View) -> Stack:
        """Returns the vectors of one token as stripes, and the norms of all tokens."""
        at = self.position_option("position", len(view.ids))
        token = view.cache["hook_embed"]  # [P, D]
        parts = {"token": token}
        if "hook_pos_embed" in view.cache:
            place = view.cache["hook_pos_embed"]
            parts |= {"position": place, "sum": token + place}
        label = view.labels[at]
        stripes = Heatmap(
            f"token {at}, {label}: embedding" + (", position, and their sum" if len(parts) > 1 else ""),
            np.stack([one[at] for one in parts.values()]),  # [3, D]
            list(parts),
            [str(dimension) for dimension in range(token.shape[1])],
            unit="value",
            row_axis="embedding",
            column_axis="dimension",
        )
        norms = [np.linalg.norm(each.astype(np.float64), axis=-1) for each in parts.values()]
        rows = [
            [number, text, int(view.ids[number]), *(float(norm[number]) for norm in norms)]
            for number, text in enumerate(view.labels)
        ]
        charts: list[Chart] = [
            stripes,
            Table("Lengths", ["position", "token", "id", *(f"‖{name}‖" for name in parts)], rows),
        ]
        if self.nearest and view.lens is not None:
            charts.append(self._near(view, int(view.ids[at]), label))
        return Stack(f"{printable(view.model)}: embedding", charts)

    def _near(self, view: View, token: int, label: str) -> Table:
        """The tokens with the most similar embedding, by the cosine."""
        embeddings = view.model_lens.weights["W_E"]  # [V, D]
        own = embeddings[token].astype(np.float64)
        lengths = np.linalg.norm(embeddings, axis=-1) * np.linalg.norm(own)
        cosine = embeddings @ own / np.where(lengths > 0, lengths, 1.0)  # [V]
        cosine[token] = -np.inf
        order = top_ids(cosine, min(self.nearest, len(cosine) - 1)).tolist()
        rows = [[view.shown(one), one, float(cosine[one])] for one in order]
        return Table(f"Nearest to {label} in embedding space", ["token", "id", "cosine"], rows)
