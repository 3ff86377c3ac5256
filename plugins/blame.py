"""Says whose fault it is when a plugin fails while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnxlens.plugins.loading import reason_of
from onnxlens.runtime.errors import OnnxLensError, PluginError

__all__ = ["blamed"]


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Turns whatever a plugin raises into an error that names it; errors of onnxlens are sentences already.

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
