"""Paths that users give."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PathError", "real_path"]


class PathError(Exception):
    """A path cannot be used; the text is a clause that says why."""


def real_path(path: str | Path) -> Path:
    """Returns an absolute path without symbolic links; what it names need not exist.

    Raises:
        PathError: the links form a loop, `~` names no user, or the libraries that open the files do not accept the
            name.
    """
    try:
        found = Path(path).expanduser().resolve()
        looping = found.is_symlink()  # newer versions of Python return the loop itself
    except (RuntimeError, OSError, ValueError) as error:  # a loop, ~nobody, a null character
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PathError(f"{text[:1].lower()}{text[1:300]}".rstrip(".")) from error
    if looping:
        raise PathError("its symbolic links form a loop")
    try:
        str(found).encode("utf-8")
    except UnicodeEncodeError as error:
        raise PathError("its name is not UTF-8, and ONNX Runtime opens no such files; rename it") from error
    return found
