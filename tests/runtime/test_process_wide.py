"""Changes to the whole process that threads share: made once, undone once, whoever comes first and last."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from onnxlens.runtime._process_wide import ProcessWide


def setting() -> tuple[list[str], ProcessWide]:
    """A process-wide setting and the context that changes it, and puts back what it found."""
    value = ["before"]

    @contextmanager
    def changed() -> Iterator[None]:
        found = value[0]
        value[0] = "inside"
        try:
            yield
        finally:
            value[0] = found

    return value, ProcessWide(changed)


def test_the_last_thread_to_leave_puts_back_what_the_first_one_found():
    value, inside = setting()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with inside():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with inside():
        thread.start()
        assert entered.wait(10)
    assert value == ["inside"]  # the other thread needs it still
    leave.set()
    thread.join(10)
    assert value == ["before"]


def test_it_can_be_nested_and_is_undone_after_an_error():
    value, inside = setting()
    with pytest.raises(RuntimeError), inside(), inside():
        raise RuntimeError
    assert value == ["before"]
    with inside():
        assert value == ["inside"]
    assert value == ["before"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have():
    value, inside = setting()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with inside():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(10)
    if (child := os.fork()) == 0:
        os._exit(0 if value == ["before"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert value == ["inside"]
    with inside():
        if (child := os.fork()) == 0:  # the forking thread is inside, in the child, too
            os._exit(0 if value == ["inside"] else 1)
        assert os.waitpid(child, 0)[1] == 0
    leave.set()
    thread.join(10)
    assert value == ["before"]
