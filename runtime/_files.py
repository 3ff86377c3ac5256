"""Helpers for writing files: names, permissions, and replacing a file only with a complete one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from uuid import uuid4

from onnxlens.runtime._escape import quoted
from onnxlens.runtime.errors import InputError, OutputError

__all__ = ["check_ending", "expanded", "replaced", "umask"]


def expanded(path: str | Path) -> Path:
    """A path with the home folder of a user in place of `~` or `~name` at its beginning.

    Raises:
        InputError: that user's home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = quoted(Path(path).parts[0])
        raise InputError(f"There is no home folder for {user}; give the path without it.") from error


def check_ending(path: str | Path, ending: str, what: str) -> None:
    """Refuses a file name whose ending belongs to another kind of file; a name without an ending is accepted.

    Args:
        path: the file to write.
        ending: that of its kind, such as `.safetensors`.
        what: what is written, for the error.

    Raises:
        OutputError: the name has another ending, or is not a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise OutputError(f"A file is named by its path, not {path!r:.100}.")
    suffix = Path(path).suffix
    if suffix and suffix.lower() != ending:
        better = Path(path).with_suffix(ending).name
        raise OutputError(f"Cannot write {path}: {what}, and its name ends in {suffix}; name it {better}.")


_changing = Lock()


def umask() -> int:
    """The permission bits that this process removes from files it creates."""
    try:  # without a change that would hold for all threads, if only for a moment
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    except (OSError, StopIteration, ValueError):
        with _changing:
            mask = os.umask(0)
            os.umask(mask)
            return mask


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Yields a scratch file beside the file to write, which replaces that file once it is complete.

    Raises:
        OutputError: the file cannot be written; what was there before is left as it was.
    """
    if not isinstance(path, str | os.PathLike):
        raise OutputError(f"A file is named by its path, not {path!r:.100}.")
    try:
        path = Path(path).expanduser().resolve()  # through a symbolic link, which stays
    except (RuntimeError, ValueError) as error:  # a loop of links, ~nobody, or a null character
        raise OutputError(f"Cannot write {path}: {error}.") from error
    scratch = path.parent / f".{uuid4().hex}.onnxlens"
    try:
        if path.is_dir():
            raise OutputError(f"Cannot write {path}: it is a folder; name a file in it.")
        if path.exists() and not path.is_file():
            raise OutputError(f"Cannot write {path}: it is not a regular file.")  # /dev/null must not be replaced
        if not path.parent.is_dir():
            raise OutputError(f"Cannot write {path}: there is no folder {path.parent}.")
        if path.exists() and not os.access(path, os.W_OK):
            raise OutputError(f"Cannot write {path}: it is protected against writing.")  # its folder may not be
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask()
        try:
            yield scratch
            scratch.chmod(mode)  # safetensors creates files that only the owner can read
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error
