"""How names, globs, shorthands and functions select hook points."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.hooks import HookPoint
from onnxlens.runtime._bundle.shorthand import Key, full_name, is_shorthand
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime.errors import HookFunctionError, HookPointError, InputError, suggestion

__all__ = ["NamesFilter", "Reached", "select"]

_LONGEST = 200
_BLOCKS_ELSEWHERE = ("h", "layer", "layers")  # what other libraries call the blocks

# A name, glob or shorthand such as ("pattern", 0); several of them; or a function of the name.
NamesFilter = Key | Sequence[Key] | Callable[[str], bool]


class Reached:
    """The hook points that a pass computes, which may stop early.

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
        layers = config.n_layers
        if not is_integer(stop_at_layer) or not -layers <= stop_at_layer <= layers:
            raise InputError(f"stop_at_layer must be a whole number from {-layers} to {layers}, not {stop_at_layer!r}.")
        self.stop = stop_at_layer % layers if stop_at_layer < 0 else stop_at_layer
        self.residual = f"blocks.{self.stop}.hook_resid_pre"
        if self.stop == layers:
            self.residual = f"blocks.{layers - 1}.hook_resid_post"

    def select(self, names_filter: NamesFilter) -> tuple[str, ...]:
        """Selects as the function `select` does, among the hook points that are computed.

        Raises:
            HookPointError: it selects nothing, or only hook points after the end of the pass, or names one of these.
        """
        found = select(names_filter, self._names)
        if self.residual is None:
            return found
        reached = set(self._names[: self._names.index(self.residual) + 1])
        named = () if callable(names_filter) else _full_names(names_filter, self._names)
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
        names_filter: a name, a shell glob (`*`, `?`, `[0-3]`) or a shorthand such as `("pattern", 0)`; several of them;
            or a function of the name.
        known: the names to choose from.

    Raises:
        HookPointError: a name, glob or shorthand, or the function, selects nothing; the text has the nearest names.
        HookFunctionError: the function raised something.
    """
    names = tuple(known)
    if callable(names_filter):
        chosen = {name for name in names if _chosen(names_filter, name)}
        if not chosen:
            raise HookPointError(f"The function given as names_filter selects none of the {len(names)} hook points.")
    else:
        patterns = _full_names(names_filter, names)
        if not patterns:
            raise HookPointError("No hook point was named; give a name or a pattern, such as 'blocks.*.attn.*'.")
        chosen = set().union(*(_matches(pattern, names) for pattern in patterns))
    return tuple(name for name in names if name in chosen)


def _full_names(names_filter: Key | Sequence[Key], names: Sequence[str]) -> list[str]:
    """The names and globs in a filter that is not a function, with shorthands resolved."""
    if isinstance(names_filter, str) or is_shorthand(names_filter):
        entries: list[Any] = [names_filter]
    else:
        entries = list(names_filter) if isinstance(names_filter, Iterable) else [names_filter]
    if not all(isinstance(entry, str) or is_shorthand(entry) for entry in entries):
        raise HookPointError(f"Hook points are named by text: a name, a glob, or a list of them, not {entries!r:.200}.")
    return [entry if isinstance(entry, str) else full_name(entry, names=names) for entry in entries]


def _chosen(function: Callable[[str], bool], name: str) -> bool:
    try:
        return bool(function(name))
    except Exception as error:
        said = getattr(function, "__qualname__", repr(function))
        raise HookFunctionError(
            f"The function {said!r}, which chooses hook points, raised {type(error).__name__} at {name!r}: {error}"
        ) from error


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
            rest = f", or {glob!r} for all {len(found)} of that kind" if len(found) > 1 else ""
            return f" Did you mean {found[0]!r}{rest}?"
    return ""


def _corrected(pattern: str, names: tuple[str, ...]) -> str:
    """A suggestion for a pattern some parts of which, between dots, are nearly right, such as `block.*.atn.*`."""
    known = sorted({part for name in names for part in name.split(".") if not part.isdecimal()})
    parts = pattern.split(".")
    for place, part in enumerate(parts):
        if part in known or part.isdecimal() or not part.strip("*?[]-0123456789"):
            continue
        near = get_close_matches(part.lower(), known, n=1, cutoff=0.6)
        parts[place] = near[0] if near else "blocks" if place == 0 and part in _BLOCKS_ELSEWHERE else part
    corrected = ".".join(parts)
    is_there = any(fnmatchcase(name, corrected) for name in names)
    return f" Did you mean {corrected!r}?" if is_there and corrected != pattern else ""


def _unknown(pattern: str, names: tuple[str, ...]) -> str:
    blocks = {int(name.split(".")[1]) for name in names if name.startswith("blocks.")}
    beyond = re.match(r"blocks\.(\d{1,9})\.", pattern)
    reason = ""
    if beyond and blocks and int(beyond[1]) not in blocks:
        last = max(blocks)
        reason = f": this model has blocks {min(blocks)} to {last}"
        pattern_inside = f"blocks.{last}.{pattern[beyond.end() :]}"
        is_there = any(fnmatchcase(name, pattern_inside) for name in names)
        near = f" Did you mean {pattern_inside!r}?" if is_there else suggestion(pattern_inside, names)
    else:
        near = _containing(pattern, names) or _corrected(pattern, names) or suggestion(pattern, names)
    if any(letter in pattern for letter in "*?["):
        return f"No hook point matches {pattern!r}{reason}.{near} See 'onnxlens hooks' for all names."
    return f"Unknown hook point {pattern!r}{reason}.{near} See 'onnxlens hooks' for all names."
