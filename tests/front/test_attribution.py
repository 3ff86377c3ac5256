"""Attribution by gradients: identities that must hold, and agreement with activations really patched."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from yardstick import close

from onnxlens import Lens
from onnxlens.analysis import attribution_patching, gradient_times_input, integrated_gradients
from onnxlens.metrics import Metric, logit, logit_difference, loss
from onnxlens.runtime.errors import BundleError, HookPointError, InputError

TEXT = "the cat sat on the mat"
METRIC = logit_difference(5, 9)


@pytest.fixture
def lens(runner: Callable) -> Lens:
    return Lens(runner("base-gradients"))


def test_gradient_times_input_is_that(lens):
    names = ["hook_embed", "blocks.1.attn.hook_z", "blocks.0.mlp.hook_post", "blocks.0.attn.hook_pattern"]
    found = gradient_times_input(lens, [TEXT, "the dog"], METRIC, names_filter=names)
    both = lens.grad([TEXT, "the dog"], metric=METRIC, names_filter=names, activations=True)
    axes = {
        "hook_embed": ("batch", "pos"),
        "blocks.1.attn.hook_z": ("batch", "pos", "head"),
        "blocks.0.mlp.hook_post": ("batch", "pos", "d_mlp"),
        "blocks.0.attn.hook_pattern": ("batch", "head", "query_pos", "key_pos"),
    }
    assert found.axes == axes
    assert [*found] == [*both.gradients]
    for name in names:
        product = both.gradients[name].astype(np.float64) * both.activations[name]
        summed = name in ("hook_embed", "blocks.1.attn.hook_z")
        expected = product.sum(-1) if summed else product
        close(found[name], expected, name, scale=product)
        assert found[name].ndim == len(axes[name])
    np.testing.assert_array_equal(found.value, both.value)
    padded = found.attention_mask == 0
    assert not found["hook_embed"][padded].any()


def test_the_last_residual_stream_explains_a_logit_up_to_the_bias(lens):
    """From the final normalised value on, the model is linear: gradient times input is exact but for ln_f's bias."""
    found = gradient_times_input(lens, TEXT, logit(5), names_filter="ln_final.hook_normalized")
    weights = lens.runner.bundle.weights
    constant = weights["ln_f.bias"].astype(np.float64) @ weights["wte.weight"][5]
    parts = found["ln_final.hook_normalized"]
    close(parts.sum() + constant, found.value[0], scale=parts)


@pytest.mark.parametrize("baseline", ["zeros", "mean", np.full(32, 0.3)])
def test_integrated_gradients_are_complete(lens, baseline):
    gaps = [abs(integrated_gradients(lens, TEXT, METRIC, baseline=baseline, steps=steps).gap) for steps in (2, 64)]
    found = integrated_gradients(lens, TEXT, METRIC, baseline=baseline, steps=64, batch_size=5)
    assert abs(found.value - found.baseline_value) > 0.05
    assert gaps[1] < 1e-4 < gaps[0]
    assert found.scores.shape == found.tokens.shape
    close(found.coordinates.sum(-1), found.scores, scale=found.coordinates)
    assert found.axes == ("pos",)


def test_integrated_gradients_of_a_text_that_is_its_own_baseline(lens):
    own = lens.grad(TEXT, metric=METRIC, names_filter=None, activations="hook_embed").activations["hook_embed"][0]
    found = integrated_gradients(lens, TEXT, METRIC, baseline=own, steps=3)
    assert not found.scores.any()
    assert found.gap == 0
    assert found.value == found.baseline_value


def test_the_batch_size_does_not_matter(lens):
    one, many = (integrated_gradients(lens, TEXT, METRIC, steps=6, batch_size=size).scores for size in (1, 6))
    close(one, many)


CLEAN, CORRUPTED = [7, 3, 11, 250, 40], [7, 3, 12, 250, 40]


def test_attribution_patching_is_the_first_order_of_patching(lens):
    """Moving a little from the corrupted embeddings to the clean ones changes the metric by as much as the estimate."""
    estimate = attribution_patching(lens, CLEAN, CORRUPTED, METRIC, names_filter="hook_embed")
    clean, corrupted = (
        lens.grad(ids, metric=METRIC, names_filter=None, activations="hook_embed") for ids in (CLEAN, CORRUPTED)
    )
    assert estimate.value == corrupted.value
    assert estimate.clean_value == clean.value
    start, end = (result.activations["hook_embed"] for result in (corrupted, clean))
    size = 0.02
    above, below = (
        lens.grad(CORRUPTED, metric=METRIC, names_filter=None, embeddings=start + sign * size * (end - start)).value[0]
        for sign in (1, -1)
    )
    assert estimate["hook_embed"].sum() == pytest.approx((above - below) / (2 * size), rel=0.01)
    np.testing.assert_array_equal(np.flatnonzero(estimate["hook_embed"][0]), [2])  # where the two texts differ


def test_attribution_patching_at_every_hook_point(lens):
    estimate = attribution_patching(lens, CLEAN, CORRUPTED, METRIC)
    assert [*estimate] == [*lens.runner.gradients.hook_names]
    for name, scores in estimate.items():
        assert np.isfinite(scores).all(), name
        assert scores.ndim == len(estimate.axes[name]), name
    # Nothing before position 2 can differ, and no later query sees a key that is masked.
    assert not estimate["blocks.1.hook_resid_pre"][0, :2].any()
    assert not np.triu(estimate["blocks.1.attn.hook_attn_scores"][0, 0], 1).any()


def test_patching_a_text_with_itself_does_nothing(lens):
    estimate = attribution_patching(lens, [TEXT, "the dog"], [TEXT, "the dog"], METRIC)
    assert not any(scores.any() for scores in estimate.values())
    np.testing.assert_array_equal(estimate.value, estimate.clean_value)


@pytest.mark.parametrize(("clean", "corrupted", "counts"), [
    ([1, 2], [1, 2, 3], r"\[2\] and \[3\]"),
    ([TEXT, "the dog"], ["the dog", TEXT], r"\[\d+, \d+\] and \[\d+, \d+\]"),
])  # fmt: skip
def test_texts_of_different_lengths_cannot_be_patched(lens, clean, corrupted, counts):
    with pytest.raises(InputError, match=f"the same numbers of tokens, text by text; they have {counts}"):
        attribution_patching(lens, clean, corrupted, METRIC)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0."),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, not 1.5."),
        ({"baseline": "ones"}, "baseline must be 'zeros', 'mean' or an array, not 'ones'."),
        ({"baseline": np.zeros(31)}, r"baseline must be .* broadcast to \[positions, width\] \[2, 32\]: .*"),
        ({"baseline": np.full(32, np.nan)}, "embeddings must be finite, and 64 of its numbers are not."),
    ],
)
def test_options_that_cannot_be_used(lens, options, text):
    with pytest.raises(InputError, match=f"^{text}$"):
        integrated_gradients(lens, [1, 2], METRIC, **options)


def test_several_texts_have_no_integrated_gradients(lens):
    with pytest.raises(InputError, match="one text at a time, not 2"):
        integrated_gradients(lens, [TEXT, "the dog"], METRIC)


def test_scores_that_were_not_asked_for(lens):
    found = gradient_times_input(lens, TEXT, loss())
    with pytest.raises(HookPointError, match=r"There are no scores at 'hook_embd'\. Did you mean 'hook_embed'"):
        found["hook_embd"]
    assert "hook_embd" not in found
    assert found.get("hook_embd") is None


def test_a_bundle_without_gradients(runner):
    with pytest.raises(BundleError, match="has no graph of its gradients"):
        gradient_times_input(Lens(runner("base")), TEXT, Metric(lambda logits: 0.0, np.zeros_like))
