"""`flow`: the whole model as one picture, with the values for a text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.plugins._drawing.labels import printable, short
from onnxlens.plugins._drawing.page import Part
from onnxlens.plugins._viewing.visualizer import LOGITS, View, Visualizer
from onnxlens.plugins.charts.base import Chart, head
from onnxlens.plugins.charts.scale import AMOUNT, NO_SIGN, SIGNED
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.hooks import sizes
from onnxlens.runtime._running.logits import log_softmax, top_ids

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase
    from rich.console import RenderableType

__all__ = ["Flow"]

# The parts of a block that are shown, from left to right along the residual stream.
_SEEN = ("resid_pre", "pattern", "attn_out", "resid_mid", "post", "mlp_out", "resid_post")
_NAMES = {
    "resid_pre": "stream",
    "pattern": "attention, mean of heads",
    "attn_out": "+ attention",
    "resid_mid": "stream",
    "post": "neurons",
    "mlp_out": "+ MLP",
    "resid_post": "stream",
}

_LENGTH = "mean length over the tokens"


@dataclass
class Flow(Visualizer):
    """The whole model as one picture: the values of each part for a text, its size and its cost."""

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """The stream, attention and neurons of all blocks, and the logits."""
        stream = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
        inside = ("attn.hook_pattern", "mlp.hook_post")
        return ("hook_*embed", *(f"blocks.*.{name}" for name in (*stream, *inside)), LOGITS)

    def draw(self, view: View) -> Stack:
        """Returns the picture, and a table of the parts."""
        return Stack(f"{printable(view.model)}: from tokens to a prediction", [_Picture(view), _parts(view)])


class _Picture(Chart):
    """A row of maps for each block, with the paths between them."""

    def __init__(self, view: View) -> None:
        self.title = (
            "The values, from top to bottom and left to right: one row for each token, each map with its own scale, "
            "red above 0 "
            "and blue below, darkest for the largest hundredth; cells that share a pixel show the number furthest from "
            "0"
        )
        self._view = view

    def size(self) -> tuple[float, float]:
        """Width and height of the picture in inches."""
        return 12.0, 1.3 * (self._view.config.n_layers + 2) + 0.5

    def draw_on(self, figure: FigureBase) -> None:
        """Draws the maps."""
        view, layers = self._view, self._view.config.n_layers
        head(figure, self.title, self.size()[0])
        grid = figure.subplots(layers + 2, len(_SEEN), squeeze=False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
        for axes in (*grid[0, 3:], *grid[-1, 2:]):
            axes.set_axis_off()
        token = view.cache["hook_embed"]
        first = [(token, "token embedding")]
        if "hook_pos_embed" in view.cache:
            place = view.cache["hook_pos_embed"]
            first += [(place, "+ position"), (token + place, "stream")]
        for column, (values, name) in enumerate(first):
            _map(grid[0, column], values, name)
        for left, right in itertools.pairwise(grid[0, : len(first)]):
            _arrow(left, right)
        for axes in grid[0, len(first) : 3]:
            axes.set_axis_off()
        for layer in range(layers):
            row = grid[layer + 1]
            for axes, name in zip(row, _SEEN, strict=True):
                values = view.cache[name, layer]
                _map(axes, values.mean(axis=0) if name == "pattern" else values, _NAMES[name])
            row[0].set_ylabel(f"block {layer}", fontsize=8)
            for left, right in itertools.pairwise(row):
                _arrow(left, right)
            _arrow(row[0], row[3], bend=-0.03)  # the residual connection, past the part
            _arrow(row[3], row[6], bend=-0.03)
        self._predict(grid[-1, 0], grid[-1, 1])

    def part(self) -> Part:
        """The picture as SVG."""
        import re

        text = self.encoded("svg").decode()
        return re.sub(r"^.*?<svg", "<svg", text, count=1, flags=re.S)

    def data(self) -> Any:
        """The mean length over the tokens for each map."""
        return {"title": self.title, "unit": _LENGTH, "lengths": self._lengths()}

    def text(self) -> RenderableType:
        """The mean lengths along the stream."""
        lengths = self._lengths()
        rows = [[layer, *values] for layer, values in enumerate(zip(*lengths.values(), strict=True))]
        return Table(f"{self.title}; {_LENGTH}", ["block", *lengths], rows).text()

    def _lengths(self) -> dict[str, list[float]]:
        view = self._view
        return {
            name: [
                float(np.linalg.norm(view.cache[name, layer], axis=-1).mean()) for layer in range(view.config.n_layers)
            ]
            for name in _SEEN
            if name != "pattern"
        }

    def _predict(self, stream: Axes, axes: Axes) -> None:
        """The last position's prediction."""
        view = self._view
        assert view.logits is not None
        _map(stream, view.logits[:, top_ids(view.logits[-1], 64)], "the 64 largest logits")
        probabilities = np.exp(log_softmax(view.logits[-1:]))[0]
        best = top_ids(probabilities, 5)
        axes.barh(np.arange(len(best)), probabilities[best], color=NO_SIGN, alpha=0.6)
        for place, token in enumerate(best.tolist()):
            name = f"{short(view.shown(token), 12)} {probabilities[token]:.1%}"
            axes.text(0.03, place, name, fontsize=7, va="center", parse_math=False)
        axes.set_xlim(0, 1)
        axes.invert_yaxis()
        axes.set_title("next token", fontsize=7)
        _arrow(stream, axes)


def _map(axes: Axes, values: np.ndarray, name: str) -> None:
    from matplotlib import colormaps

    from onnxlens.plugins.charts.pooled import show

    most = float(np.quantile(np.abs(values), 0.99)) or 1.0  # a few dimensions are far larger than all others
    least = -most if (values < 0).any() else 0.0
    colours = colormaps[SIGNED if least < 0 else AMOUNT]
    show(axes, values, colours=colours, limits=(least, most), aspect="auto")
    axes.set_title(f"{name}  {' x '.join(map(str, values.shape))}", fontsize=6, parse_math=False)


def _arrow(left: Axes, right: Axes, bend: float = 0.0) -> None:
    from matplotlib.patches import ConnectionPatch

    start, end = ((0.5, 0.0), (0.5, 0.0)) if bend else ((1.0, 0.5), (0.0, 0.5))
    arrow = ConnectionPatch(
        start, end, "axes fraction", "axes fraction", axesA=left, axesB=right, arrowstyle="->", color="#555555"
    )
    if bend:
        arrow.set_connectionstyle("arc3", rad=-bend)
    right.figure.add_artist(arrow)


def _sizes(view: View, part: str) -> tuple[int, int]:
    """The number of parameters of a part, and of those in matrices."""
    lengths = sizes(view.config)
    counts = {
        name.removeprefix(part): math.prod(lengths[axis] for axis in weight.axes)
        for name, weight in view.description.weights.items()
        if name.startswith(part) and weight.tensor is not None
    }
    return sum(counts.values()), sum(size for name, size in counts.items() if name.startswith("W_"))


def _parts(view: View) -> Table:
    """Every part with its shape, its parameters, and its cost for this text."""
    config, count = view.config, len(view.ids)
    width, heads, inner, vocabulary = config.d_model, config.n_heads, config.d_mlp, config.d_vocab
    keys, norms = config.key_value_heads, 2 * config.n_layers + 1
    # A multiplication and an addition for each weight and token, and those of scores and weighted sums.
    looked = 2 * 2 * count * count * heads * config.d_head
    rows: list[list[str | int | float | None]] = [
        ["token embedding", f"{vocabulary} x {width}", vocabulary * width, 0.0],
    ]
    if config.positional_embedding_type == "standard":
        rows.append(["position embedding", f"{config.n_ctx} x {width}", config.n_ctx * width, 0.0])
    shared = "" if keys == heads else f", {keys} for keys and values"
    for layer in range(config.n_layers):
        attention, projections = _sizes(view, f"blocks.{layer}.attn.")
        mlp, matrices = _sizes(view, f"blocks.{layer}.mlp.")
        flops = 2 * count * projections + looked
        size = f"{heads} heads of {config.d_head}{shared}"
        rows.append([f"block {layer} attention", size, attention, flops / 1e6])
        rows.append([f"block {layer} MLP", f"{inner} neurons", mlp, 2 * count * matrices / 1e6])
    centres = config.normalization_type == "LN"
    kind = f"{norms} {'layer' if centres else 'RMS'} normalisations"
    rows.append([kind, f"{width}", (2 if centres else 1) * norms * width, None])
    is_tied = view.config.tie_word_embeddings
    rows.append(
        [
            "unembedding (the token embedding)" if is_tied else "unembedding",
            f"{width} x {vocabulary}",
            0 if is_tied else vocabulary * width,
            2 * count * width * vocabulary / 1e6,
        ]
    )
    parameters, operations = (sum(row[place] or 0 for row in rows) for place in (2, 3))  # type: ignore[misc]
    rows.append(["all", "", parameters, operations])
    return Table(f"The parts, and their cost for {count} tokens", ["part", "size", "parameters", "MFLOP"], rows)
