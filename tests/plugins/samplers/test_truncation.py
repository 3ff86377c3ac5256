"""Samplers that rule out tokens: as transformers and llama.cpp do it, on ordinary and on adversarial logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sampling_references import (
    INF,
    context,
    decided,
    logits_of,
    same_but_for_ties,
    tail_free,
    theirs,
    top_n_sigma,
    xtc,
)

from onnxlens.plugins.samplers import (
    XTC,
    Candidates,
    Epsilon,
    Eta,
    MinP,
    TailFree,
    TopH,
    TopK,
    TopNSigma,
    TopP,
    Typical,
    softmax,
)

shares = st.floats(0.01, 0.99)


@given(logits=logits_of(), p=shares)
def test_top_p_is_transformers(logits, p):
    assume(decided(TopP, p, logits))
    assert same_but_for_ties(TopP(p)(logits, context()), theirs("TopPLogitsWarper", logits, p))


@given(logits=logits_of(), p=shares)
def test_min_p_is_transformers(logits, p):
    assume(decided(MinP, p, logits))
    np.testing.assert_array_equal(MinP(p)(logits, context()), theirs("MinPLogitsWarper", logits, p))


@given(logits=logits_of())
def test_min_p_of_0_keeps_all_and_of_1_the_best_only(logits):
    np.testing.assert_array_equal(MinP(0)(logits, context()), logits)
    np.testing.assert_array_equal(MinP(1)(logits, context()), TopK(1)(logits, context()))


@given(logits=logits_of(), p=shares)
def test_typical_is_transformers(logits, p):
    # Logits of 1e4 leave no digits of float32 for an entropy.
    logits = np.where(np.abs(logits) == 1e4, 20, logits)
    assume(decided(Typical, p, logits))
    assume(all(_distinct(row) for row in logits))
    np.testing.assert_array_equal(Typical(p)(logits, context()), theirs("TypicalLogitsWarper", logits, p))


def _distinct(row: np.ndarray) -> bool:
    """Whether different logits are typical to different degrees, so that their order is certain."""
    values = np.unique(row[row > -INF]).astype(np.float64)
    p = softmax(row[np.newaxis])[0]
    entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    total = np.log(np.exp(row.astype(np.float64) - row.max()).sum()) + row.max()
    degrees = np.sort(np.abs(total - values - entropy))
    return bool((np.diff(degrees) > 1e-4).all())


@given(logits=logits_of(), epsilon=shares)
def test_epsilon_is_transformers(logits, epsilon):
    assume(decided(Epsilon, epsilon, logits))
    np.testing.assert_array_equal(Epsilon(epsilon)(logits, context()), theirs("EpsilonLogitsWarper", logits, epsilon))


@given(logits=logits_of(), epsilon=st.one_of(shares, st.floats(1e-5, 1e-2)))
def test_eta_is_transformers(logits, epsilon):
    assume(decided(Eta, epsilon, logits))
    np.testing.assert_array_equal(Eta(epsilon)(logits, context()), theirs("EtaLogitsWarper", logits, epsilon))


@given(logits=logits_of(vocabulary=150), h=shares)
def test_top_h_is_transformers(logits, h):
    assume(decided(TopH, h, logits))
    # Where all entropy is in the digits that float32 does not have, it knows none.
    p = softmax(logits)
    assume((-(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1) > 0.1).all())
    assert same_but_for_ties(TopH(h)(logits, context()), theirs("TopHLogitsWarper", logits, h))


def test_top_h_looks_at_as_many_tokens_as_it_is_told():
    logits = np.linspace(0, 1, 150)[np.newaxis]
    kept = [(TopH(0.99, tokens=tokens)(logits, context()) > -INF).sum() for tokens in (1, 20, 150)]
    assert kept[0] == 1 < kept[1] <= 20 < kept[2]


@pytest.mark.parametrize("row", [[3.0], [0.0, 0.0, 0.0], [-INF, 1.0, -INF], [1e4, 0.0], [-1e4, -1e4, 5.0]])
@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (TopK(2), "TopK"),
        (TopP(0.9), "TopP"),
        (MinP(0.1), "MinP"),
        (Typical(0.9), "Typical"),
        (Epsilon(0.4), "Epsilon"),
        (Eta(0.4), "Eta"),
        (TopH(0.5), "TopH"),
    ],
)
def test_on_adversarial_logits_it_is_transformers(row, ours, name):
    logits = np.array([row], np.float32)
    expected = theirs(f"{name}LogitsWarper", logits, next(iter(vars(ours).values())))
    assert same_but_for_ties(ours(logits, context()), expected)


@given(logits=logits_of(), z=shares, scale=st.sampled_from([1, 1e-3, 1e-5, 1e-8]))  # down to nearly straight lines
def test_tail_free_is_llama_cpp(logits, z, scale):
    logits = logits * np.float64(scale)
    assume(decided(TailFree, z, logits))
    np.testing.assert_array_equal(TailFree(z)(logits, context()), [tail_free(row, z) for row in logits])


@given(logits=logits_of(), n=st.floats(0.01, 5))
def test_top_n_sigma_is_llama_cpp(logits, n):
    assume(decided(TopNSigma, n, logits))
    np.testing.assert_array_equal(TopNSigma(n)(logits, context()), [top_n_sigma(row, n) for row in logits])


@given(logits=logits_of(), n=st.floats(0.01, 5), temperature=st.floats(0.1, 10))
def test_a_temperature_does_not_change_what_top_n_sigma_keeps(logits, n, temperature):
    assume(decided(TopNSigma, n, logits))
    cooled = TopNSigma(n)(logits / np.float64(temperature), context())
    np.testing.assert_array_equal(cooled > -INF, TopNSigma(n)(logits, context()) > -INF)


@given(logits=logits_of(), threshold=shares)
def test_xtc_is_llama_cpp(logits, threshold):
    assume(decided(lambda value: XTC(1, value), threshold, logits))
    np.testing.assert_array_equal(XTC(1, threshold)(logits, context()), [xtc(row, threshold) for row in logits])


@given(logits=logits_of(rows=8), probability=st.floats(0, 1), seed=st.integers(0, 99))
@example(logits=np.array([[-1e-45, 0]], np.float32), probability=1.0, seed=0)  # of the same probability, rounded
def test_xtc_acts_where_the_draw_of_the_row_is_below_its_probability(logits, probability, seed):
    draws = np.random.default_rng(seed).random(len(logits))
    expected = [xtc(row, 0.1) if draw < probability else row for row, draw in zip(logits, draws, strict=True)]
    after = context(seed=seed)
    np.testing.assert_array_equal(XTC(probability)(logits, after), expected)
    # Whether it acts or not, it uses up as much randomness.
    np.testing.assert_array_equal(after.rng.random(2), np.random.default_rng(seed).random(len(logits) + 2)[-2:])


def test_xtc_acts_as_often_as_it_should():
    logits = np.broadcast_to(np.float32([1.0, 1.0, 0.0]), (20_000, 3))
    acted = np.isneginf(XTC(0.3)(logits, context())).any(axis=1).mean()
    assert abs(acted - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 20_000)


@given(logits=logits_of(), count=st.integers(1, 60))
def test_the_best_candidates_are_those_of_a_full_sort(logits, count):
    best = Candidates.best(logits, count).scatter()
    for row, found in zip(logits, best, strict=True):
        least = np.sort(row)[::-1][min(count, len(row)) - 1]
        np.testing.assert_array_equal(found, np.where(row >= least, row, -INF))


@pytest.mark.parametrize("kind", ["normal", "equal", "few", "ties", "steps"])
@pytest.mark.parametrize("count", [1, 7, 300, 2_000, 9_999, 10_000])
def test_the_best_candidates_of_a_large_vocabulary(kind, count):
    rng = np.random.default_rng(0)
    logits = {
        "normal": rng.normal(size=(3, 10_000)),
        "equal": np.zeros((3, 10_000)),
        "few": np.where(rng.random((3, 10_000)) < [[0.5], [0.01], [0.0005]], 1.0, -INF) * 1,
        "ties": rng.integers(0, 5, (3, 10_000)).astype(float),
        "steps": np.arange(30_000.0).reshape(3, 10_000),
    }[kind]
    best = Candidates.best(logits, count).scatter()
    least = np.sort(logits, axis=-1)[:, [-count]]
    np.testing.assert_array_equal(best, np.where(logits >= least, logits, -INF))


@pytest.mark.parametrize("scale", [0.001, 1, 3, 20])
@pytest.mark.parametrize("p", [0.1, 0.9, 0.999])
def test_top_p_of_a_large_vocabulary_is_that_of_a_full_sort(scale, p):
    logits = np.random.default_rng(0).normal(size=(2, 50_257)) * scale
    order = np.argsort(-logits, axis=-1, kind="stable")
    probabilities = np.take_along_axis(softmax(logits), order, axis=-1)
    before = np.cumsum(probabilities, axis=-1) - probabilities
    expected = np.full_like(logits, -INF)
    for row in range(2):
        kept = order[row, before[row] < p]
        expected[row, kept] = logits[row, kept]
    np.testing.assert_array_equal(TopP(p)(logits, context()), expected)


def test_one_full_row_among_nearly_empty_ones():
    logits = np.full((12, 100), -INF)
    logits[:, 50] = 1
    logits[3] = np.arange(100)
    kept = TopK(5)(logits, context())
    assert (kept > -INF).sum(axis=1).tolist() == [1, 1, 1, 5, *[1] * 8]
    assert (Candidates.of(logits).scatter() == logits).all()


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (TopK(40), "TopK"),
        (TopP(0.95), "TopP"),
        (MinP(0.05), "MinP"),
        (Typical(0.9), "Typical"),
        (Epsilon(3e-4), "Epsilon"),
        (Eta(1e-3), "Eta"),
        (TopH(0.4), "TopH"),
    ],
)
@pytest.mark.parametrize("scale", [1, 3, 10])
def test_on_the_vocabulary_of_gpt_2_it_equals_transformers(ours, name, scale):
    logits = (np.random.default_rng(0).normal(size=(2, 50_257)) * scale).astype(np.float32)
    found = ours(logits, context())
    expected = theirs(f"{name}LogitsWarper", logits, next(iter(vars(ours).values())))
    differ = (found == -INF) != (expected == -INF)
    # Float32 sums of so many numbers are off by about this much.
    assert (softmax(logits) * differ).sum() < 1e-4
    np.testing.assert_array_equal(found[~differ], expected[~differ])
