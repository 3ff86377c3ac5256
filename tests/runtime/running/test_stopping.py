"""Another thread stops what a model computes; what is computed otherwise goes on."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from onnxlens.runtime import Stop
from onnxlens.runtime._running.stopping import current_stop
from onnxlens.runtime.errors import StoppedError

IDS = np.arange(1, 9)[np.newaxis]


@pytest.mark.parametrize("name", ["base", "llama"])
def test_a_stopped_pass_is_an_error_and_the_next_one_is_whole(runner, name):
    model = runner(name)
    expected = model.run(IDS).logits
    stop = Stop()
    with stop.watching():
        assert np.array_equal(model.run(IDS).logits, expected)  # watched, but nobody asked
        stop.now()
        with pytest.raises(StoppedError, match=r"^Stopped before the end, as another thread asked\.$"):
            model.run(IDS)
    assert stop.is_stopped
    assert current_stop() is None
    assert np.array_equal(model.run(IDS).logits, expected)


def test_a_loop_of_passes_ends_soon_after_another_thread_asked(runner):
    model = runner("base")
    stop = Stop()
    threading.Timer(0.2, stop.now).start()
    with stop.watching(), pytest.raises(StoppedError):
        while True:  # for ever, unless it is stopped
            model.run(IDS, names_filter="*.hook_pattern")


def test_a_stop_is_of_its_own_thread_only(runner):
    model = runner("base")
    stop = Stop()
    stop.now()
    found = []
    with stop.watching():
        thread = threading.Thread(target=lambda: found.append(model.run(IDS).logits))
        thread.start()
        thread.join()
    assert np.array_equal(found[0], model.run(IDS).logits)


def test_gradients_are_stopped_too(runner):
    model = runner("base-gradients")
    stop = Stop()
    stop.now()
    with stop.watching(), pytest.raises(StoppedError):
        model.gradients.run(IDS, cotangent=np.ones_like)
