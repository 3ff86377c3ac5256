"""A session of ONNX Runtime, which every process opens for itself.

A forked process has the parent's sessions, but not their threads. Destroying such a session would wait for threads that
do not exist, for ever. So it is never destroyed there, and another one is opened when it is needed.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import cache

import onnxruntime

from onnxlens.runtime.errors import ProviderError

__all__ = ["Session", "give_back_memory", "keep_when_forked"]

_open: weakref.WeakSet[onnxruntime.InferenceSession] = weakref.WeakSet()  # of this process


def keep_when_forked(session: onnxruntime.InferenceSession) -> None:
    """Keeps a session alive in every process that is forked from this one."""
    _open.add(session)


def _keep() -> None:
    import ctypes

    for session in list(_open):
        # One more reference than needed, so that neither its last user nor the end of the interpreter destroys it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)


def give_back_memory() -> None:
    """Returns freed memory to the system, where the allocator keeps it (glibc's does).

    For a moment, opening a session takes a few times the memory that it needs afterwards, in pieces between others.
    Without this, a process that opens many sessions holds some 40 MB more for each of them with GPT-2's weights.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    import ctypes

    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # another allocator, or another system
        return None
    return found


class Session:
    """A session that a forked process opens anew when it first uses it.

    Args:
        start: opens it.
        check: called before each use; raises an error if what the session reads was changed.
        survives: whether the library can be used in a forked process; CUDA cannot.
    """

    def __init__(
        self,
        start: Callable[[], onnxruntime.InferenceSession],
        *,
        check: Callable[[], None] = lambda: None,
        survives: bool = True,
    ) -> None:
        self._start, self._check, self._survives = start, check, survives
        self._opened = os.getpid(), start()
        give_back_memory()

    def get(self) -> onnxruntime.InferenceSession:
        """Returns the session of this process.

        Raises:
            BundleError: its file was changed, or it cannot be opened again.
            ProviderError: this process was forked, and the provider does not allow that.
        """
        self._check()
        process, session = self._opened
        if process != os.getpid():
            if not self._survives:
                raise ProviderError(
                    "This model runs on CUDA, which cannot be used in a forked process. Start processes with 'spawn', "
                    "or open the model in each of them."
                )
            session = self._start()
            self._opened = os.getpid(), session
        return session
