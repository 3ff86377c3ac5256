"""Runs a model for a visualizer, and reads only the hook points that it names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.plugins._drawing.labels import printable, quoted_token, short
from onnxlens.plugins._drawing.rendering import Rendering
from onnxlens.plugins._options import option_names
from onnxlens.plugins._viewing.visualizer import LOGITS, View, Visualizer
from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._bundle.selection import select
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import PluginError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["drawn", "needed", "read", "read_together"]

_MOST = 300  # characters of each part of a caption


def needed(visualizer: Visualizer, model: ModelDescription) -> tuple[tuple[str, ...], bool]:
    """The full names of the hook points that a visualizer needs, and whether it needs the logits.

    Raises:
        HookPointError: a name or glob matches no hook point.
        PluginError: it does not return names.
    """
    names = visualizer.hook_points(model.cfg)
    method = f"{type(visualizer).__name__}.hook_points"
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise PluginError(f"{method} must return a list of names, and returned {names!r:.100}.")
    patterns = list(names)
    if wrong := [name for name in patterns if not isinstance(name, str)]:
        raise PluginError(f"{method} must name hook points by text, not {wrong[0]!r:.100}.")
    patterns, count = [name for name in patterns if name != LOGITS], len(patterns)
    return (select(patterns, model.points) if patterns else ()), len(patterns) < count


def read(
    runner: Runner, tokenizer: Tokenizer, visualizer: Visualizer, ids: Sequence[int], lens: Lens | None = None
) -> View:
    """Reads the values that a visualizer needs; see `read_together`.

    Raises:
        HookPointError: a name or glob matches no hook point.
        InputError: the ids cannot be used.
        PluginError: it does not return names.
    """
    return read_together(runner, tokenizer, [needed(visualizer, runner.bundle.description)], ids, lens)[0]


def read_together(
    runner: Runner,
    tokenizer: Tokenizer,
    needs: Sequence[tuple[Sequence[str], bool]],
    ids: Sequence[int],
    lens: Lens | None = None,
) -> list[View]:
    """Runs a model once, and returns for each visualizer exactly the values that it needs.

    Args:
        runner: the model.
        tokenizer: its tokenizer.
        needs: for each visualizer, its hook points, and whether it needs the logits; see `needed`.
        ids: the text's token ids.
        lens: runs the model with its changes; without it, the runner does.

    Raises:
        InputError: the ids cannot be used.
    """
    tokens = np.asarray(ids, np.int64)[np.newaxis]  # [1, P]
    str_tokens = tuple(tokenizer.str_tokens(tokens[0].tolist()))
    facts = runner.bundle.facts
    names = tuple(dict.fromkeys(name for some, _ in needs for name in some))
    with_logits = any(logits for _, logits in needs)
    output = None
    if names or with_logits:
        output = (runner.run if lens is None else lens.run)(
            tokens, names_filter=names or None, logits="all" if with_logits else "none", keep_cache=False
        )
    views = []
    for some, logits in needs:
        cache = ActivationCache(
            {name: output.activations[name] for name in some} if output else {},
            tokens,
            facts=facts,
            str_tokens=str_tokens,
            applied=output.applied if output else (),
            called=output.called if output else (),
        )
        cache.remove_batch_dim()
        found = output.logits[0] if output and logits else None  # [P, V]
        views.append(View(facts.name, runner.config, tokens[0], str_tokens, cache, found, tokenizer, lens))
    return views


def drawn(visualizer: Visualizer, view: View) -> Rendering:
    """Calls `draw`, and sets the caption of the rendering.

    Raises:
        PluginError: `draw` returned something that is not a rendering.
    """
    found = visualizer.draw(view)
    if not isinstance(found, Rendering):
        raise PluginError(
            f"{type(visualizer).__name__}.draw must return a Rendering, and returned {type(found).__name__}."
        )
    object.__setattr__(found, "caption", _caption(visualizer, view))  # of a frozen dataclass, too
    return found


def _caption(visualizer: Visualizer, view: View) -> str:
    """The caption of a rendering: model, prompt and options."""
    kind = type(visualizer)
    options = ", ".join(f"{name}={getattr(visualizer, name)!r}" for name in option_names(kind))
    changed = view.lens is not None and view.lens.is_changed
    parts = [
        f"Model: {view.model}{', changed by lens.hooks' if changed else ''}",
        f"Prompt, {len(view.ids)} {'token' if len(view.ids) == 1 else 'tokens'}: {quoted_token(view.text)}",
        f"View: {kind.__name__}({options})",
    ]
    return "; ".join(short(printable(part), _MOST) for part in parts)
