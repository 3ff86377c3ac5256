"""The samplers: their distributions are those of transformers' processors, on ordinary and on adversarial logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sampling_references
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sampling_references import context, theirs
from yardstick import DOUBLE, close

from onnxlens.plugins.samplers import (
    Chain,
    Context,
    Greedy,
    Multinomial,
    Temperature,
    TopK,
    TopP,
    softmax,
    standard,
)
from onnxlens.runtime.errors import InputError

NAN, INF = math.nan, math.inf


def apply(sampler, logits) -> np.ndarray:
    return sampler(np.asarray(logits, np.float32), context())


logits_of = sampling_references.logits_of()


@given(logits=logits_of, temperature=st.floats(0.01, 100))
def test_temperature_is_transformers(logits, temperature):
    expected = theirs("TemperatureLogitsWarper", logits, temperature)
    close(apply(Temperature(temperature), logits), expected)


@given(logits=logits_of, k=st.integers(1, 50))
def test_top_k_is_transformers(logits, k):
    np.testing.assert_array_equal(apply(TopK(k), logits), theirs("TopKLogitsWarper", logits, k))


@given(logits=logits_of, p=st.floats(1e-6, 1))
def test_top_p_keeps_the_fewest_that_reach_p(logits, p):
    probabilities = softmax(logits)
    kept = np.isfinite(apply(TopP(p), logits)) & np.isfinite(logits)
    for row, keeps in zip(probabilities, kept, strict=True):
        assert keeps.any()
        mass = row[keeps].sum()
        assert mass >= p - 1e-9
        if p < 1:
            assert mass - row[keeps].min() < p + 1e-9
            assert row[keeps].min() >= row[~keeps].max(initial=0)


@given(logits=logits_of, k=st.integers(1, 50))
def test_top_k_keeps_the_best_and_their_ties(logits, k):
    left = apply(TopK(k), logits)
    for before, after in zip(logits, left, strict=True):
        least = np.sort(before)[::-1][min(k, len(before)) - 1]
        np.testing.assert_array_equal(after, np.where(before >= least, before, -INF))


@given(logits=logits_of)
def test_greedy_takes_the_first_of_the_largest(logits):
    left = apply(Greedy(), logits)
    for before, after in zip(logits, left, strict=True):
        assert np.flatnonzero(after > -INF).tolist() == [before.argmax()]


@given(logits=logits_of, seed=st.integers(0, 2**32 - 1))
def test_a_draw_leaves_one_token_that_was_possible(logits, seed):
    left = Multinomial()(logits, context(seed=seed))
    for before, after in zip(logits, left, strict=True):
        (chosen,) = np.flatnonzero(after > -INF)
        assert before[chosen] > -INF
        assert softmax(before[np.newaxis])[0, chosen] > 0


class _Fixed:
    """A source of randomness that gives the number it was made with."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self, size: int) -> np.ndarray:
        return np.full(size, self.number)


@pytest.mark.parametrize(("draw", "chosen"), [(0.0, 1), (1 - 2**-53, 3)])
def test_the_smallest_and_largest_draws_never_choose_what_was_ruled_out(draw, chosen):
    logits = np.array([[-INF, 0.0, 1.0, 0.5, -INF, -INF]], np.float32)
    left = Multinomial()(logits, Context(np.array([[1]]), 0, _Fixed(draw)))
    assert np.flatnonzero(left[0] > -INF).tolist() == [chosen]


@given(logits=logits_of, sampler=st.sampled_from([Temperature(0.7), TopK(3), TopP(0.5), Greedy(), Multinomial()]))
def test_no_sampler_changes_the_logits_it_is_given_or_their_shape(logits, sampler):
    before = logits.copy()
    assert apply(sampler, logits).shape == logits.shape
    np.testing.assert_array_equal(logits, before)


def frequencies(sampler, logits: np.ndarray, draws: int = 40_000) -> np.ndarray:
    """How often each token is drawn, all draws as rows of one batch."""
    rows = np.broadcast_to(np.asarray(logits, np.float32), (draws, len(logits)))
    left = sampler(rows, context(seed=1234))
    return np.bincount((left > -INF).argmax(axis=1), minlength=len(logits))


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; what has no probability must not occur."""
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    expected = counts.sum() * probabilities[possible]
    return float(((counts[possible] - expected) ** 2 / expected).sum()), int(possible.sum()) - 1


LOGITS = np.array([2.0, 1.0, 1.0, 0.0, -INF, -1.0, -2.0, 0.5, 1.5, -0.5])


@pytest.mark.parametrize(
    ("options", "kept", "temperature"),
    [
        ({}, slice(None), 1.0),
        ({"temperature": 0.5}, slice(None), 0.5),
        ({"temperature": 2.0}, slice(None), 2.0),
        ({"top_k": 3}, [0, 1, 2, 8], 1.0),  # 1 and 2 tie
        ({"top_p": 0.5}, [0, 8], 1.0),
        ({"temperature": 1.5, "top_k": 5, "top_p": 0.9}, [0, 1, 2, 7, 8], 1.5),
    ],
)
def test_frequencies_of_the_standard_chain_are_its_probabilities(options, kept, temperature):
    masked = np.full(len(LOGITS), -INF)
    masked[kept] = LOGITS[kept] / temperature
    statistic, freedom = chi_square(frequencies(standard(**options), LOGITS), softmax(masked[np.newaxis])[0])
    # Mean `freedom`, deviation sqrt(2 freedom): five deviations are passed once in a hundred thousand seeds.
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


def test_the_check_of_frequencies_would_notice_a_wrong_distribution():
    statistic, freedom = chi_square(frequencies(standard(temperature=1.1), LOGITS), softmax(LOGITS[np.newaxis])[0])
    assert statistic > freedom + 5 * math.sqrt(2 * freedom)


def test_the_temperature_applies_before_top_p():
    """At temperature 0.1 one token has nearly all probability; at 1 none has a tenth of it."""
    logits = np.linspace(0, 1, 30, dtype=np.float32)[np.newaxis]
    kept = Chain((Temperature(0.01), TopP(0.9)))(logits, context())
    assert (kept > -INF).sum() == 1
    chain = standard(temperature=0.01, top_p=0.9)
    assert isinstance(chain, Chain)
    assert [type(sampler) for sampler in chain.samplers] == [Temperature, TopP, Multinomial]


def test_a_chain_is_a_sampler_and_chains_can_be_nested():
    flat = Chain((Temperature(2.0), TopK(2), Multinomial()))
    nested = Chain((Chain((Temperature(2.0),)), Chain((TopK(2), Multinomial()))))
    logits = np.random.default_rng(0).normal(size=(5, 20))
    np.testing.assert_array_equal(flat(logits, context(seed=3)), nested(logits, context(seed=3)))


@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
def test_temperature_zero_is_greedy(zero):
    assert standard(temperature=zero, top_k=5, top_p=0.5) == Greedy()


@given(
    logits=arrays(np.float64, (1, 20), elements=st.floats(-1e300, 1e300)),
    temperature=st.floats(min_value=1e-300, max_value=1e6, exclude_min=True),
)
def test_extreme_temperatures_give_a_token_or_an_error_never_a_warning(logits, temperature):
    with np.errstate(all="raise", under="ignore", over="ignore"):
        try:
            left = standard(temperature=temperature)(logits, context())
        except InputError as error:
            cold = f"temperature must be at least 1e-06, not {temperature:g}; the sampler greedy always takes"
            hot = "The sampler Temperature returns logits that are NaN or infinite."
            assert str(error).startswith(cold if temperature < 1e-6 else hot)
        else:
            assert (left > -INF).sum() == 1


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (-1, "a number of at least 0.0, not -1"),
        (NAN, "a number of at least 0.0, not nan"),
        (INF, "a number of at most 1000000.0, not inf"),
        (-INF, "a number of at least 0.0, not -inf"),
        ("hot", "a number, not 'hot'"),
        ("0.5", "a number, not '0.5'"),
        (None, "a number, not None"),
        (True, "a number, not True"),
    ],
)
def test_a_temperature_that_is_none(temperature, expected):
    with pytest.raises(InputError) as caught:
        standard(temperature=temperature)
    assert str(caught.value).removeprefix("temperature: ") == f"temperature must be {expected}."


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (0, "a whole number of at least 1"),
        (-1, "a whole number of at least 1"),
        (1.5, "a whole number"),
        (NAN, "a whole number"),
        ("3", "a whole number"),
        (True, "a whole number"),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 0])
def test_a_top_k_that_is_none(k, expected, temperature):
    with pytest.raises(InputError) as caught:
        standard(top_k=k, temperature=temperature)
    assert str(caught.value) == f"top_k: k must be {expected}, not {k!r}."


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0, "a number above 0.0"),
        (-0.5, "a number above 0.0"),
        (1.0001, "a number of at most 1.0"),
        (2, "a number of at most 1.0"),
        (NAN, "a number above 0.0"),
        (INF, "a number of at most 1.0"),
        ("0.9", "a number"),
        (True, "a number"),
    ],
)
def test_a_top_p_that_is_none(p, expected):
    with pytest.raises(InputError) as caught:
        standard(top_p=p)
    assert str(caught.value) == f"top_p: p must be {expected}, not {p!r}."


@pytest.mark.parametrize("row", [[NAN, 1.0], [-INF, -INF], [INF, 1.0]])
@pytest.mark.parametrize("sampler", [Multinomial(), TopP(0.5)])
def test_logits_that_no_token_can_be_drawn_from(row, sampler):
    with pytest.raises(InputError, match=r"^The logits hold NaN, or no token is left to choose from\.$"):
        apply(sampler, [row])


@given(logits=logits_of)
def test_softmax_sums_to_one_in_float64(logits):
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float64
    close(probabilities.sum(axis=-1), np.ones(len(logits)), within=DOUBLE)
    assert (probabilities[np.isneginf(logits)] == 0).all()
