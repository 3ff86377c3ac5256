"""Changes that hold for the whole process, such as where output goes, made and undone once for all threads.

A context manager that sets something process-wide and later puts back what it found is wrong where two threads overlap:
the second finds what the first one set, and puts that back last, so it stays for good.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

__all__ = ["ProcessWide"]

_all: weakref.WeakSet[ProcessWide] = weakref.WeakSet()


class ProcessWide(AbstractContextManager[None]):
    """A context that is entered by the first thread that needs it and left by the last.

    It is used like the function that it is made of, as in `with quiet():`.

    Args:
        make: makes the context manager, which sets something process-wide and undoes that at its end.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._users: Counter[int] = Counter()  # threads, and how often each has entered
        self._stack = ExitStack()
        _all.add(self)

    def __call__(self) -> ProcessWide:
        """Returns the context itself."""
        return self

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._stack.enter_context(self._make())
            self._users[threading.get_ident()] += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users[threading.get_ident()] -= 1
            self._leave_unless_used()

    def after_fork(self) -> None:
        """Leaves the context in a forked process for the threads that do not exist there."""
        self._lock = threading.RLock()  # one of them may have held it
        me = threading.get_ident()
        self._users = Counter({me: self._users[me]})
        self._leave_unless_used()

    def _leave_unless_used(self) -> None:
        self._users = +self._users  # those that are left
        if not self._users:
            self._stack.close()


def _after_fork() -> None:
    for context in list(_all):
        context.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
