"""JSON files that other people and programs wrote, read within bounds."""

from __future__ import annotations

import json
import os
import stat
from itertools import chain
from pathlib import Path
from typing import Any

from onnxlens.runtime._text.human_text import HumanTextError, decoded

__all__ = ["JsonFileError", "parse_json", "read_json"]

_DEEPEST = 100  # lists and objects in one another
_TOO_DEEP = "its lists and objects are nested too deeply"


class JsonFileError(Exception):
    """A file cannot be read as JSON; the text is a clause about the file, such as 'it is not UTF-8 …'."""


def read_json(path: Path, limit: int, *, nan: bool = True) -> Any:
    """Reads a JSON file.

    Args:
        path: the file. It must be a regular file: a pipe or a device could be read for ever.
        limit: the most bytes that are read.
        nan: accept `NaN` and `Infinity`, which Python writes and JSON does not have.

    Raises:
        JsonFileError: there is no such file, it is too large, not UTF-8, not JSON, or nested too deeply.
    """
    return parse_json(_read(path, limit), nan=nan)


def parse_json(content: bytes, *, nan: bool = True) -> Any:
    """Reads JSON from the content of a file; `nan` and errors as in `read_json`."""
    try:
        text = decoded(content)
    except HumanTextError as error:
        raise JsonFileError(str(error)) from error
    try:
        value = json.loads(text, parse_constant=None if nan else _refuse)
    except json.JSONDecodeError as error:
        raise JsonFileError(f"it is not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from error
    except ValueError as error:  # a number with thousands of digits, or a constant that is refused
        raise JsonFileError(f"it is not JSON ({error})") from error
    except RecursionError as error:
        raise JsonFileError(_TOO_DEEP) from error
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Refuses nesting that Python can read but not write or walk through, since it limits the depth of calls."""
    level = [value]
    for _ in range(_DEEPEST):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = list(chain.from_iterable(inner))
    if any(isinstance(item, dict | list) for item in level):
        raise JsonFileError(_TOO_DEEP)


def _read(path: Path, limit: int) -> bytes:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise JsonFileError("it is not a regular file")
            content = file.read(limit + 1)
    except OSError as error:
        raise JsonFileError((error.strerror or str(error)).lower()) from error
    except ValueError as error:  # a null character in the name
        raise JsonFileError(str(error)) from error
    if len(content) > limit:
        raise JsonFileError(f"it is larger than {limit:,} bytes, and no file of its kind needs so many")
    return content


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")
