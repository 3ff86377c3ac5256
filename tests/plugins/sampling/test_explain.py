"""Why a token was chosen: the numbers are those of the distributions, and the choice is the one made without asking."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling_references import INF, PLUGINS, Letters, context, logits_of
from yardstick import DOUBLE, close

from onnxlens.plugins.samplers import (
    Chain,
    Greedy,
    Gumbel,
    MirostatV2,
    Multinomial,
    Temperature,
    TopK,
    TopP,
    explain,
    parse,
    softmax,
    standard,
)
from onnxlens.runtime.errors import InputError

TEXT = "repetition_penalty=1.3 | min_p=0.05 | xtc(probability=0.5) | top_k=10 | temperature=0.7 | multinomial"


@given(logits=logits_of(rows=1), seed=st.integers(0, 99))
def test_it_is_the_choice_made_without_asking(logits, seed):
    ids = [[0, min(2, logits.shape[-1] - 1)]]
    chain, plain, asked = parse(TEXT, PLUGINS), context(ids, seed=seed), context(ids, seed=seed)
    left, explanation = explain(chain, logits, asked)
    np.testing.assert_array_equal(left, chain(logits, plain))
    assert explanation.chosen.id == left.argmax()
    assert asked.rng.random() == plain.rng.random()  # as much randomness was used up
    low, high = explanation.interval
    assert low <= explanation.number < high
    assert high - low == pytest.approx(explanation.chosen.probability)


@given(logits=logits_of(rows=1), k=st.integers(1, 30), p=st.floats(0.1, 1), temperature=st.floats(0.2, 3))
def test_each_stage_is_measured_on_the_distributions_before_and_after(logits, k, p, temperature):
    stages = (Temperature(temperature), TopK(k), TopP(p))
    _, explanation = explain(Chain((*stages, Greedy())), logits, context())
    before = logits
    for stage, told in zip(stages, explanation.stages, strict=True):
        after = stage(before, context())
        removed = (before > -INF) & (after == -INF)
        assert told.sampler == repr(stage)
        assert (told.tokens, told.removed_tokens) == ((after > -INF).sum(), removed.sum())
        assert told.removed == pytest.approx(softmax(before)[removed].sum())
        assert told.moved == pytest.approx(np.abs(softmax(after) - softmax(before)).sum() / 2)
        if stage is not stages[0]:  # what is removed is all that moves, where the rest only grows
            assert told.moved == pytest.approx(told.removed)
        before = after
    close(explanation.probabilities, softmax(before)[0], within=DOUBLE)
    assert explanation.tokens == (before > -INF).sum()
    listed = [each.probability for each in explanation.candidates]
    assert listed == sorted(listed, reverse=True)
    assert len(listed) == min(10, explanation.tokens)


def test_a_number_tells_where_it_fell():
    logits = np.log([[0.1, 0.2, 0.3, 0.4]])
    for seed in range(20):
        _, explanation = explain(Multinomial(), logits, context(seed=seed))
        number = np.random.default_rng(seed).random()
        assert explanation.number == number
        assert explanation.chosen.id == np.searchsorted([0.1, 0.3, 0.6, 1.0], number, side="right")


@pytest.mark.parametrize("chooser", [Greedy(), Gumbel()])
def test_without_a_number_there_is_none(chooser):
    logits = np.log([[0.1, 0.6, 0.3]])
    _, explanation = explain(Chain((TopK(2), chooser)), logits, context())
    assert (explanation.choice, explanation.number) == (repr(chooser), None)
    assert [each.id for each in explanation.candidates] == [1, 2]


def test_a_chain_that_chooses_with_its_truncation():
    _, explanation = explain(TopK(1), np.float32([[0, 5, 1]]), context(tokenizer=Letters()))
    assert (explanation.choice, explanation.tokens, explanation.chosen.token) == (None, 1, "b")
    assert explanation.chosen.model_probability == pytest.approx(softmax(np.float32([[0, 5, 1]]))[0, 1])
    assert explanation.chosen.probability == 1 and explanation.interval == (0, 1)


def test_what_it_tells_is_json():
    _, explanation = explain(standard(top_k=2), np.float32([[0, 5, 1]]), context(tokenizer=Letters()))
    told = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    assert told["stages"][1] == {
        "sampler": "TopK(k=2)",
        "tokens": 2,
        "removed_tokens": 1,
        "removed": pytest.approx(explanation.stages[1].removed),
        "moved": pytest.approx(explanation.stages[1].moved),
    }
    assert [each["token"] for each in told["candidates"]] == ["b", "c"]


def test_an_explanation_teaches_mirostat_no_more_than_a_choice_does():
    logits = np.random.default_rng(0).normal(size=(1, 50)) * 3
    asked, plain = (Chain((MirostatV2(1.0), Multinomial())) for _ in range(2))
    for seed in range(4):
        found, _ = explain(asked, logits, context(seed=seed))
        expected = plain(logits, context(seed=seed))
        np.testing.assert_array_equal(found, expected)
        for each in (asked, plain):
            each.accept(expected.argmax(axis=-1), context(seed=seed))


def test_what_cannot_be_explained():
    with pytest.raises(InputError, match=r"^A choice is explained for one row, not for 2\.$"):
        explain(Greedy(), np.zeros((2, 3)), context())
    with pytest.raises(InputError, match=r"^A choice is explained where one token is left, and the sampler leaves 2\."):
        explain(TopK(2), np.float32([[0, 5, 1]]), context())
    with pytest.raises(InputError, match=r"^The sampler SuppressTokens leaves no token to choose from\.$"):
        explain(parse("suppress_tokens=[0] | greedy", PLUGINS), np.zeros((1, 1)), context())
