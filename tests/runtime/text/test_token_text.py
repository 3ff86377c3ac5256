"""Tokens as a reader sees them: nothing invisible, bytes as bytes, and the same word twice told apart."""

from __future__ import annotations

import pytest

from onnxlens.runtime._text.token_text import printable, quoted_token, readable, told_apart, visible


@pytest.mark.parametrize(
    ("token", "shown", "label"),
    [
        (" the", "' the'", "␣the"),
        ("\n", r"'\n'", r"\n"),
        ("it's", '"it\'s"', "it's"),
        ("'\"", "''\"'", "'\""),
        ("\\", r"'\'", "\\"),
        ("\x1b[31m", r"'\x1b[31m'", r"\x1b[31m"),
        ("漢", "'漢'", "漢"),
        (readable(b"\xe6\xbc"), r"'\xe6\xbc'", r"\xe6\xbc"),
        (readable(b" a\xe6"), r"' a\xe6'", r"␣a\xe6"),
    ],
)
def test_what_cannot_be_seen_is_its_escape_and_no_backslash_is_doubled(token, shown, label):
    assert quoted_token(token) == shown
    assert visible(token) == label
    assert printable(printable(token)) == printable(token)


def test_the_same_word_twice_is_told_apart_by_position():
    assert told_apart(["a", "b", "a", "c"]) == ["a@0", "b", "a@2", "c"]
    assert told_apart(["a", "a"], first=1) == ["a@1", "a@2"]


def test_pieces_are_texts_but_for_parts_of_letters(runner):
    tokenizer = runner("base").bundle.tokenizer
    ids = tokenizer.encode("the é")
    pieces = tokenizer.pieces(ids)
    assert "\ufffd" in "".join(tokenizer.str_tokens(ids))
    assert "\ufffd" not in "".join(pieces)
    assert pieces[0] == tokenizer.str_tokens(ids)[0]
    assert "".join(pieces).endswith(r"\xc3\xa9")
