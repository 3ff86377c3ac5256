"""Mirostat: what it keeps, what it learns from the token chosen, and how it forgets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sampling_references import INF, context, left, logits_of, mirostat_count, ordered, probabilities
from yardstick import DOUBLE, close

from onnxlens.plugins.samplers import Mirostat, MirostatV2, Multinomial

numbers = arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(3, 40)), elements=st.floats(-9, 9, width=32))


@given(logits=numbers, tau=st.floats(0.5, 5), m=st.integers(2, 60))
def test_what_mirostat_keeps_is_llama_cpp(logits, tau, m):
    assume(all(len(set(row.tolist())) > 1 for row in logits[:, :]))
    found = Mirostat(tau=tau, m=m)(logits, context())
    for row, kept in zip(logits, found, strict=True):
        try:
            count = mirostat_count(row, 2 * tau, m)
        except (OverflowError, ZeroDivisionError):  # theirs is no number, ours is all or one
            assert (kept > -INF).sum() in (1, len(row))
            continue
        nearest = abs(count - round(count)) if count < 1e6 else 1
        if nearest > 1e-4:
            expected = left(row, ordered(row)[: max(int(min(count, 1e6)), 1)])
            np.testing.assert_array_equal(kept, expected)


@given(logits=numbers, tau=st.floats(0.2, 5))
def test_what_mirostat_2_keeps_is_llama_cpp(logits, tau):
    found = MirostatV2(tau=tau)(logits, context())
    for row, kept in zip(logits, found, strict=True):
        tokens = ordered(row)
        surprises = [-math.log2(p) for p in probabilities(row, tokens)]
        assume(all(abs(each - 2 * tau) > 1e-6 for each in surprises))
        count = sum(each <= 2 * tau for each in surprises) or 1
        np.testing.assert_array_equal(kept, left(row, tokens[:count]))


@given(logits=numbers, seed=st.integers(0, 99), kind=st.sampled_from([Mirostat, MirostatV2]))
def test_the_chosen_token_corrects_mu(logits, seed, kind):
    sampler, tau, eta = kind(tau=2.0, eta=0.3), 2.0, 0.3
    mu = np.full(len(logits), 2 * tau)
    here = context(seed=seed)
    for _ in range(4):
        kept = sampler(logits, here)
        chosen = Multinomial()(kept, here).argmax(axis=-1)
        sampler.accept(chosen, here)
        for row, token in enumerate(chosen.tolist()):
            tokens = ordered(kept[row])
            surprise = -math.log2(probabilities(kept[row], tokens)[tokens.index(token)])
            mu[row] -= eta * (surprise - tau)
        close(sampler._mu, mu, within=DOUBLE)


@pytest.mark.parametrize("kind", [Mirostat, MirostatV2])
def test_the_surprise_of_a_text_is_what_was_asked_for(kind):
    logits = np.random.default_rng(0).normal(size=(1, 2_000)) * 2
    sampler, here, surprises = kind(tau=3.0), context(seed=1), []
    for _ in range(600):
        kept = sampler(logits, here)
        chosen = Multinomial()(kept, here).argmax(axis=-1)
        tokens = ordered(kept[0])
        surprises.append(-math.log2(probabilities(kept[0], tokens)[tokens.index(int(chosen[0]))]))
        sampler.accept(chosen, here)
    assert abs(np.mean(surprises[100:]) - 3.0) < 0.15


@given(logits=logits_of(), kind=st.sampled_from([Mirostat, MirostatV2]), tau=st.floats(0.01, 100))
def test_on_any_logits_a_token_is_left_and_it_is_a_likely_one(logits, kind, tau):
    found = kind(tau=tau)(logits, context())
    for row, kept in zip(logits, found, strict=True):
        assert kept[row.argmax()] == row.max()
        count = int((kept > -INF).sum())
        np.testing.assert_array_equal(np.sort(kept)[::-1][:count], np.sort(row)[::-1][:count])


@pytest.mark.parametrize("kind", [Mirostat, MirostatV2])
def test_a_reset_forgets_and_a_clone_goes_its_own_way(kind):
    logits = np.random.default_rng(0).normal(size=(2, 50)) * 3
    sampler, here = kind(tau=1.0, eta=0.9), context()
    first = sampler(logits, here)
    sampler.accept(first.argmin(axis=-1), here)  # -inf: no token it left, so nothing is learnt
    np.testing.assert_array_equal(sampler(logits, here), first)
    sampler.accept(np.array([ordered(row)[-1] for row in first]), here)
    clone = sampler.clone()
    second = sampler(logits, here)
    assert (second != first).any()
    np.testing.assert_array_equal(clone(logits, here), second)
    clone.reset()
    np.testing.assert_array_equal(clone(logits, here), first)
    np.testing.assert_array_equal(sampler(logits, here), second)
    assert clone == sampler == kind(tau=1.0, eta=0.9)  # state is no option


def test_one_row_does_not_correct_another():
    logits = np.random.default_rng(0).normal(size=(2, 50)) * 3
    both, alone, here = MirostatV2(tau=1.0), MirostatV2(tau=1.0), context()
    for _ in range(3):
        kept, one = both(logits, here), alone(logits[1:], here)
        np.testing.assert_array_equal(kept[1:], one)
        both.accept(np.array([ordered(kept[0])[0], ordered(one[0])[-1]]), here)
        alone.accept(np.array([ordered(one[0])[-1]]), here)
