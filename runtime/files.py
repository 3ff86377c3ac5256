"""What writing files takes besides the libraries that do it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from uuid import uuid4

from onnxlens.runtime.errors import InputError, OutputError
from onnxlens.runtime.escape import quoted

__all__ = ["check_ending", "expanded", "replaced", "umask"]


def expanded(path: str | Path) -> Path:
    """A path with the home folder of a user in place of `~` or `~name` at its beginning.

    Raises:
        InputError: nobody knows that user's home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = quoted(Path(path).parts[0])
        raise InputError(f"There is no home folder for {user}; give the path without it.") from error


def check_ending(path: str | Path, ending: str, what: str) -> None:
    """Refuses the name of a file that says it is of another kind than it will be; no ending says nothing.

    Args:
        path: the file to write.
        ending: that of its kind, such as `.safetensors`.
        what: what is written, for the error.

    Raises:
        OutputError: the name has another ending, or is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise OutputError(f"A file is named by its path, not {path!r:.100}.")
    given = Path(path).suffix
    if given and given.lower() != ending:
        better = Path(path).with_suffix(ending).name
        raise OutputError(f"Cannot write {path}: {what}, and its name ends in {given}; name it {better}.")


_changing = Lock()


def umask() -> int:
    """The permissions that this process takes from what it creates."""
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
    """Yields a scratch file beside a file to write, which takes that one's place when it is whole.

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
            scratch.chmod(mode)  # safetensors lets in the owner only
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error
