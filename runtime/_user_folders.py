"""The user's folders, as the environment or the operating system names them.

A folder may have no name: where HOME is not set and the user has no entry in the system's list of users, as in many
containers. A relative path is made absolute when it is first read, so that a later change of the working folder does
not move it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import platformdirs

__all__ = ["CACHE", "cache_folder", "config_folder", "data_folder", "temporary_folder"]

CACHE = "ONNXLENS_CACHE"  # the variable that names the cache folder


def cache_folder() -> Path | None:
    """Where prepared bundles lie: `ONNXLENS_CACHE`, or else `onnxlens` in the user's cache folder; None if unknown."""
    chosen = os.environ.get(CACHE)
    return _absolute(chosen) if chosen else _user_folder(platformdirs.user_cache_path)


def config_folder() -> Path | None:
    """The user's folder for settings and plugins; None if it is not known."""
    return _user_folder(platformdirs.user_config_path)


def data_folder() -> Path | None:
    """The user's folder for models; None if it is not known."""
    return _user_folder(platformdirs.user_data_path)


def temporary_folder() -> Path | None:
    """A folder of this user among the system's temporary files, whether it exists or not; None if there are none."""
    user = f"-{os.geteuid()}" if hasattr(os, "geteuid") else ""  # on Windows, users do not share temporary files
    try:
        return Path(tempfile.gettempdir()) / f"onnxlens{user}"
    except OSError:
        return None


def _user_folder(find: Callable[..., Path]) -> Path | None:
    try:
        return _absolute(str(find("onnxlens", appauthor=False)))
    except RuntimeError:  # there is no home; earlier platformdirs leave the ~ where it is
        return None


def _absolute(text: str) -> Path | None:
    if text.startswith("~"):
        try:
            text = str(Path(text).expanduser())
        except RuntimeError:
            return None
    return Path(text) if Path(text).is_absolute() else _from_here(text)


@cache
def _from_here(text: str) -> Path | None:
    try:
        return Path.cwd() / text
    except OSError:  # the working folder was deleted
        return None
