"""Every hook point and the logits against the float64 oracle, with PyTorch float32 as the yardstick."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from checkpoints import MODELS
from eager import Eager
from oracle import run_bundle
from yardstick import Errors

from onnxlens._catalog import SHIPPED, places
from onnxlens.runtime._running.runner import Runner


def batches(runner: Runner, *, padded: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and masks of several lengths; the largest error over all of them is what is compared."""
    rng = np.random.default_rng(7)
    limit = min(runner.config.n_ctx, 40)
    for length in (1, 2, 7, 16, limit):
        ids = rng.integers(0, runner.config.d_vocab, (4, length))
        mask = np.ones_like(ids)
        if padded:
            for row, padding in enumerate(rng.integers(0, length, 4)):
                mask[row, :padding] = 0
        yield ids, mask


def check(runner: Runner, *, padded: bool) -> None:
    errors, eager = Errors(), Eager(runner)
    for ids, mask in batches(runner, padded=padded):
        output = runner.run(ids, mask, names_filter="*")
        true = run_bundle(runner.bundle, ids, mask)
        errors.add_pass({**output.activations, "logits": output.logits}, true, eager.runs(ids, mask), mask)
    assert not errors.too_large()


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # -inf minus -inf, masked out after
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", [*MODELS, "base-float16", "untied-float16"])
def test_no_hook_point_is_further_from_the_truth_than_twice_eager_pytorch(runner, name, padded):
    check(runner(name), padded=padded)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_the_trained_model_is_no_further_from_the_truth_than_twice_eager_pytorch():
    folder = places()["shipped"] / SHIPPED
    check(Runner(folder, provider="cpu", threads=1), padded=True)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("name", ["hook_embed", "blocks.1.attn.hook_pattern", "blocks.0.attn.hook_result", "logits"])
def test_an_error_of_a_hundred_thousandth_would_be_noticed(runner, name):
    class Skewed(Runner):
        def run(self, *args, **options):
            output = super().run(*args, **options)
            value = output.logits if name == "logits" else output.activations[name]
            value *= np.float32(1 + 1e-5)
            return output

    with pytest.raises(AssertionError, match=name):
        check(Skewed(runner("base").bundle, provider="cpu", threads=1), padded=False)
