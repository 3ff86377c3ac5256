"""The errors that onnxlens raises, each a sentence for the person who reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from onnxlens.runtime._escape import cut, escape_controls

__all__ = [
    "BundleError",
    "CheckpointError",
    "ContextLengthError",
    "ExportError",
    "HookFunctionError",
    "HookPointError",
    "InputError",
    "MissingLibraryError",
    "OnnxLensError",
    "OutputError",
    "PluginError",
    "ProviderError",
    "StoppedError",
    "TraceError",
    "parsing",
    "suggestion",
]


_LONGEST = 4000  # characters of an error
_WORD = 200  # characters of a word that is compared with others, which takes long for long ones


class OnnxLensError(Exception):
    """Base of every error that onnxlens raises on purpose; its text is one sentence or two, on one line.

    Input that the text quotes is safe to show: control characters are escaped, and a text longer than any sentence is
    cut in its middle.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(escape_controls(cut(str(text), _LONGEST)))


class BundleError(OnnxLensError):
    """A bundle is missing, damaged, unsafe, or written for another version of onnxlens."""


class CheckpointError(OnnxLensError):
    """A checkpoint cannot be read, or is not one that can be exported without changing its numbers."""


class ExportError(OnnxLensError):
    """An export could not be finished, or the exported graphs do not reproduce the PyTorch model."""


class HookPointError(OnnxLensError):
    """A name or pattern matches no hook point of the model."""


class HookFunctionError(OnnxLensError):
    """A function at hook points, or one that selects them, raised an error or returned something unusable."""


class InputError(OnnxLensError):
    """A text, token id or option has a value that cannot be used."""


class ContextLengthError(InputError):
    """A text is, or a generation would become, longer than the model has positions."""


class MissingLibraryError(InputError):
    """What was asked for needs a library that is not installed."""


class OutputError(OnnxLensError):
    """A result cannot be written where it was asked for."""


class PluginError(OnnxLensError):
    """A plugin cannot be loaded, is not there, or breaks the contract of its kind."""


class ProviderError(OnnxLensError):
    """An execution provider is unknown, not installed, or does not start."""


class StoppedError(OnnxLensError):
    """A computation was stopped by another thread; see `onnxlens.runtime.Stop`."""


class TraceError(OnnxLensError):
    """A trace is missing, damaged, of another version, or of another model."""


@contextmanager
def parsing(path: Path, what: str) -> Iterator[None]:
    """Turns whatever is raised while a file of a bundle is parsed into a `BundleError` that names the file.

    Args:
        path: the file.
        what: what it should be, with its article, such as 'an ONNX graph'.

    Raises:
        BundleError: something other than an `OnnxLensError` was raised, which passes as it is.
    """
    try:
        yield
    except OnnxLensError:
        raise
    except Exception as error:
        reason = cut(" ".join(f"{type(error).__name__}: {error}".split()), 300)
        raise BundleError(f"{path} cannot be read as {what} ({reason}). Export or copy the bundle again.") from error


def suggestion(word: str, known: Iterable[str], count: int = 3) -> str:
    """Returns ` Did you mean 'a' or 'b'?` with the nearest of the known words, or nothing if none is near."""
    near = get_close_matches(word[:_WORD], list(known), n=count, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
