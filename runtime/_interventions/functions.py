"""Python functions at hook points, as TransformerLens's `fwd_hooks`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxlens.runtime._bundle.selection import NamesFilter
from onnxlens.runtime.errors import HookFunctionError, InputError

__all__ = ["ForwardHooks", "Functions", "Hook", "HookFunction", "call", "find_functions", "pairs_of"]


@dataclass
class Hook:
    """The hook point at which a function is called.

    Attributes:
        name: its name.
        ctx: a place for functions to leave things for each other and for later runs; `Lens.clear_contexts` empties it.
    """

    name: str
    ctx: dict[str, Any] = field(default_factory=dict)

    def layer(self) -> int:
        """The block's number.

        Raises:
            InputError: the hook point is in no block.
        """
        if not self.name.startswith("blocks."):
            raise InputError(f"{self.name!r} is in no block.")
        return int(self.name.split(".")[1])


HookFunction = Callable[..., "np.ndarray | None"]  # of the activation and the `Hook`
ForwardHooks = Iterable[tuple[NamesFilter, HookFunction]] | None
Functions = Mapping[str, Sequence[HookFunction]]


def pairs_of(fwd_hooks: ForwardHooks) -> tuple[tuple[NamesFilter, HookFunction], ...]:
    """Pairs of hook points and a function, as a tuple; None means no functions.

    Raises:
        InputError: an entry is not a pair of names and a function.
    """
    if fwd_hooks is None:
        return ()
    if not isinstance(fwd_hooks, Iterable) or isinstance(fwd_hooks, str):
        raise InputError(
            "fwd_hooks must be a list of pairs of a hook point (name, glob or predicate) and a function of "
            f"(activation, hook), not {fwd_hooks!r:.100}."
        )
    found = tuple(fwd_hooks)
    for number, pair in enumerate(found):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2 or not callable(pair[1]):
            raise InputError(
                f"Entry {number} of fwd_hooks must be a pair of a hook point (name, glob or predicate) and a function "
                f"of (activation, hook), not {pair!r}."
            )
    return found


def find_functions(fwd_hooks: ForwardHooks, select: Callable[[NamesFilter], tuple[str, ...]]) -> Functions:
    """Sorts functions by hook point; several at one are called in the order given.

    Raises:
        HookPointError: a name, glob or predicate matches nothing.
        InputError: an entry is not a pair of names and a function.
    """
    found: dict[str, list[HookFunction]] = {}
    for names, function in pairs_of(fwd_hooks):
        for name in select(names):
            found.setdefault(name, []).append(function)
    return found


def call(functions: Iterable[HookFunction], hook: Hook, activation: np.ndarray) -> np.ndarray:
    """Hands an activation to functions, one after the other.

    Args:
        functions: each may change the array in place, return another one of the same shape, or return None.
        hook: where.
        activation: float32.

    Returns:
        What the last of them left or returned.

    Raises:
        HookFunctionError: a function raised something, or returned something that cannot replace the activation.
    """
    for function in functions:
        by_name = _takes_hook(function)
        name = getattr(function, "__qualname__", repr(function))
        at = f"The function {name!r} at {hook.name!r}"
        try:
            returned = function(activation, hook=hook) if by_name else function(activation, hook)
        except Exception as error:
            raise HookFunctionError(f"{at} raised {type(error).__name__}: {error}") from error
        if returned is None:
            continue
        if not isinstance(returned, np.ndarray):
            raise HookFunctionError(
                f"{at} returned a {type(returned).__name__}; it must return an array or, to leave it as it is, None."
            )
        if returned.shape != activation.shape:
            raise HookFunctionError(
                f"{at} returned shape {list(returned.shape)}; it must be that of the activation, "
                f"{list(activation.shape)}."
            )
        if returned.dtype != np.float32:
            raise HookFunctionError(
                f"{at} returned {returned.dtype}; it must be float32, as the activation is. Add .astype(np.float32)."
            )
        activation = returned
    return activation


def _takes_hook(function: HookFunction) -> bool:
    """Whether a function takes the hook by that name, as TransformerLens gives it, wherever the parameter stands."""
    try:
        inspect.signature(function).bind(None, hook=None)
    except (TypeError, ValueError):  # it has another name, or is written in C and has no signature
        return False
    return True
