"""What writing files takes besides the libraries that do it."""

from __future__ import annotations

import os

__all__ = ["umask"]


def umask() -> int:
    """The permissions that this process takes from what it creates."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
