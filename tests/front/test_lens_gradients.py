"""`Lens.grad`: text and tokens in, a metric's value and its gradients out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from yardstick import close

from onnxlens import Lens
from onnxlens.metrics import Metric, log_probability, logit, logit_difference, loss
from onnxlens.runtime.errors import BundleError, HookPointError, InputError

TEXT = "the cat sat on the mat"


@pytest.fixture
def lens(runner: Callable) -> Lens:
    return Lens(runner("base-gradients"))


def test_a_small_step_along_the_gradient_changes_the_metric_as_it_says(lens):
    for metric in (logit(5), logit_difference(5, 9), log_probability(7, position=1), loss()):
        found = lens.grad(TEXT, metric=metric, names_filter="hook_embed", activations=True)
        gradient, own = found.gradients["hook_embed"], found.activations["hook_embed"]
        step = 1e-2 * gradient / np.linalg.norm(gradient)
        above, below = (
            lens.grad(TEXT, metric=metric, names_filter=None, embeddings=own + sign * step).value[0] for sign in (1, -1)
        )
        assert (above - below) / 2 == pytest.approx(1e-2 * np.linalg.norm(gradient), rel=0.02)


def test_values_are_those_of_the_logits(lens):
    texts = [TEXT, "the dog"]
    result = lens.grad(texts, metric=logit(5), names_filter="hook_embed")
    np.testing.assert_array_equal(result.value, result.logits[:, -1, 5])
    logits, cache = lens.run_with_cache(texts)
    close(result.logits, logits)
    np.testing.assert_array_equal(result.gradients.tokens, cache.tokens)
    np.testing.assert_array_equal(result.gradients.attention_mask, cache.attention_mask)
    assert result.gradients.model == "base-gradients"
    assert [*result.activations] == []


def test_a_text_in_a_batch_gets_what_it_gets_alone(lens):
    texts = [TEXT, "the dog", "when the rain"]
    for metric in (logit(5, position=1), loss()):
        batch = lens.grad(texts, metric=metric, names_filter="blocks.0.hook_resid_mid")
        for row, text in enumerate(texts):
            alone = lens.grad(text, metric=metric, names_filter="blocks.0.hook_resid_mid")
            close(batch.value[row], alone.value[0], scale=alone.logits)
            (found,), (expected,) = batch.gradients.values(), alone.gradients.values()
            length = expected.shape[1]
            close(found[row, -length:], expected[0])


def test_tokens_by_text_and_one_for_each_row(lens):
    (the,) = lens.to_tokens(" the")[0].tolist()
    by_text = lens.grad([TEXT, "a"], metric=logit(" the"), names_filter=None)
    by_id = lens.grad([TEXT, "a"], metric=logit(the), names_filter=None)
    np.testing.assert_array_equal(by_text.value, by_id.value)
    each = lens.grad([TEXT, "a"], metric=logit([" the", "c"]), names_filter=None)
    assert each.value[0] == by_id.value[0]
    assert each.value[1] == each.logits[1, -1, lens.to_tokens("c")[0, 0]]


def test_activations_of_other_hook_points(lens):
    result = lens.grad(TEXT, metric=loss(), names_filter="hook_embed", activations="*.hook_pattern")
    assert [*result.gradients] == ["hook_embed"]
    assert [*result.activations] == ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]
    assert repr(result).startswith("GradientResult(value [")


def test_the_ready_metric_and_the_same_by_hand(lens):
    def onehot(logits):
        gradient = np.zeros_like(logits)
        gradient[:, -1, 5] = 1
        return gradient

    ready = lens.grad(TEXT, metric=logit(5), names_filter="hook_embed")
    own = lens.grad(TEXT, metric=Metric(lambda logits: logits[:, -1, 5], onehot), names_filter="hook_embed")
    np.testing.assert_array_equal(own.gradients["hook_embed"], ready.gradients["hook_embed"])
    np.testing.assert_array_equal(own.value, ready.value)


class Own:
    """A metric with the methods of the ready ones."""

    def __init__(self, value, gradient):
        self._value, self._gradient = value, gradient

    def with_ids(self, to_ids):
        return self

    def value(self, logits, tokens, mask):
        return self._value

    def gradient(self, logits, tokens, mask):
        return self._gradient


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (
            Own([1.0], np.zeros(3)),
            r"Own\.gradient must return an array of the logits' shape \[1, 2, 300\], not \[3\]\.",
        ),
        (Own([np.nan], None), r"Own\.value returned 1 numbers that are NaN.*"),
        (logit(""), "The metric's token '' is 0 tokens, and must be exactly one; .*"),
        (logit("zq"), r"The metric's token 'zq' is 2 tokens \('z', 'q'\), and must be exactly one; .*"),
        (logit(300), "Token id 300 is out of range: this model's ids are 0 to 299."),
        (logit(-1), "Token id -1 is out of range: this model's ids are 0 to 299."),
        (logit(1.5), "A token is an id or a text, or one for each row, not 1.5."),
        (logit([1, 2]), "The metric names 2 tokens, one for each row, and there are 1 rows."),
        (logit([True]), "A token is an id or a text, or one for each row, not True."),
        (logit(1, position=2), "Position 2 is out of range: row 0 has 2 tokens, .*"),
        ("loss", r"metric must be one of onnxlens\.metrics, .*, not 'loss'\."),
    ],
)
def test_metrics_that_cannot_be_used(lens, metric, text):
    with pytest.raises(InputError, match=f"^{text}$"):
        lens.grad([1, 2], metric=metric, names_filter="hook_embed")


def test_a_hook_point_that_is_not_there(lens):
    with pytest.raises(HookPointError, match=r"Unknown hook point 'blocks\.9\.hook_resid_pre'"):
        lens.grad(TEXT, metric=loss(), names_filter="blocks.9.hook_resid_pre")


def test_a_bundle_without_gradients(runner):
    with pytest.raises(BundleError, match=r"has no graph of its gradients .* 'onnxlens export SOURCE .* --gradients"):
        Lens(runner("base")).grad(TEXT, metric=loss())
