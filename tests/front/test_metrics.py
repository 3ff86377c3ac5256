"""The metrics: their values by the formulas, their gradients by central differences, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from yardstick import DOUBLE, close

from onnxlens.metrics import (
    Metric,
    checked_gradient,
    log_probability,
    logit,
    logit_difference,
    loss,
)
from onnxlens.runtime.errors import InputError

LOGITS = np.random.default_rng(0).normal(0, 3, (2, 4, 5))
TOKENS = np.array([[0, 0, 3, 1], [4, 2, 0, 1]])
MASK = np.array([[0, 0, 1, 1], [1, 1, 1, 1]])


def probabilities(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (logit(3), LOGITS[:, -1, 3]),
        (logit(3, position=0), [LOGITS[0, 2, 3], LOGITS[1, 0, 3]]),
        (logit(3, position=-2), LOGITS[:, 2, 3]),
        (logit(np.array([3, 1])), [LOGITS[0, -1, 3], LOGITS[1, -1, 1]]),
        (logit_difference(3, 1), LOGITS[:, -1, 3] - LOGITS[:, -1, 1]),
        (logit_difference(2, 2, position=1), [0, 0]),
        (log_probability(4), np.log(probabilities(LOGITS)[:, -1, 4])),
        (log_probability(4, position=1), np.log(probabilities(LOGITS))[[0, 1], [3, 1], 4]),
        (
            loss(),
            [
                -np.log(probabilities(LOGITS))[0, 2, 1],
                -np.log(probabilities(LOGITS))[1, [0, 1, 2], [2, 0, 1]].mean(),
            ],
        ),
    ],
)
def test_values_are_those_of_the_formulas(metric, expected):
    found = metric.value(LOGITS, TOKENS, MASK)
    assert found.dtype == np.float64
    close(found, expected, within=DOUBLE)


METRICS = st.one_of(
    st.builds(logit, st.integers(0, 4), st.integers(-2, 1)),
    st.builds(logit_difference, st.integers(0, 4), st.integers(0, 4), st.integers(-2, 1)),
    st.builds(log_probability, st.integers(0, 4), st.integers(-2, 1)),
    st.just(loss()),
)


@settings(deadline=None)
@given(METRICS, arrays.arrays(np.float64, (2, 4, 5), elements=st.floats(-20, 20)), st.integers(0, 2**32 - 1))
def test_gradients_are_central_differences(metric, logits, seed):
    direction = np.random.default_rng(seed).normal(size=logits.shape)
    step = 1e-5
    above, below = (metric.value(logits + sign * step * direction, TOKENS, MASK) for sign in (1, -1))
    found = metric.gradient(logits, TOKENS, MASK)
    assert found.shape == logits.shape
    close((found * direction).sum((1, 2)), (above - below) / (2 * step), scale=found * direction)


@pytest.mark.parametrize("metric", [logit(1), logit_difference(1, 2), log_probability(0, 0), loss()])
def test_a_gradient_is_0_at_padding(metric):
    gradient = metric.gradient(LOGITS, TOKENS, MASK)
    assert not gradient[0, :2].any()
    assert gradient[1].any()


def test_very_large_logits_do_not_overflow():
    logits = np.array([[[1e4, -1e4, 0.0]]], np.float32)
    ones = np.ones((1, 1), np.int64)
    assert log_probability(1).value(logits, ones, ones) == -2e4
    np.testing.assert_array_equal(log_probability(1).gradient(logits, ones, ones), [[[-1, 1, 0]]])


@pytest.mark.parametrize("position", [2, -3, 100])
def test_a_position_beyond_the_tokens_of_a_row(position):
    with pytest.raises(InputError) as caught:
        logit(1, position).value(LOGITS, TOKENS, MASK)
    assert str(caught.value) == (
        f"Position {position} is out of range: row 0 has 2 tokens, padding not counted, so positions go from -2 to 1."
    )


@pytest.mark.parametrize("position", [1.0, True, "last", None])
def test_a_position_that_is_no_number(position):
    with pytest.raises(InputError, match="position must be a whole number, not "):
        logit(1, position).gradient(LOGITS, TOKENS, MASK)


def test_the_loss_of_a_single_token():
    with pytest.raises(InputError, match=r"needs a text of at least 2 tokens, .*; row 0 has 1"):
        loss().value(LOGITS, TOKENS, np.array([[0, 0, 0, 1], [1, 1, 1, 1]]))


def test_a_custom_metric():
    metric = Metric(lambda logits: (logits**2).sum((1, 2)), lambda logits: 2 * logits)
    close(metric.value(LOGITS, TOKENS, MASK), (LOGITS**2).sum((1, 2)), within=DOUBLE)
    close(metric.gradient(LOGITS, TOKENS, MASK), 2 * LOGITS, within=DOUBLE)
    one = Metric(lambda logits: logits.max(), np.zeros_like)  # a number is enough where there is one row
    assert one.value(LOGITS[:1], TOKENS[:1], MASK[:1]).shape == (1,)


def test_it_cannot_change_the_logits():
    def spoil(logits):
        logits[:] = 0

    with pytest.raises(ValueError, match="read-only"):
        Metric(spoil, spoil).value(LOGITS.copy(), TOKENS, MASK)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, r"one number for each row, shape \[2\], not \[\]\."),
        (np.zeros((2, 1)), r"one number for each row, shape \[2\], not \[2, 1\]\."),
        (np.array([1.0, np.nan]), r"returned 1 numbers that are NaN, infinite or beyond float32; .* at index \[1\]\."),
        (None, "must return real numbers, not object."),
        (np.ones(2, complex), "must return real numbers, not complex128."),
        (np.ones(2, bool), "must return real numbers, not bool."),
        ([[1], [1, 2]], "must return an array of numbers, not list."),
    ],
)
def test_values_that_cannot_be_used(value, text):
    with pytest.raises(InputError, match=f"^The metric's fn .*{text}$"):
        Metric(lambda logits: value, np.zeros_like).value(LOGITS, TOKENS, MASK)


@pytest.mark.parametrize(
    ("gradient", "text"),
    [
        (LOGITS[0], r"must return an array of the logits' shape \[2, 4, 5\], not \[4, 5\]\."),
        (LOGITS * 1j, "must return real numbers, not complex128."),
        (np.where(np.arange(40).reshape(2, 4, 5) == 33, np.inf, 0), r".*infinite.*the first is at index \[1, 2, 3\]\."),
        (LOGITS + 1e39, "returned 40 numbers that are NaN, infinite or beyond float32; .*"),
    ],
)
def test_gradients_that_cannot_be_used(gradient, text):
    with pytest.raises(InputError, match=f"^The metric's grad {text}$"):
        Metric(lambda logits: np.zeros(2), lambda logits: gradient).gradient(LOGITS, TOKENS, MASK)


def test_a_gradient_of_whole_numbers_will_do():
    assert checked_gradient(np.ones((2, 4, 5), int), (2, 4, 5), "It").shape == (2, 4, 5)


class FirstToken:
    """A metric of one's own that has a position and reads another one, too."""

    position = -1

    def with_ids(self, to_ids):
        return self

    def value(self, logits, tokens, mask):
        return (logits[:, 0, 7] + logits[:, self.position, 7]).astype(np.float64)

    def gradient(self, logits, tokens, mask):
        raise NotImplementedError


def test_a_metric_gets_all_positions_unless_it_says_that_it_reads_the_last_only(bundle):
    import onnxlens
    from onnxlens._measuring import Measure
    from onnxlens.analysis import ablate_heads

    lens = onnxlens.load(bundle("base"), provider="cpu", threads=1)
    found = ablate_heads(lens, "the cat sat", FirstToken())
    logits = lens.run_with_cache("the cat sat")[0][0]
    assert found.baseline == pytest.approx(float(logits[0, 7] + logits[-1, 7]), rel=1e-5)
    for metric, needs in ((logit(7), False), (logit(7, 0), True), (FirstToken(), True)):
        assert Measure(metric, lens.tokenizer, lens.config.d_vocab, 1).needs_all_positions is needs
