"""Hook points: the named intermediate values of a GPT-2, and how names and patterns select them.

Names, shapes and meanings are TransformerLens's (https://transformerlensorg.github.io/TransformerLens), on the raw
weights: nothing is folded or centred.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.errors import HookFunctionError, HookPointError, InputError, suggestion
from onnxlens.runtime.whole import is_whole

__all__ = ["COMPUTED_ON_REQUEST", "HookPoint", "NamesFilter", "Reached", "hook_points", "select", "usual"]

_LONGEST = 200

NamesFilter = str | Sequence[str] | Callable[[str], bool]

# Too large to be an output of every bundle ([B, P, H, D] for each block); the runner adds it to a graph when asked.
COMPUTED_ON_REQUEST = "hook_result"

_RESIDUAL = ("batch", "pos", "d_model")
_HEADS = ("batch", "pos", "head", "d_head")
_ATTENTION = ("batch", "head", "query_pos", "key_pos")

_Entry = tuple[str, tuple[str, ...], str]  # name, axes, meaning

_LAYER_NORM: tuple[_Entry, ...] = (
    ("hook_scale", ("batch", "pos", "one"), "the divisor sqrt(variance + epsilon)"),
    ("hook_normalized", _RESIDUAL, "(x - mean) / scale, before weight and bias"),
)
_EMBEDDING: tuple[_Entry, ...] = (
    ("hook_embed", _RESIDUAL, "token embedding"),
    ("hook_pos_embed", _RESIDUAL, "position embedding"),
)
_BLOCK: tuple[_Entry, ...] = (
    ("hook_resid_pre", _RESIDUAL, "residual stream at the block's input"),
    *((f"ln1.{name}", axes, f"layer norm before attention: {text}") for name, axes, text in _LAYER_NORM),
    ("attn.hook_q", _HEADS, "queries, after the bias, unscaled"),
    ("attn.hook_k", _HEADS, "keys, after the bias; the new positions only"),
    ("attn.hook_v", _HEADS, "values, after the bias; the new positions only"),
    ("attn.hook_attn_scores", _ATTENTION, "q @ k / sqrt(d_head), -inf where masked"),
    ("attn.hook_pattern", _ATTENTION, "softmax of the scores: who attends to whom"),
    ("attn.hook_z", _HEADS, "pattern @ v"),
    ("attn.hook_result", ("batch", "pos", "head", "d_model"), "z @ W_O of each head, without the bias"),
    ("hook_attn_out", _RESIDUAL, "attention's output with bias, as added to the residual stream"),
    ("hook_resid_mid", _RESIDUAL, "residual stream after attention is added"),
    *((f"ln2.{name}", axes, f"layer norm before the MLP: {text}") for name, axes, text in _LAYER_NORM),
    ("mlp.hook_pre", ("batch", "pos", "d_mlp"), "MLP neurons before the activation function"),
    ("mlp.hook_post", ("batch", "pos", "d_mlp"), "MLP neurons after the activation function"),
    ("hook_mlp_out", _RESIDUAL, "the MLP's output with bias, as added to the residual stream"),
    ("hook_resid_post", _RESIDUAL, "residual stream after the MLP is added"),
)
_FINAL = tuple((f"ln_final.{name}", axes, f"final layer norm: {text}") for name, axes, text in _LAYER_NORM)


@dataclass(frozen=True)
class HookPoint:
    """A named intermediate value.

    Attributes:
        name: TransformerLens's name.
        axes: what each axis counts: `batch`, `pos`, `query_pos` (new positions), `key_pos` (past and new), `head`,
            `d_model`, `d_head`, `d_mlp`, or `one`.
        meaning: what the value is, in a few words.
    """

    name: str
    axes: tuple[str, ...]
    meaning: str

    @property
    def on_request(self) -> bool:
        """Whether the value is no output of the bundle's graph but computed where a request names it."""
        return self.name.endswith(COMPUTED_ON_REQUEST)

    @property
    def position_axis(self) -> int:
        """Which axis counts the positions that are computed; for scores and patterns, those of the queries."""
        return self.axes.index("pos" if "pos" in self.axes else "query_pos")

    def shape(self, config: ModelConfig, batch: int, new: int, past: int = 0) -> tuple[int, ...]:
        """The value's shape in a pass over `new` positions after `past` cached ones."""
        size = {
            "batch": batch,
            "pos": new,
            "query_pos": new,
            "key_pos": past + new,
            "head": config.n_head,
            "d_model": config.n_embd,
            "d_head": config.d_head,
            "d_mlp": config.d_mlp,
            "one": 1,
        }
        return tuple(size[axis] for axis in self.axes)


def hook_points(config: ModelConfig) -> tuple[HookPoint, ...]:
    """All hook points of a model, in the order in which they are computed."""
    blocks = (
        (f"blocks.{layer}.{name}", axes, meaning) for layer in range(config.n_layer) for name, axes, meaning in _BLOCK
    )
    return tuple(HookPoint(*entry) for entry in (*_EMBEDDING, *blocks, *_FINAL))


def usual(name: str) -> bool:
    """Selects all hook points but those that are large and computed on request: what is read if nothing is said."""
    return not name.endswith(COMPUTED_ON_REQUEST)


class Reached:
    """The hook points that a pass computes which may stop early.

    Args:
        points: all of them.
        config: the model's shape.
        stop_at_layer: the block before which the pass ends, negative ones from the end; None for a whole pass.

    Attributes:
        stop: the same, counted from 0; None for a whole pass.
        residual: where the residual stream is read that such a pass ends with; None for a whole pass.

    Raises:
        InputError: there is no such block.
    """

    def __init__(self, points: Sequence[HookPoint], config: ModelConfig, stop_at_layer: int | None) -> None:
        self._names = [point.name for point in points]
        self.stop: int | None = None
        self.residual: str | None = None
        if stop_at_layer is None:
            return
        layers = config.n_layer
        if not is_whole(stop_at_layer) or not -layers <= stop_at_layer <= layers:
            raise InputError(f"stop_at_layer must be a whole number from {-layers} to {layers}, not {stop_at_layer!r}.")
        self.stop = stop_at_layer % layers if stop_at_layer < 0 else stop_at_layer
        self.residual = f"blocks.{self.stop}.hook_resid_pre"
        if self.stop == layers:
            self.residual = f"blocks.{layers - 1}.hook_resid_post"

    def select(self, names_filter: NamesFilter) -> tuple[str, ...]:
        """Like the function `select`, among the hook points that are computed.

        Raises:
            HookPointError: it selects nothing, only what comes after the end of the pass, or a name of that.
        """
        found = select(names_filter, self._names)
        if self.residual is None:
            return found
        reached = set(self._names[: self._names.index(self.residual) + 1])
        named = () if callable(names_filter) else {names_filter} if isinstance(names_filter, str) else {*names_filter}
        kept = tuple(name for name in found if name in reached)
        never = [name for name in found if name not in reached and (name in named or not kept)]
        if never:
            raise HookPointError(
                f"{never[0]!r} is never reached: the pass stops before block {self.stop} (stop_at_layer), and "
                f"{self.residual!r} is the last hook point that it computes."
            )
        return kept


def select(names_filter: NamesFilter, known: Iterable[str]) -> tuple[str, ...]:
    """Returns the known names that a filter selects, in the order of `known`.

    Args:
        names_filter: a name or shell glob (`*`, `?`, `[0-3]`), several of them, or a function of the name.
        known: the names to choose from.

    Raises:
        HookPointError: a name or glob, or the function, selects nothing; the text has the nearest names.
        HookFunctionError: the function raised something.
    """
    names = tuple(known)
    if callable(names_filter):
        chosen = {name for name in names if _chosen(names_filter, name)}
        if not chosen:
            raise HookPointError(f"The function given as names_filter chooses none of the {len(names)} hook points.")
    else:
        patterns = [names_filter] if isinstance(names_filter, str) else _listed(names_filter)
        if not all(isinstance(pattern, str) for pattern in patterns):
            raise HookPointError(f"Hook points are named by text: a name, a glob, or a list of them, not {patterns!r}.")
        if not patterns:
            raise HookPointError("No hook point was named; give a name or a pattern, such as 'blocks.*.attn.*'.")
        chosen = set().union(*(_matches(pattern, names) for pattern in patterns))
    return tuple(name for name in names if name in chosen)


def _chosen(function: Callable[[str], bool], name: str) -> bool:
    try:
        return bool(function(name))
    except Exception as error:
        said = getattr(function, "__qualname__", repr(function))
        raise HookFunctionError(
            f"The function {said!r}, which chooses hook points, raised {type(error).__name__} at {name!r}: {error}"
        ) from error


def _listed(names_filter: object) -> list[Any]:
    return list(names_filter) if isinstance(names_filter, Iterable) else [names_filter]


def _matches(pattern: str, names: tuple[str, ...]) -> set[str]:
    if len(pattern) > _LONGEST:  # matching and searching for near names would take seconds
        raise HookPointError(f"A pattern of {len(pattern):,} characters is longer than any hook point's name.")
    found = {name for name in names if fnmatchcase(name, pattern)}
    if not found:
        raise HookPointError(_unknown(pattern, names))
    return found


def _containing(pattern: str, names: tuple[str, ...]) -> str:
    """A suggestion for a part of a name, such as `hook_q` or `pattern`."""
    part = pattern.strip("*")
    for glob in (f"*{part}", f"*{part}*"):
        found = [name for name in names if part and fnmatchcase(name, glob)]
        if found:
            return f" Did you mean {found[0]!r}, or {glob!r} for all {len(found)} of that kind?"
    return ""


def _unknown(pattern: str, names: tuple[str, ...]) -> str:
    blocks = {int(name.split(".")[1]) for name in names if name.startswith("blocks.")}
    beyond = re.match(r"blocks\.(\d{1,9})\.", pattern)
    reason = ""
    if beyond and blocks and int(beyond[1]) not in blocks:
        last = max(blocks)
        reason = f": this model has blocks {min(blocks)} to {last}"
        pattern_inside = f"blocks.{last}.{pattern[beyond.end() :]}"
        near = f" Did you mean {pattern_inside!r}?" if pattern_inside in names else suggestion(pattern_inside, names)
    else:
        near = _containing(pattern, names) or suggestion(pattern, names)
    if any(letter in pattern for letter in "*?["):
        return f"No hook point matches {pattern!r}{reason}.{near} See 'onnxlens hooks' for all names."
    return f"Unknown hook point {pattern!r}{reason}.{near} See 'onnxlens hooks' for all names."
