"""Merge steps end at what the tokenizer cuts a word into, and bytes are those of the text."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onnxlens._catalog import find
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._text.merges import Merges
from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import InputError


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Bundle(find("tiny")).tokenizer


@settings(deadline=None, max_examples=60)
@given(st.text(min_size=1, max_size=40))
@example("Unbelievable tokenization, e.g. antidisestablishmentarianism")
@example("aaaaaaaaaaaaaaaaaaaaaaaaa       bananana")
@example("naïve 😀 été العربية <|endoftext|>!")
def test_steps_end_at_the_tokens(tokenizer, text):
    ids = tokenizer.encode(text)
    encoded = [tokenizer.token_bytes(token) for token in ids]
    assert b"".join(encoded) == text.encode()
    at, words = 0, []
    while at < len(ids):
        places, steps = tokenizer.merge_steps(text, at)
        assert places.start == at
        word = b"".join(encoded[at : places.stop])
        pieces = [word[one : one + 1] for one in range(len(word))]
        for step in steps:
            whole = b"".join(step.pair)
            assert whole in step.pieces
            assert b"".join(step.pieces) == word
            assert len(step.pieces) < len(pieces)
            pieces = list(step.pieces)
        if tokenizer.str_tokens([ids[at]]) != ["<|endoftext|>"]:
            assert pieces == encoded[at : places.stop]
        assert all(tokenizer.merge_steps(text, place) == (places, steps) for place in places)
        words.append((places, steps))
        at = places.stop
    assert tokenizer.words(text) == words


def test_the_pair_that_was_learned_first_is_joined():
    document = {
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "merges": [["b", "c"], ["a", "b"], ["a", "bc"], ["abc", "abc"]]},
    }
    steps = Merges(json.dumps(document)).steps("abcabcd")
    assert [(step.rank, step.pair, step.pieces) for step in steps] == [
        (0, (b"b", b"c"), (b"a", b"bc", b"a", b"bc", b"d")),
        (2, (b"a", b"bc"), (b"abc", b"abc", b"d")),
        (3, (b"abc", b"abc"), (b"abcabc", b"d")),
    ]


@pytest.mark.parametrize("change", [{"decoder": None}, {"model": {"type": "WordLevel"}}])
def test_other_tokenizers_have_no_steps(tokenizer, change):
    with pytest.raises(InputError, match="not a byte-level byte-pair encoding, so it has no merge steps"):
        Merges(json.dumps(json.loads(tokenizer.to_json()) | change))
