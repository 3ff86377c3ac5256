"""What interventions changed: a record of each, for people and for traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxlens.runtime._result import Result

__all__ = ["ONE", "Applied", "Indices", "listed_text"]

_SHOWN = 8  # indices listed in a sentence

# The singular of what each axis of an intervention counts.
ONE = {"rows": "row", "positions": "position", "heads": "head", "neurons": "neuron", "keys": "key"}

Indices = tuple[int, ...] | None  # None for all


@dataclass(frozen=True)
class Applied(Result):
    """What one intervention changed at one hook point.

    Attributes:
        intervention: its number in the list that was given.
        operation: what it did.
        hook: where.
        positions: the positions that it changed, from the start of the row's own text; None for all.
        heads: the heads; None for all there are.
        neurons: the neurons; None for all there are.
        keys: the positions looked at; None for all.
        rows: the rows of the batch; None for all. Where texts have different lengths, one intervention can give several
            records, each for other rows.
    """

    intervention: int
    operation: str
    hook: str
    positions: Indices = None
    heads: Indices = None
    neurons: Indices = None
    keys: Indices = None
    rows: Indices = None

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Applied:
        """Reads what `to_dict` returned, from JSON.

        Raises:
            TypeError: an entry is unknown, or of another type.
        """
        entries = {n: tuple(value) if isinstance(value, list) else value for n, value in entries.items()}
        made = cls(**entries)
        wholes = [made.intervention, *(one for name in ONE for one in getattr(made, name) or ())]
        if not all(type(one) is int for one in wholes) or not all(
            isinstance(one, str) for one in (made.operation, made.hook)
        ):
            raise TypeError("an entry of 'applied' is neither a whole number nor text")
        return made

    def __str__(self) -> str:
        limits = ((ONE[name], getattr(self, name)) for name in ("rows", "positions", "heads", "neurons", "keys"))
        return ", ".join([f"{self.operation} at {self.hook}", *(_said(one, found) for one, found in limits if found)])


def listed_text(words: Sequence[str]) -> str:
    """The first words of a list as a text, and how many there are."""
    return ", ".join(words if len(words) <= _SHOWN else [*words[: _SHOWN - 1], f"… ({len(words)} in all)"])


def _said(one: str, indices: tuple[int, ...]) -> str:
    return f"{one if len(indices) == 1 else f'{one}s'} {listed_text(list(map(str, indices)))}"
