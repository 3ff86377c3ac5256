"""Views of one text: makes each visualizer, runs the model once for all of them, and lets each draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxlens.plugins._drawing.rendering import Rendering
from onnxlens.plugins._failures import named_in_errors
from onnxlens.plugins._options import make
from onnxlens.plugins._viewing.reading import drawn, needed, read_together
from onnxlens.plugins._viewing.visualizer import Visualizer
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["AnyVisualizer", "views"]

# A visualizer: its name, one that was made, or its class.
AnyVisualizer = str | Visualizer | type[Visualizer]


def views(lens: Lens, ids: Sequence[int], wanted: Sequence[tuple[AnyVisualizer, Mapping[str, Any]]]) -> list[Rendering]:
    """Returns a rendering of each; see `Lens.views`.

    Args:
        lens: the open model.
        ids: the text's token ids.
        wanted: the visualizers, each with its options.
    """
    made, needs = [], []
    for visualizer, options in wanted:
        kind, name, owner = _found(lens, visualizer)
        who = f"The visualizer {name!r}{owner}"
        with named_in_errors(who):
            if not isinstance(visualizer, Visualizer):
                one = make(kind, name, options)
            elif options:
                raise InputError("Options are given when a visualizer is made, and this one is made already.")
            else:
                one = visualizer
            needs.append(needed(one, lens.runner.bundle.description))
        made.append((who, one))
    renderings = []
    for (who, one), view in zip(made, read_together(lens.runner, lens.tokenizer, needs, ids, lens), strict=True):
        with named_in_errors(who):
            renderings.append(drawn(one, view))
    return renderings


def _found(lens: Lens, visualizer: AnyVisualizer) -> tuple[Any, str, str]:
    """The class of a visualizer, its name, and its owner."""
    if isinstance(visualizer, str):
        entry = lens.plugins.get("visualizer", visualizer)
        return entry.plugin, entry.name, f" ({entry.distribution})"
    kind = visualizer if isinstance(visualizer, type) else type(visualizer)
    if not issubclass(kind, Visualizer):
        raise InputError(f"A visualizer is given by its name, or as one, not as {visualizer!r:.100}.")
    return kind, kind.__name__, ""
