"""Models that are closed, or no longer used: their memory is free again, and what was read stays."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from yardstick import close

from onnxlens._lens import Lens
from onnxlens.metrics import logit_difference
from onnxlens.runtime._running import session
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime.errors import InputError

IDS = [5, 6, 7]
CLOSED = r"^This model was closed; open it again with onnxlens\.load\.$"


@pytest.fixture
def lens(bundle) -> Lens:
    return Lens(Runner(bundle("base-gradients"), provider="cpu", threads=1))


def test_a_with_block_closes_the_model_and_what_was_read_stays_usable(lens):
    with lens as opened:
        assert opened is lens
        _, cache = lens.run_with_cache(IDS)
        gradients = lens.grad(IDS, metric=logit_difference(5, 6)).gradients
        assert repr(lens) == "Lens('base-gradients', provider='cpu')"
    assert repr(lens) == "Lens('base-gradients', provider='cpu', closed)"
    direct = cache.logit_attrs(cache.decompose_resid(), 5)
    assert np.isfinite(direct).all()
    assert np.isfinite(gradients["hook_embed"]).all()
    assert lens.weights["W_E"].shape == (300, 32)
    assert lens.to_string(lens.tokenizer.encode("ab")) == "ab"
    lens.close()  # twice is no error


@pytest.mark.parametrize(
    "use",
    [
        lambda lens: lens.predict(IDS),
        lambda lens: lens.run_with_cache(IDS),
        lambda lens: lens.generate(IDS, max_new_tokens=1).text,
        lambda lens: lens.grad(IDS, metric=logit_difference(5, 6)),
        lambda lens: lens.view("tokens", IDS),
        lambda lens: lens.runner.gradients.run(IDS, cotangent=np.ones_like),
    ],
)
@pytest.mark.parametrize("used", [True, False], ids=["after use", "before use"])
def test_a_closed_model_says_so(lens, use, used):
    if used:
        use(lens)
    lens.close()
    with pytest.raises(InputError, match=CLOSED):
        use(lens)


def test_a_generation_of_a_model_that_was_closed_meanwhile_says_so(lens):
    generation = lens.generate(IDS, max_new_tokens=3, temperature=0)
    next(generation)
    lens.close()
    with pytest.raises(InputError, match=CLOSED):
        next(generation)


def test_the_sessions_of_a_model_are_gone_with_its_last_use(bundle):
    lens = Lens(Runner(bundle("base"), provider="cpu", threads=1))
    gc.collect()
    gc.disable()  # so that only reference counts decide
    try:
        before = set(map(id, session._open))
        lens.predict(IDS)
        lens.run_with_cache(IDS)
        assert len(set(map(id, session._open)) - before) == 3
        del lens
        assert set(map(id, session._open)) <= before
    finally:
        gc.enable()


def test_runs_that_have_begun_when_a_model_is_closed_are_finished(lens):
    expected = lens.run_with_cache(IDS)[0]
    inside, closed = threading.Event(), threading.Event()
    found: list[np.ndarray] = []

    def wait(value, hook) -> None:
        inside.set()
        assert closed.wait(10)

    thread = threading.Thread(
        target=lambda: found.append(lens.run_with_hooks(IDS, [("blocks.0.hook_resid_post", wait)]))
    )
    thread.start()
    assert inside.wait(10)
    lens.close()
    closed.set()
    thread.join(30)
    close(found[0], expected)
