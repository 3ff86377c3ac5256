"""Stopping a computation from another thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import onnxruntime

__all__ = ["Stop", "current_stop"]


class Stop:
    """Stops what a model computes, when another thread asks.

        stop = Stop()
        threading.Timer(10, stop.now).start()
        with stop.watching():
            ablate_heads(lens, text, metric)  # raises StoppedError once ten seconds have passed

    ONNX Runtime looks at it before each node of a graph, so a pass ends within milliseconds. What NumPy computes ends
    first.

    Attributes:
        is_stopped: whether `now` was called.
    """

    def __init__(self) -> None:
        self.is_stopped = False
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = 4  # the error says what the log would print

    @property
    def run_options(self) -> onnxruntime.RunOptions:
        """The options of ONNX Runtime with which a session is run."""
        return self._options

    def now(self) -> None:
        """Stops the pass that runs, and all that begin later under this; from any thread."""
        self.is_stopped = True
        self._options.terminate = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Passes of any model that this thread, or this asyncio task, runs inside raise StoppedError after `now`."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Stop | None] = ContextVar("onnxlens_stop", default=None)


def current_stop() -> Stop | None:
    """What may stop the passes of this thread or asyncio task."""
    return _current.get()
