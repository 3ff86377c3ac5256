"""`logit_lens`: the model's predictions if it ended after each block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from onnxlens.plugins._drawing.labels import printable, quoted_token, told_apart
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.columns import Columns
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.scale import PROBABILITY
from onnxlens.runtime._bundle.config import ModelConfig

if TYPE_CHECKING:
    from rich.console import RenderableType

    from onnxlens.analysis import LogitLens as Found

__all__ = ["LogitLens", "table"]


@dataclass
class LogitLens(Visualizer):
    """The most probable next token after each block, with its probability, and the rank of the final prediction.

    nostalgebraist 2020, interpreting GPT: the logit lens.
    """

    watch: Annotated[list[str], Option("the text of a token whose probability to follow")] = field(default_factory=list)

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """None: the analysis of this name runs the model for each state of the stream."""
        return ()

    def draw(self, view: View) -> Heatmap:
        """Returns a map of layers and positions, each cell with its most probable token."""
        from onnxlens.analysis import logit_lens

        found = logit_lens(view.model_lens, view.ids, top=1, watch=list(dict.fromkeys(self.watch)))
        best = "probability of the most probable"
        panels = {best: found.probabilities[:, :, 0], "probability of the final prediction": found.probability}
        ranks = [found.rank]
        for place, token in enumerate(found.watched):
            panels[f"probability of {view.shown(token)}"] = found.watched_probability[:, :, place]
            ranks.append(found.watched_rank[:, :, place])
        notes = {
            name: [[f"#{one}" for one in row] for row in rank.tolist()]
            for name, rank in zip(list(panels)[1:], ranks, strict=True)
        }
        final = [view.shown(token) for token in found.ids[-1, :, 0].tolist()]
        notes[best] = [[view.shown(token) for token in row] for row in found.ids[:, :, 0].tolist()]
        return _States(
            found,
            view,
            f"{printable(view.model)}: logit lens, the prediction if the model ended there",
            panels,
            found.labels,
            view.labels,
            unit="probability; # is the rank, 0 the first",
            row_axis="state",
            column_axis="token",
            limits=PROBABILITY,
            notes=notes,
            subjects={best: notes[best], "probability of the final prediction": [final] * len(found.labels)},
        )


class _States(Heatmap):
    """The map, which is the table of `onnxlens analyze logit-lens` in a terminal."""

    def __init__(self, found: Found, view: View, *shown: Any, **how: Any) -> None:
        self._found, self._view = found, view
        super().__init__(*shown, **how)

    def text(self) -> RenderableType:
        """A row for each token, with the prediction from each state, and the rank of the watched tokens."""
        from rich.console import Group
        from rich.text import Text

        watched = [self._view.piece(token) for token in self._found.watched]
        return Group(Text(self.title), "", table(self._found, self._view.pieces, self._view.piece, watched))


def table(found: Found, pieces: Sequence[str], piece: Callable[[int], str], watched: Sequence[str]) -> Columns:
    """The predictions from each state of the stream, as a table with a row for each token.

    Args:
        found: the result of the analysis.
        pieces: the texts of the tokens, P.
        piece: returns the text of a token by its id.
        watched: the texts of the watched tokens.
    """

    def rows(cut: Callable[[str], str]) -> list[list[str]]:
        made = []
        names = told_apart([quoted_token(one) for one in pieces])
        for position, name in enumerate(names):
            cells = []
            for state in range(len(found.labels)):
                best = zip(found.ids[state, position].tolist(), found.probabilities[state, position], strict=True)
                ranks = zip(watched, found.watched_rank[state, position].tolist(), strict=True)
                lines = [f"{cut(quoted_token(piece(token)))} {p:.0%}" for token, p in best]
                cells.append("\n".join(lines + [f"#{rank} {cut(quoted_token(token))}" for token, rank in ranks]))
            made.append([cut(name), *cells])
        return made

    return Columns(["token", *found.labels], rows)
