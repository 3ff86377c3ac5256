"""Notices Ctrl-C at any moment, even where a library turns it into another error.

While a module written in C is imported, a KeyboardInterrupt may come out as an ImportError, or, in a callback, only be
printed. So interrupts are remembered, and code that catches an error asks here first.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from types import FrameType

__all__ = ["came", "end", "watch"]

_came = False


def watch() -> None:
    """Starts to remember interrupts, unless the parent process ignores them."""
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL):
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _again


def came() -> bool:
    """Whether there was an interrupt."""
    return _came


def end() -> None:
    """Ignores interrupts from now on, while the process ends."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    raise KeyboardInterrupt


def _again(unraisable: sys.UnraisableHookArgs) -> None:
    """Interrupts again after an interrupt in a callback, which cannot pass it on."""
    if _came and unraisable.exc_type is KeyboardInterrupt:
        later = threading.Timer(0.02, _thread.interrupt_main)  # at once, it would come here, and be lost again
        later.daemon = True
        later.start()
    else:
        sys.__unraisablehook__(unraisable)
