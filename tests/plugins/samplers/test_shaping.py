"""Samplers that shift logits, or rule out or force tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sampling_references import INF, Letters, context, dynamic_temperature, logits_of, theirs
from yardstick import close, probable

from onnxlens.plugins.samplers import (
    Allowed,
    BadWords,
    DynamicTemperature,
    ExponentialLength,
    ForcedFirst,
    ForcedLast,
    LogitBias,
    MinLength,
    MinNewTokens,
    SuppressTokens,
    Temperature,
    softmax,
)
from onnxlens.runtime.errors import InputError

SIZE = 6  # of the vocabulary, where it must be known
TOKENIZER = Letters()

tokens = st.integers(0, SIZE - 1)
texts = st.lists(tokens, min_size=1, max_size=8)
sequences = st.lists(tokens, min_size=1, max_size=3)


@st.composite
def cases(draw, rows: int = 3):
    """Logits [B, 6] and a text for each row, [B, T]."""
    logits = np.array(draw(st.lists(st.lists(st.floats(-9, 9, width=32), min_size=SIZE, max_size=SIZE), max_size=rows)))
    assume(len(logits))
    length = draw(st.integers(1, 8))
    ids = [draw(st.lists(tokens, min_size=length, max_size=length)) for _ in logits]
    logits = logits.astype(np.float32)
    if draw(st.booleans()):
        logits[:, draw(tokens)] = -INF
    return logits, ids


@given(logits=logits_of(), middle=st.floats(0, 3), spread=st.floats(0.01, 3), exponent=st.floats(0.1, 3))
def test_dynamic_temperature_is_llama_cpp(logits, middle, spread, exponent):
    found = DynamicTemperature(spread, middle, exponent)(logits.astype(np.float64), context())
    expected = np.array([dynamic_temperature(row, middle, spread, exponent) for row in logits])
    probable(softmax(found), softmax(expected), expected)


def test_a_dynamic_temperature_without_a_range_is_a_temperature():
    logits = np.float32([[1.0, 2.0, 0.0, -INF]])
    found = DynamicTemperature(0, 0.5)(logits, context())
    np.testing.assert_array_equal(found, Temperature(0.5)(logits, context()))


@given(case=cases(), words=st.lists(st.tuples(sequences, st.floats(-5, 5, width=32)), min_size=1, max_size=4))
def test_logit_bias_is_transformers(case, words):
    logits, ids = case
    bias = {tuple(word): float(value) for word, value in words}
    found = LogitBias({"".join(TOKENIZER.letters[token] for token in word): value for word, value in bias.items()})
    expected = theirs("SequenceBiasLogitsProcessor", logits, bias, ids=ids)
    close(found(logits, context(ids, tokenizer=TOKENIZER)), expected)


def test_logit_bias_takes_ids_and_minus_infinity():
    found = LogitBias({1: 2.5, 0: -INF})(np.zeros((1, 3), np.float32), context())
    np.testing.assert_array_equal(found, [[-INF, 2.5, 0]])


@pytest.mark.parametrize("bias", [INF, float("nan"), 1e31])
def test_a_bias_that_is_none(bias):
    with pytest.raises(InputError, match=r"^LogitBias: the bias of 3 must be -inf, or from -1e\+30 to 1e\+30, not "):
        LogitBias({3: bias})


@given(case=cases(), words=st.lists(sequences, min_size=1, max_size=4), as_text=st.booleans())
def test_bad_words_are_transformers(case, words, as_text):
    logits, ids = case
    assume(any(word != [0] for word in words))  # theirs takes no empty list
    expected = theirs("NoBadWordsLogitsProcessor", logits, words, 0, ids=ids)
    given_as = [TOKENIZER.decode(word) for word in words] if as_text else words
    found = BadWords(given_as)(logits, context(ids, eos_token_id=0, tokenizer=TOKENIZER))
    np.testing.assert_array_equal(found, expected)


def test_words_that_end_a_text_are_no_bad_words_alone():
    logits, ids = np.zeros((1, 6), np.float32), [[1, 2]]
    expected = theirs("NoBadWordsLogitsProcessor", logits, [[3], [4], [5], [2, 4]], [3, 4], ids=ids)
    found = BadWords([3, 4, 5, (2, 4)])(logits, context(ids, eos_token_id=3, eos_token_ids=(3, 4)))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[0] == -INF, [False, False, False, False, True, True])


def test_any_of_several_ends_may_be_the_forced_last_token():
    found = ForcedLast()(np.zeros((1, 4), np.float32), context(eos_token_id=1, eos_token_ids=(1, 3), max_new_tokens=1))
    np.testing.assert_array_equal(found, [[-INF, 0, -INF, 0]])


@pytest.mark.parametrize(
    ("made", "plain"),
    [
        (lambda: SuppressTokens([np.int64(1), np.str_("a")]), SuppressTokens((1, "a"))),
        (lambda: SuppressTokens((np.int32(1),)), SuppressTokens((1,))),
        (lambda: SuppressTokens(np.array([1, 2])), SuppressTokens((1, 2))),
        (lambda: SuppressTokens(np.array([1, "a"], dtype=object)), SuppressTokens((1, "a"))),
        (lambda: LogitBias({np.int64(3): np.float32(-1.5)}), LogitBias({3: -1.5})),
        (lambda: BadWords([(np.int64(1), np.int64(2)), np.int64(3), np.array([4, 5])]), BadWords(((1, 2), 3, (4, 5)))),
        (lambda: Temperature(np.float16(0.5)), Temperature(0.5)),
    ],
)
def test_numbers_of_numpy_are_taken_in_containers(made, plain):
    assert made() == plain


@given(case=cases(), suppressed=sequences)
def test_suppress_tokens_is_transformers(case, suppressed):
    logits, ids = case
    expected = theirs("SuppressTokensLogitsProcessor", logits, suppressed, ids=ids)
    np.testing.assert_array_equal(SuppressTokens(suppressed)(logits, context(ids)), expected)
    named = SuppressTokens([TOKENIZER.letters[token] for token in suppressed])
    np.testing.assert_array_equal(named(logits, context(ids, tokenizer=TOKENIZER)), expected)


@given(case=cases(), length=st.integers(0, 10), step=st.integers(0, 8))
def test_minimum_lengths_are_transformers(case, length, step):
    logits, ids = case
    total = len(ids[0])
    for ends in ([2], [2, 3]):
        facts = {"eos_token_id": 2, "eos_token_ids": tuple(ends)}
        expected = theirs("MinLengthLogitsProcessor", logits, length, ends, ids=ids)
        np.testing.assert_array_equal(MinLength(length)(logits, context(ids, **facts)), expected)
        step = min(step, total)
        expected = theirs("MinNewTokensLengthLogitsProcessor", logits, total - step, length, ends, ids=ids)
        np.testing.assert_array_equal(MinNewTokens(length)(logits, context(ids, step, **facts)), expected)


@pytest.mark.parametrize("sampler", [MinLength(9), MinNewTokens(9)])
def test_without_an_end_of_text_there_is_nothing_to_put_off(sampler):
    logits = np.zeros((1, 3), np.float32)
    np.testing.assert_array_equal(sampler(logits, context()), logits)


@given(case=cases(rows=1), token=tokens)
def test_a_forced_first_token_is_transformers(case, token):
    logits, _ = case
    assume(logits[0, token] > -INF)
    expected = theirs("ForcedBOSTokenLogitsProcessor", logits, token, ids=[[1]])
    np.testing.assert_array_equal(softmax(ForcedFirst(token)(logits, context([[1]]))), softmax(expected))
    expected = theirs("ForcedBOSTokenLogitsProcessor", logits, token, ids=[[1, 2]])
    np.testing.assert_array_equal(ForcedFirst(token)(logits, context([[1, 2]], 1)), expected)


@given(case=cases(rows=1), token=tokens, step=st.integers(0, 4))
def test_a_forced_last_token_is_transformers(case, token, step):
    logits, _ = case
    assume(logits[0, token] > -INF)
    ids = [[1, *[2] * step]]
    expected = theirs("ForcedEOSTokenLogitsProcessor", logits, 1 + 4, token, ids=ids)
    for sampler in (ForcedLast(token), ForcedLast()):
        found = sampler(logits, context(ids, step, eos_token_id=token, max_new_tokens=4))
        np.testing.assert_array_equal(softmax(found), softmax(expected))


def test_a_last_token_is_not_forced_where_none_is_the_last():
    logits = np.zeros((1, 3), np.float32)
    np.testing.assert_array_equal(ForcedLast(1)(logits, context(step=5)), logits)


def test_a_token_that_was_ruled_out_stays_so_though_it_is_forced():
    logits = np.float32([[0.0, -INF]])
    assert np.isneginf(ForcedFirst(1)(logits, context())).all()


@given(case=cases(), start=st.integers(0, 6), factor=st.floats(0.5, 3), step=st.integers(0, 8))
def test_exponential_length_is_transformers(case, start, factor, step):
    logits, ids = case
    step = min(step, len(ids[0]))
    for ends in ([2], [2, 3]):
        expected = theirs("ExponentialDecayLengthPenalty", logits, (start, factor), ends, len(ids[0]) - step, ids=ids)
        facts = {"eos_token_id": 2, "eos_token_ids": tuple(ends)}
        found = ExponentialLength(start, factor)(logits, context(ids, step, **facts))
        close(found, expected)


def test_an_exponential_length_never_overflows():
    logits = np.float32([[3.0, 5.0]])
    long = context(np.zeros((1, 1000), np.int64), 1000, eos_token_id=0)
    found = ExponentialLength(0, 50.0)(logits, long)
    assert np.isfinite(found).all()
    assert softmax(found)[0, 0] == 1


@given(case=cases(), allowed=sequences)
def test_allowed_tokens_are_transformers(case, allowed):
    logits, ids = case
    assume((logits[:, allowed] > -INF).any(axis=1).all())
    seen = []

    def function(row, text):
        seen.append((row, text.tolist()))
        return allowed

    expected = theirs("PrefixConstrainedLogitsProcessor", logits, lambda row, text: allowed, 1, ids=ids)
    np.testing.assert_array_equal(Allowed(function)(logits, context(ids)), expected)
    assert seen == list(enumerate(ids))


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ([], "Allowed: the function allows no token in row 0."),
        ([6], "Allowed: token id 6 is out of range, ids are 0 to 5."),
        ([-1], "Allowed: token id -1 is out of range, ids are 0 to 5."),
        (None, "Allowed: the function must return token ids, not None."),
        (["a"], "Allowed: the function must return token ids, not ['a']."),
    ],
)
def test_a_function_that_allows_what_cannot_be(returned, expected):
    with pytest.raises(InputError) as caught:
        Allowed(lambda row, ids: returned)(np.zeros((1, SIZE)), context())
    assert str(caught.value) == expected


def test_what_is_no_function_allows_nothing():
    with pytest.raises(InputError, match=r"^Allowed takes a function of row and ids, not 5\.$"):
        Allowed(5)


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (lambda: BadWords(["ab"]), "BadWords: there is no tokenizer to read 'ab'; give token ids."),
        (lambda: BadWords([""]), "BadWords: a text must have at least one character."),
        (lambda: BadWords([[]]), "BadWords: a sequence must have at least one token."),
        (lambda: BadWords([]), "BadWords: words must be a list of length at least 1, not []."),
        (lambda: BadWords([[1, 6]]), "BadWords: token id 6 is out of range, ids are 0 to 5."),
        (lambda: LogitBias({-1: 1.0}), "LogitBias: token id -1 is out of range, ids are 0 to 5."),
        (lambda: ForcedLast(), "ForcedLast needs an end-of-text token, and this model has none."),
        (lambda: ExponentialLength(0), "ExponentialLength needs an end-of-text token, and this model has none."),
    ],
)
def test_a_token_that_is_none(sampler, expected):
    with pytest.raises(InputError) as caught:
        sampler()(np.zeros((1, SIZE)), context(step=1, max_new_tokens=2))
    assert str(caught.value) == expected


def test_a_text_of_several_tokens_is_no_single_token():
    with pytest.raises(InputError) as caught:
        SuppressTokens(["ab"])(np.zeros((1, SIZE)), context(tokenizer=TOKENIZER))
    assert str(caught.value) == "SuppressTokens takes single tokens, and 'ab' is 2 tokens: [0, 1]."
