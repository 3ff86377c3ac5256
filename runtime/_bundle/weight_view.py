"""Where a weight lies in what the weights file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["WeightView"]


@dataclass(frozen=True)
class WeightView:
    """A weight as a view of a stored tensor: sliced first, then reshaped, then transposed.

    Attributes:
        tensor: the stored tensor's name; None for a weight that the model does not have, which is zero.
        axes: what each axis of the weight counts, such as `("head", "d_model", "d_head")`.
        slice: axis, start and end of the part that is taken; None for all of it.
        reshape: the shape that this gets; None for its own.
        transpose: the order in which the axes are taken then, as in `numpy.transpose`; None for their own.
    """

    tensor: str | None
    axes: tuple[str, ...]
    slice: tuple[int, int, int] | None = None
    reshape: tuple[int, ...] | None = None
    transpose: tuple[int, ...] | None = None

    def of(self, stored: np.ndarray) -> np.ndarray:
        """Returns the weight, which shares the memory of the stored tensor.

        Raises:
            ValueError: the tensor has another shape than the view expects.
        """
        if self.slice is not None:
            axis, start, end = self.slice
            if not 0 <= axis < stored.ndim or not 0 <= start < end <= stored.shape[axis]:
                raise ValueError(f"{start} to {end} of axis {axis} is not within shape {list(stored.shape)}")
            stored = stored[(*(slice(None),) * axis, slice(start, end))]
        if self.reshape is not None:
            stored = stored.reshape(self.reshape)
        return stored if self.transpose is None else stored.transpose(self.transpose)

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the weight's shape for a stored tensor of this shape; errors as in `of`."""
        return self.of(np.broadcast_to(np.float32(0), stored)).shape

    def to_dict(self) -> dict[str, Any]:
        """Returns the entries of a manifest."""
        return {name: value for name, value in asdict(self).items() if value is not None or name == "tensor"}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> WeightView:
        """Reads entries that `to_dict` returned.

        Raises:
            TypeError, ValueError: they are of another form.
        """
        if not isinstance(entries, dict):
            raise TypeError(f"expected an object, not {type(entries).__name__}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()
        }
        view = cls(**values)
        if not (view.tensor is None or isinstance(view.tensor, str)) or not _all(view.axes, str):
            raise TypeError("'tensor' must be a name or null, and 'axes' a list of names")
        for name in ("slice", "reshape", "transpose"):
            value = getattr(view, name)
            if value is not None and (not _all(value, int) or (name == "slice" and len(value) != 3)):
                raise TypeError(f"{name!r} must be a list of whole numbers")
        return view


def _all(value: object, kind: type) -> bool:
    return isinstance(value, tuple) and all(type(item) is kind for item in value)
