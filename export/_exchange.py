"""Swaps two folders in one step, where the system can."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

__all__ = ["exchange"]

# From <linux/fs.h> and <fcntl.h>; see renameat2(2).
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
# An older kernel, a container without the call, or a file system without the operation, such as NFS.
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP)


def exchange(first: Path, second: Path) -> bool:
    """Swaps two paths atomically, so that neither is ever missing.

    Returns:
        Whether they were swapped; False where the system or the file system cannot do that.

    Raises:
        OSError: it is supported, but failed.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or a C library without it
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(second))
