"""Text to ids and back, whole and token by token."""

from __future__ import annotations

import pytest
from checkpoints import tokenizer as make_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import BundleError, InputError

KNOWN, MODEL = 290, 300  # the model's vocabulary is padded

any_ids = st.lists(st.integers(0, MODEL - 1), max_size=30)


@pytest.fixture(scope="module")
def tokenizer(shared) -> Tokenizer:
    path = shared / "stream-tokenizer.json"
    make_tokenizer(KNOWN).save(str(path))
    return Tokenizer(path, 0, MODEL)


def streamed(tokenizer: Tokenizer, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    stream = tokenizer.stream(stop)
    pieces = []
    for token in ids:
        pieces.append(stream.feed(token))
        if stream.stopped:
            break
    return [*pieces, stream.finish()], stream.stopped


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == (text or "<|endoftext|>")
    assert all(0 <= token < KNOWN for token in ids)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_streams_as_itself_and_never_a_broken_character(tokenizer, text):
    pieces, _ = streamed(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not [piece for piece in pieces if "\N{REPLACEMENT CHARACTER}" in piece]


@given(ids=any_ids)
def test_any_ids_stream_as_what_they_decode_to(tokenizer, ids):
    assert "".join(streamed(tokenizer, ids)[0]) == tokenizer.decode(ids)


@given(ids=any_ids, stop=st.lists(st.text(alphabet="theca n[29]\n�", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_stop_string(tokenizer, ids, stop):
    text = tokenizer.decode(ids)
    pieces, stopped = streamed(tokenizer, ids, tuple(stop))
    found = [index for index in map(text.find, stop) if index >= 0]
    assert stopped == bool(found)
    assert "".join(pieces) == (text[: min(found)] if found else text)


@given(data=st.data(), text=st.text(alphabet="abc ", min_size=1, max_size=20))
def test_a_stop_string_is_found_wherever_it_lies_in_the_tokens(tokenizer, data, text):
    start = data.draw(st.integers(0, len(text) - 1))
    stop = text[start : data.draw(st.integers(start + 1, len(text)))]
    pieces, stopped = streamed(tokenizer, tokenizer.encode(text), (stop,))
    assert stopped
    assert "".join(pieces) == text[: text.index(stop)]


@given(ids=any_ids.filter(bool))
def test_text_is_never_given_out_later_than_needed(tokenizer, ids):
    """After each token, what came out is all that no later token can change: all but an unfinished character."""
    stream = tokenizer.stream()
    out = ""
    for count, token in enumerate(ids, 1):
        out += stream.feed(token)
        certain = tokenizer.decode(ids[:count])
        assert certain.startswith(out)
        assert set(certain[len(out) :]) <= {"\N{REPLACEMENT CHARACTER}"}


def test_a_character_of_several_tokens_appears_with_its_last_one(tokenizer):
    ids = tokenizer.encode("a\N{SNOWMAN}b")
    assert len(ids) == 5
    assert streamed(tokenizer, ids)[0] == ["a", "", "", "\N{SNOWMAN}", "b", ""]


def test_an_unfinished_character_comes_out_at_the_end(tokenizer):
    ids = tokenizer.encode("a\N{SNOWMAN}")[:-1]
    assert streamed(tokenizer, ids)[0] == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_what_may_begin_a_stop_string_is_held_back_until_it_is_certain(tokenizer):
    stream = tokenizer.stream(("xyz",))
    assert [stream.feed(token) for token in tokenizer.encode("axyxyz!")] == ["a", "", "", "xy", "", "", ""]
    assert stream.stopped
    assert stream.finish() == ""


def test_one_stop_string_may_be_given_bare(tokenizer):
    stream = tokenizer.stream("ab")
    assert [stream.feed(token) for token in tokenizer.encode("xab")] == ["x", "", ""]
    assert stream.stopped


@pytest.mark.parametrize("stop", ["", [""], ["a", ""], [3]])
def test_an_empty_stop_string_is_an_error(tokenizer, stop):
    with pytest.raises(InputError, match=r"^A stop string must be a text of at least one character\.$"):
        tokenizer.stream(stop)


def test_an_id_that_only_the_model_knows_shows_itself_in_brackets(tokenizer):
    first, last = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    assert tokenizer.decode([first, 295, 299, last]) == "a[295][299]b"
    assert tokenizer.str_tokens([first, 295]) == ["a", "[295]"]


@pytest.mark.parametrize("token", [-1, 300, 2**70])
def test_an_id_out_of_range_is_an_error(tokenizer, token):
    for decode in (tokenizer.decode, tokenizer.str_tokens):
        with pytest.raises(InputError) as caught:
            decode([5, token])
        assert str(caught.value) == f"Token id {token} is out of range: this model's ids are 0 to 299."


@pytest.mark.parametrize("token", [1.0, "a", None])
def test_an_id_that_is_no_number_is_an_error(tokenizer, token):
    with pytest.raises(InputError) as caught:
        tokenizer.decode([token])
    assert str(caught.value) == f"A token id must be a whole number, not {token!r}."


def test_a_part_of_a_character_alone_is_a_replacement_character(tokenizer):
    assert tokenizer.str_tokens(tokenizer.encode("\N{SNOWMAN}")) == ["\N{REPLACEMENT CHARACTER}"] * 3


def test_an_empty_text_is_the_end_of_text_token(tokenizer):
    assert tokenizer.encode("") == [0]


def test_an_empty_text_without_an_end_of_text_token_is_an_error(tmp_path):
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers.models import BPE

    FastTokenizer(BPE({"a": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"^The text is empty, and this model has no token that begins or ends a text"):
        Tokenizer(tmp_path / "tokenizer.json").encode("")


def test_end_of_text_in_a_text_is_the_token(tokenizer):
    assert tokenizer.encode("a<|endoftext|>")[-1] == 0


def test_half_a_surrogate_pair_is_an_error(tokenizer):
    with pytest.raises(InputError) as caught:
        tokenizer.encode("ab\ud83d")
    assert str(caught.value) == "The text is not valid Unicode: a lone surrogate at character 2. Give UTF-8 text."


@pytest.mark.parametrize("text", [None, b"abc", 3])
def test_something_else_than_text_is_an_error(tokenizer, text):
    with pytest.raises(InputError, match=rf"^Expected text, got {type(text).__name__}\.$"):
        tokenizer.encode(text)


@pytest.mark.parametrize("content", ["", "{}", "[]", "\0"])
def test_a_damaged_tokenizer_is_an_error(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BundleError, match=r"^The tokenizer .*tokenizer\.json cannot be read: "):
        Tokenizer(tmp_path / "tokenizer.json")
