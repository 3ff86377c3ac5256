"""`compare`: another visualizer for two texts, two models, or with and without interventions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

from onnxlens.plugins._drawing.labels import printable
from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.plugins.charts.base import Chart
from onnxlens.plugins.charts.stack import Stack
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["Compare"]


@dataclass
class Compare(Visualizer):
    """Another visualizer twice, and the difference: for another text, another model, or with interventions."""

    of: Annotated[str, Option("the visualizer")] = "predictions"
    options: Annotated[dict[str, Any], Option("its options, as JSON")] = field(default_factory=dict)
    other_text: Annotated[str | None, Option("another text")] = None
    other_model: Annotated[str | None, Option("another model")] = None
    interventions: Annotated[str | None, Option("a file of interventions; see the option --intervene of predict")] = (
        None
    )

    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """None: the other visualizer names its own."""
        return ()

    def draw(self, view: View) -> Stack:
        """Returns each chart of both, and their difference where they show the same."""
        others = [name for name in ("other_text", "other_model", "interventions") if getattr(self, name) is not None]
        if len(others) != 1:
            what = f"{' and '.join(others)} were" if others else "none of them was"
            raise InputError(f"compare needs one of other_text, other_model and interventions, and {what} given.")
        if self.of == "compare":
            raise InputError("compare cannot compare itself; name another visualizer with 'of'.")
        lens, ids = view.model_lens, view.ids
        first = self._charts(lens, ids)
        if self.other_text is not None:
            second, what = self._charts(lens, self.other_text), f"the text {self.other_text!r}"
        elif self.other_model is not None:
            import onnxlens

            with_other = onnxlens.load(
                self.other_model, provider=lens.provider, threads=lens.runner.threads, plugins=lens.plugins
            )
            second, what = self._charts(with_other, lens.to_string(ids)), f"the model {with_other.runner.bundle.name}"
        else:
            assert self.interventions is not None
            with lens.hooks(interventions=self.interventions):
                second = self._charts(lens, ids)
            what = f"the interventions of {self.interventions}"
        charts: list[Chart] = []
        for one, two in zip_longest(first, second):
            difference = two.minus(one) if one and two else None
            is_silent = difference is None and one is not None and type(one).minus is not Chart.minus
            why = "; nothing is subtracted, since the two show different things" if is_silent else ""
            charts += [one.titled(f"first: {one.title}")] if one else []
            charts += [two.titled(f"second: {two.title}{why}")] if two else []
            charts += [difference.titled(f"second − first: {difference.title}")] if difference else []
        return Stack(printable(f"{view.model}: {self.of}, and the same for {what}"), charts)

    def _charts(self, lens: Lens, text: Any) -> list[Chart]:
        try:
            rendering = lens.view(self.of, text, **self.options)
        except TypeError as error:
            raise InputError(
                f"The options of {self.of}, {json.dumps(self.options)}, cannot be used: {error}."
            ) from error
        if not isinstance(rendering, Chart):
            raise InputError(f"{self.of} draws no charts of onnxlens.plugins.charts, so compare cannot subtract them.")
        return rendering.charts if isinstance(rendering, Stack) else [rendering]
