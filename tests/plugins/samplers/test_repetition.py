"""Samplers that make repetitions less probable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling_references import INF, Letters, context, dry, theirs
from yardstick import close

from onnxlens.plugins.samplers import DRY, FrequencyPenalty, NoRepeatNGram, PresencePenalty, RepetitionPenalty
from onnxlens.runtime.errors import InputError

SIZE = 4  # few tokens, so that they repeat
TOKENIZER = Letters()


@st.composite
def cases(draw):
    """Logits [B, 4] and a text for each row, [B, T]."""
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 14))
    values = st.one_of(st.floats(-9, 9, width=32), st.sampled_from([0.0, -INF]))
    logits = [[*draw(st.lists(values, min_size=SIZE - 1, max_size=SIZE - 1)), 1.0] for _ in range(rows)]
    ids = [draw(st.lists(st.integers(0, SIZE - 1), min_size=length, max_size=length)) for _ in range(rows)]
    return np.array(logits, np.float32), ids


@given(case=cases(), penalty=st.floats(0.1, 10))
def test_the_repetition_penalty_is_transformers(case, penalty):
    logits, ids = case
    expected = theirs("RepetitionPenaltyLogitsProcessor", logits, penalty, ids=ids)
    close(RepetitionPenalty(penalty)(logits, context(ids)), expected)


@given(case=cases(), penalty=st.floats(0.1, 10), window=st.integers(1, 20))
def test_a_window_forgets_what_is_before_it(case, penalty, window):
    logits, ids = case
    last = [row[-window:] for row in ids]
    for kind in (RepetitionPenalty, PresencePenalty, FrequencyPenalty):
        found = kind(penalty, window)(logits, context(ids))
        np.testing.assert_array_equal(found, kind(penalty)(logits, context(last)))


@given(case=cases(), presence=st.floats(-3, 3), frequency=st.floats(-3, 3))
def test_presence_and_frequency_penalties_are_llama_cpp(case, presence, frequency):
    logits, ids = case
    found = FrequencyPenalty(frequency)(PresencePenalty(presence)(logits, context(ids)), context(ids))
    expected = logits.astype(np.float64)
    for row, text in zip(expected, ids, strict=True):
        for token in set(text):
            row[token] -= text.count(token) * frequency + presence
    close(found, expected)


@given(case=cases(), size=st.integers(1, 6))
def test_no_repeated_ngram_is_transformers(case, size):
    logits, ids = case
    expected = theirs("NoRepeatNGramLogitsProcessor", logits, size, ids=ids)
    np.testing.assert_array_equal(NoRepeatNGram(size)(logits, context(ids)), expected)


def test_tokens_that_the_model_cannot_say_are_no_repetition():
    """Some tokenizers have more ids than the model."""
    ids, logits = [[9, 1, 9, 1, 9]], np.ones((1, SIZE), np.float32)
    for sampler in (RepetitionPenalty(2.0), PresencePenalty(0.5), NoRepeatNGram(1), DRY(breakers=())):
        changed = sampler(logits, context(ids))[0] != 1
        assert not changed[[0, 2, 3]].any()


@given(
    case=cases(),
    multiplier=st.floats(0.1, 3),
    base=st.floats(1, 3),
    allowed=st.integers(1, 4),
    breakers=st.sets(st.integers(0, SIZE - 1), max_size=2),
)
def test_dry_is_llama_cpp(case, multiplier, base, allowed, breakers):
    logits, ids = case
    expected = [dry(row, text, multiplier, base, allowed, breakers) for row, text in zip(logits, ids, strict=True)]
    found = DRY(multiplier, base, allowed, breakers=tuple(breakers))(logits, context(ids))
    close(found, expected)
    named = DRY(multiplier, base, allowed, breakers=tuple(TOKENIZER.letters[token] for token in breakers))
    np.testing.assert_array_equal(named(logits, context(ids, tokenizer=TOKENIZER)), found)


def penalised(text: str, **options) -> set[str]:
    sampler = DRY(**options)
    logits = np.zeros((1, len(TOKENIZER.letters)), np.float32)
    found = sampler(logits, context([TOKENIZER.encode(text)], tokenizer=TOKENIZER))
    return {TOKENIZER.letters[token] for token in np.flatnonzero(found[0] < 0)}


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("abcxabc", {}, {"x"}),
        ("abcxabc", {"allowed_length": 4}, set()),
        ("abc\nxabc", {}, set()),  # what follows 'abc' is itself a breaker
        ("abcxabc\n", {}, set()),  # nothing is repeated since the breaker
        ("abcxa\nbc", {}, {"x"}),
        ("abcxab\nc", {}, set()),  # one token since the breaker is too few
        ("abcxfooabc", {"breakers": ["foo"]}, {"x"}),
        ("abcxafoobc", {"breakers": ["foo"]}, {"x"}),
        ("abcxabfooc", {"breakers": ["foo"]}, set()),
        ("abcxabc", {"window": 5}, set()),  # which is too short to see the first one whole
        ("abcxabc", {"window": 6}, {"x"}),
    ],
)
def test_sequence_breakers_interrupt_repetitions(text, options, expected):
    assert penalised(text, **options) == expected


def test_the_longest_repetition_counts():
    logits = np.zeros((1, len(TOKENIZER.letters)), np.float32)
    found = DRY(1.0, 2.0)(logits, context([TOKENIZER.encode("bcyabcyabc")], tokenizer=TOKENIZER))
    # 'y' followed 'bc' the first time, and 'bcyabc' the second time.
    assert found[0, TOKENIZER.letters.index("y")] == -(2.0 ** (6 - 2))


def test_a_long_repetition_does_not_overflow():
    logits = np.zeros((1, 3), np.float32)
    found = DRY(1e4, 100.0, breakers=())(logits, context([[1] * 1000]))
    assert np.isfinite(found).all()


def test_text_breakers_need_a_tokenizer():
    with pytest.raises(InputError, match=r"^DRY: its breakers are texts, and there is no tokenizer"):
        DRY()(np.zeros((1, 3)), context([[1, 1, 1, 1]]))
