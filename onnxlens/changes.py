"""Changes of a run: its own, and those of the `with` blocks of `Lens.hooks` around it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from onnxlens.runtime.bundle.selection import NamesFilter
from onnxlens.runtime.interventions.functions import ForwardHooks, HookFunction, pairs_of
from onnxlens.runtime.interventions.intervention_files import read_interventions
from onnxlens.runtime.interventions.interventions import Intervention, listed

__all__ = ["AddedHook", "Blocks", "Changes", "Interventions", "changes_of"]

Interventions = Intervention | Iterable[Intervention] | str | Path | None


class Changes(NamedTuple):
    """What is changed in a run, under the names that the runner has for it."""

    interventions: tuple[Intervention, ...] = ()
    fwd_hooks: tuple[tuple[NamesFilter, HookFunction], ...] = ()

    def __add__(self, others: object) -> Changes:
        """These, and then others."""
        if not isinstance(others, Changes):
            return NotImplemented
        return Changes((*self.interventions, *others.interventions), (*self.fwd_hooks, *others.fwd_hooks))


def changes_of(interventions: Interventions, fwd_hooks: ForwardHooks) -> Changes:
    """Turns interventions and functions as a caller may pass them into changes.

    Raises:
        InputError: they are nothing of that kind, or the file cannot be read.
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
    """A `with` block: whose it is, and what it changes while it is open."""

    owner: Blocks
    changes: Changes
    is_open: bool = True


# One variable for all models, as the documentation of contextvars wants it: a context never lets go of a variable.
_ENTERED: ContextVar[tuple[_Block, ...]] = ContextVar("onnxlens_blocks", default=())


class Blocks:
    """The `with` blocks of one model that are open where the program is: each thread and asyncio task has its own."""

    @property
    def changes(self) -> Changes:
        """What all of them change, in the order in which they were entered."""
        mine = (block.changes for block in _ENTERED.get() if block.owner is self and block.is_open)
        return sum(mine, Changes())

    @contextmanager
    def block(self, changes: Changes) -> Iterator[None]:
        """Lets changes hold until the block ends, in whichever order blocks end."""
        block = _Block(self, changes)
        _ENTERED.set((*_ENTERED.get(), block))
        try:
            yield
        finally:
            # A block may end in another context than it began in, where only this tells of its end.
            block.is_open = False
            _ENTERED.set(tuple(one for one in _ENTERED.get() if one.is_open))
