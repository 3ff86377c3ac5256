"""Addresses of tensors and of parts of them, such as `blocks.4.attn.hook_q[13,1]` or `blocks.0.attn.W_Q[1,:,5]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxlens.runtime._escape import quoted
from onnxlens.runtime.errors import InputError

__all__ = ["Address"]

_FORM = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<places>[^\[\]]*)\])?")
_PLACE = re.compile(r"(?P<index>-?\d{1,9})|(?P<start>\d{0,9}):(?P<stop>\d{0,9})")


@dataclass(frozen=True)
class Address:
    """A tensor, or a part of it.

    Attributes:
        name: the name of a hook point or weight, or a glob of hook points.
        places: what to take of each axis: a number, which drops the axis, or a range; axes that are left out are kept.
    """

    name: str
    places: tuple[int | slice, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads an address.

        Raises:
            InputError: it is not one.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise InputError(f"{quoted(text)} is not an address; write a name, or a name and places: NAME[2,:,5].")
        if found["places"] is None:
            return cls(found["name"])
        return cls(found["name"], tuple(_place(one.strip(), text) for one in found["places"].split(",")))

    def take(self, array: np.ndarray) -> np.ndarray:
        """Takes the part; a view where that is possible.

        Raises:
            InputError: the array has fewer axes, or a place is outside of one.
        """
        if len(self.places) > array.ndim:
            raise InputError(
                f"{self.name} has the shape {list(array.shape)}, so its address has at most {array.ndim} places, "
                f"not {len(self.places)}."
            )
        for axis, place in enumerate(self.places):
            size = array.shape[axis]
            if isinstance(place, int) and not -size <= place < size:
                raise InputError(f"Place {place} is outside of axis {axis} of {self.name}, which has {size} entries.")
        key: tuple[Any, ...] = self.places
        taken: np.ndarray = np.asarray(array[key])
        return taken


def _place(text: str, address: str) -> int | slice:
    found = _PLACE.fullmatch(text)
    if found is None:
        raise InputError(f"{quoted(text)} is no place of an axis in {quoted(address)}; write a number, : or 2:5.")
    if found["index"] is not None:
        return int(found["index"])
    start, stop = (int(one) if one else None for one in (found["start"], found["stop"]))
    return slice(start, stop)
