"""Tests for numbers of Python and NumPy, which booleans do not pass."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

__all__ = ["is_boolean", "is_integer", "is_number"]


def is_integer(value: object) -> TypeGuard[int]:
    """Whether something is a whole number of Python or NumPy; `True` is not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether something is a real number; `True` is not."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def is_boolean(value: object) -> TypeGuard[bool]:
    """Whether something is a boolean of Python or NumPy."""
    return isinstance(value, bool | np.bool_)
