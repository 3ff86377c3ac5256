"""The changes of a run: its own, and those of the `with` blocks of `Lens.hooks` around it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from onnxlens.runtime._bundle.selection import NamesFilter
from onnxlens.runtime._interventions.functions import ForwardHooks, HookFunction, pairs_of
from onnxlens.runtime._interventions.intervention_files import read_interventions
from onnxlens.runtime._interventions.interventions import Intervention, listed

__all__ = ["AddedHook", "Blocks", "Changes", "Interventions", "changes_of"]

Interventions = Intervention | Iterable[Intervention] | str | Path | None


class Changes(NamedTuple):
    """The interventions and functions of a run, by the names of the runner's arguments."""

    interventions: tuple[Intervention, ...] = ()
    fwd_hooks: tuple[tuple[NamesFilter, HookFunction], ...] = ()

    def __add__(self, others: object) -> Changes:
        """These changes, followed by others."""
        if not isinstance(others, Changes):
            return NotImplemented
        return Changes((*self.interventions, *others.interventions), (*self.fwd_hooks, *others.fwd_hooks))


def changes_of(interventions: Interventions, fwd_hooks: ForwardHooks) -> Changes:
    """Turns interventions and functions, in all forms that callers may use, into `Changes`.

    Raises:
        InputError: they are of another type, or the file cannot be read.
    """
    found = read_interventions(interventions) if isinstance(interventions, str | Path) else listed(interventions)
    return Changes(tuple(found), pairs_of(fwd_hooks))


class AddedHook(NamedTuple):
    """A function that is called in every run until it is removed.

    Attributes:
        pair: the hook points, and the function.
        is_permanent: whether it stays when hooks are reset.
    """

    pair: tuple[NamesFilter, HookFunction]
    is_permanent: bool


@dataclass(eq=False)
class _Block:
    """A `with` block: the model that it belongs to, and its changes while it is open."""

    owner: Blocks
    changes: Changes
    is_open: bool = True


# One variable for all models, as the documentation of contextvars wants it: a context never lets go of a variable.
_ENTERED: ContextVar[tuple[_Block, ...]] = ContextVar("onnxlens_blocks", default=())


class Blocks:
    """The open `with` blocks of one model: each thread and asyncio task has its own."""

    @property
    def changes(self) -> Changes:
        """The changes of all of them, in the order in which they were entered."""
        mine = (block.changes for block in _ENTERED.get() if block.owner is self and block.is_open)
        return sum(mine, Changes())

    @contextmanager
    def block(self, changes: Changes) -> Iterator[None]:
        """Makes changes hold until the block ends; blocks may end in any order."""
        block = _Block(self, changes)
        _ENTERED.set((*_ENTERED.get(), block))
        try:
            yield
        finally:
            # A block may end in another context than it began in, where only this shows its end.
            block.is_open = False
            _ENTERED.set(tuple(one for one in _ENTERED.get() if one.is_open))
