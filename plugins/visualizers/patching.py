"""`patching`: the values of a text that restore its prediction when they are put into another text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from onnxlens.plugins._drawing.labels import printable, visible
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.metric import FLOOR, metric_of
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime.errors import InputError

__all__ = ["Patching"]

_ALONE, _PARTS = 32, 10
_SIGNS = "restores the clean prediction", "moves away from it"


@dataclass
class Patching(Visualizer):
    """How much of a prediction each value of the text restores in a corrupted text."""

    corrupted: Annotated[str, Option("the corrupted text, of equally many tokens")]
    hook: Annotated[
        Literal[
            "resid_pre",
            "resid_mid",
            "resid_post",
            "attn_out",
            "mlp_out",
            "mlp.pre",
            "mlp.post",
            "q",
            "k",
            "v",
            "z",
            "result",
            "pattern",
        ],
        Option("the values to patch: of each block and position, or of each head"),
    ] = "resid_pre"
    token: Annotated[str | None, Option("the predicted token, as text; the most probable one if left out")] = None
    against: Annotated[
        str | None, Option("a token whose logit is subtracted; if left out, the log-probability is measured")
    ] = None
    span: Annotated[
        int | None,
        Option(
            f"how many neighbouring tokens to patch together; if left out, 1 for up to {_ALONE} tokens, and a "
            f"{_PARTS}th of a longer text",
            ge=1,
        ),
    ] = None

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """None: the sweep runs the model."""
        return ()

    def draw(self, view: View) -> Heatmap:
        """Returns the share that each patch restores."""
        from onnxlens.analysis._patching import STREAM, patch_activations

        lens = view.model_lens
        metric, what, signs = metric_of(view, self.token, self.against)
        other = lens.to_tokens(self.corrupted)
        if other.shape[1] != len(view.ids):
            raise InputError(
                f"corrupted must have as many tokens as the text, {len(view.ids)}, and has {other.shape[1]}; 'onnxlens "
                "view tokens' shows how a text is cut."
            )
        length = len(view.ids)
        is_stream = self.hook in STREAM
        span = self.span or (math.ceil(length / _PARTS) if is_stream and length > _ALONE else 1)
        found = patch_activations(lens, view.ids, other[0], metric, hook=self.hook, span=span)
        if is_stream:
            pairs = zip(view.labels, lens.to_str_tokens(other), strict=True)
            labels = [one if one == visible(two) else f"{one}/{visible(two)}" for one, two in pairs]
            columns = found.joined(labels)
        else:
            columns = [f"head {head}" for head in range(found.values.shape[-1])]
        difference = found.clean - found.corrupted
        which = f"{found.corrupted:.4g} corrupted, {found.clean:.4g} clean"
        if 0 < abs(difference) < FLOOR:
            # Shares of a tiny difference would be noise of any size.
            values, title = found.values - found.corrupted, f"change of the {what} that {self.hook} makes: {which}"
            title += f", a difference of {difference:.2g}, too small for shares"
            how: dict[str, Any] = {"unit": f"change of the {what}", "floor": FLOOR, "signs": signs}
        else:
            values, title = found.recovered, f"share of the {what} that {self.hook} restores: {which}"
            how = {"unit": "share restored, 0 for nothing, 1 for all", "floor": 1.0, "signs": _SIGNS}
        return Heatmap(
            f"{printable(view.model)}: {title}",
            values,
            [f"block {layer}" for layer in range(view.config.n_layers)],
            columns,
            row_axis="block",
            column_axis="head" if not is_stream else "token" if span == 1 else f"{span} tokens together",
            **how,
        )
