"""Whole numbers: Python's and NumPy's, and no truth values."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

__all__ = ["is_whole"]


def is_whole(value: object) -> TypeGuard[int]:
    """Whether something is a whole number, as `argmax` returns one, too; `True` is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
