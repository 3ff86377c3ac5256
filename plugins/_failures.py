"""Errors of plugins, with the name of the plugin."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxlens.plugins
import onnxlens.runtime
from onnxlens.runtime.errors import OnnxLensError, PluginError

__all__ = ["named_in_errors", "reason_of"]

_LONGEST = 300
_OWN = [Path(str(module.__file__)).parent for module in (onnxlens, onnxlens.plugins, onnxlens.runtime)]


@contextmanager
def named_in_errors(what: str) -> Iterator[None]:
    """Turns exceptions of a plugin into an error that names the plugin; errors of onnxlens pass unchanged.

    Args:
        what: the plugin, as the beginning of a sentence.

    Raises:
        PluginError: the plugin failed.
    """
    try:
        yield
    except (OnnxLensError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin may even call sys.exit
        raise PluginError(f"{what} failed: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """An exception as one line that says what went wrong and where."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error may be broken, too
        text = "(without a text)"
    if isinstance(error, OnnxLensError):
        return text
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]} …"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    if frames and not isinstance(error, SyntaxError):  # whose text says where
        line += f" (line {frames[-1].lineno} of {frames[-1].filename})"
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _is_machinery(filename: str) -> bool:
    """Whether a file belongs to onnxlens or to Python's import machinery: the fault is in the code that they called."""
    return "importlib" in filename or any(Path(filename).is_relative_to(folder) for folder in _OWN)
