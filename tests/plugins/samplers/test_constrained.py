"""Texts that follow a regular expression, a JSON schema or a grammar; judged by what knows nothing of llguidance."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_references import INF

import onnxlens
from onnxlens.decoding import beam_search, best_of
from onnxlens.plugins._registry import Registry
from onnxlens.plugins._sampling import grammars
from onnxlens.plugins.samplers import (
    Chain,
    Context,
    Greedy,
    JsonSchema,
    LarkGrammar,
    Multinomial,
    Regex,
    Sampler,
    TopK,
    parse,
)
from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import InputError

BUILT_IN = Registry(find=False)

SHIPPED = Path(__file__).parents[3] / "models" / "tiny" / "tokenizer.json"
SIZE = 4096


@functools.cache
def shipped() -> Tokenizer:
    return Tokenizer(SHIPPED, SIZE - 1)


def ids_of(text: str) -> list[int]:
    return shipped().encode(text) if text else []


def at(*generated: str, tokenizer: Tokenizer | None = None, **facts) -> Context:
    """A context whose rows generated texts of as many tokens, after a prompt of one token."""
    rows = [ids_of(text) for text in generated]
    ids = np.array([[7, *row] for row in rows], np.int64)
    facts = {"eos_token_id": shipped().eos_token_id, "tokenizer": tokenizer or shipped(), **facts}
    return Context(ids, len(rows[0]), np.random.default_rng(0), **facts)


def allowed(sampler: Sampler, context: Context, size: int = SIZE) -> set[int]:
    (row,) = sampler(np.zeros((1, size), np.float32), context)
    return set(np.flatnonzero(row > -INF).tolist())


def texts(tokens: set[int]) -> set[str]:
    return set(shipped().str_tokens(tokens))


END = "<|endoftext|>"


def sampled(sampler: Sampler, seed: int, *, rows: int = 3, most: int = 60, bias: dict[str, float] | None = None):
    """The texts of a batch under random logits, and whether each ended."""
    rng, chain = np.random.default_rng(seed), Chain([sampler, Multinomial()])
    end = shipped().eos_token_id
    ids = np.full((rows, 1), end)  # a prompt that must not count
    for step in range(most):
        logits = rng.normal(0, 3, (rows, SIZE)).astype(np.float32)
        for text, value in (bias or {}).items():
            logits[:, ids_of(text)] += value
        context = Context(ids, step, rng, eos_token_id=end, tokenizer=shipped())
        chosen = chain(logits, context).argmax(axis=-1)
        chain.accept(chosen, context)
        ids = np.concatenate([ids, chosen[:, np.newaxis]], axis=1)
    found = []
    for row in ids[:, 1:].tolist():
        length = row.index(end) if end in row else len(row)
        assert set(row[length:]) <= {end}  # nothing follows the end
        found.append((shipped().decode(row[:length]), length < len(row)))
    return found


# Regular expressions


@pytest.mark.parametrize(
    "pattern",
    [
        r"[0-9]{3}",
        r"\+?[0-9]{2,4}(-[0-9]+){2}",
        r" (cat|dog)s?( and (cat|dog)s?){0,3}\.",
        r"[^\n]{1,6}",
        r"(?s).{0,4}",
        r"é{2}[à-ü]?漢字+😀",
        r"^a/b\\c$",
        r"(?i)once upon a time",
        "line\none|\ttab\r",
        r"[\x00-\x1f]{2}",
        r"(a|b|ab)(c|bcd)(d*)",
        r"",
    ],
)
def test_a_text_matches_the_pattern(pattern):
    ended = 0
    for seed in range(4):
        for text, whole in sampled(Regex(pattern), seed, most=40, bias={END: 3}):
            ended += whole
            assert not whole or re.fullmatch(pattern, text), text
    assert ended >= 6


# The oracle: an expression as nested tuples, and Brzozowski's derivatives by bytes; None is what nothing matches.
ALPHABET = ("a", "b", "1", "é", "ê")  # the last two begin with the same byte
EMPTY = ("empty",)


def literal(text: str):
    parts = [("byte", byte) for byte in text.encode()]
    return functools.reduce(lambda first, second: ("then", first, second), parts)


EXPRESSIONS = st.recursive(
    st.sampled_from(ALPHABET).map(lambda letter: ("text", letter)),
    lambda inner: st.one_of(
        st.tuples(st.just("then"), inner, inner),
        st.tuples(st.just("or"), inner, inner),
        st.tuples(st.just("star"), inner),
        st.tuples(st.just("maybe"), inner),
    ),
    max_leaves=8,
)


def written(expression) -> str:
    kind, *parts = expression
    if kind == "text":
        return parts[0]
    inner = [f"(?:{written(part)})" for part in parts]
    return {"then": "".join, "or": "|".join, "star": lambda x: f"{x[0]}*", "maybe": lambda x: f"{x[0]}?"}[kind](inner)


def in_bytes(expression):
    kind, *parts = expression
    if kind == "text":
        return literal(parts[0])
    if kind == "maybe":
        return ("or", EMPTY, in_bytes(parts[0]))
    return (kind, *map(in_bytes, parts))


def nullable(expression) -> bool:
    kind, *parts = expression
    if kind == "then":
        return all(map(nullable, parts))
    return kind in ("empty", "star") or (kind == "or" and any(map(nullable, parts)))


def either(first, second):
    return first or second if first is None or second is None or first == second else ("or", first, second)


def derived(expression, byte: int):
    kind, *parts = expression
    if kind == "byte":
        return EMPTY if parts[0] == byte else None
    if kind == "empty":
        return None
    if kind == "or":
        return either(derived(parts[0], byte), derived(parts[1], byte))
    rest = derived(parts[0], byte)
    following = expression if kind == "star" else parts[1]
    first = None if rest is None else following if rest == EMPTY else ("then", rest, following)
    return either(first, derived(parts[1], byte)) if kind == "then" and nullable(parts[0]) else first


def after(expression, given: bytes):
    for byte in given:
        expression = None if expression is None else derived(expression, byte)
    return expression


class Small(Tokenizer):
    """A tokenizer of a few tokens, some of which are parts of characters."""

    tokens = (
        b"a",
        b"b",
        b"1",
        b"\xc3",
        b"\xa9",
        b"\xaa",
        b"ab",
        b"aa",
        b"\xa9\xc3",
        b"a\xc3",
        b"\xc3\xa9",
        b"b1a",
        b"c",
    )

    def __init__(self) -> None:
        from tokenizers import Tokenizer as FastTokenizer
        from tokenizers import decoders, models

        visible = {0xC3: "Ã", 0xA9: "©", 0xAA: "ª"}
        vocabulary = {"".join(visible.get(byte, chr(byte)) for byte in token): n for n, token in enumerate(self.tokens)}
        self._fast = FastTokenizer(models.BPE(vocabulary, []))
        self._fast.decoder = decoders.ByteLevel()
        self._size, self.eos_token_id = len(self.tokens), None


SMALL = Small()


@settings(max_examples=60)
@given(expression=EXPRESSIONS, seed=st.integers(0, 2**32))
def test_the_tokens_that_are_allowed_are_exactly_those_after_which_the_text_can_match(expression, seed):
    sampler, rest, rng = Regex(written(expression)), in_bytes(expression), np.random.default_rng(seed)
    ids, end, size = [0], len(SMALL.tokens), len(SMALL.tokens) + 3  # the model's vocabulary is padded
    for step in range(8):
        context = Context(np.array([ids]), step, rng, eos_token_id=end, tokenizer=SMALL)
        found = allowed(sampler, context, size)
        expected = {n for n, token in enumerate(SMALL.tokens) if after(rest, token) is not None}
        assert found == expected | ({end} if nullable(rest) else set())
        if not expected:
            break
        chosen = int(rng.choice(sorted(expected)))
        ids, rest = [*ids, chosen], after(rest, SMALL.tokens[chosen])


def test_every_way_to_cut_a_text_into_tokens_is_allowed_also_where_only_one_text_is():
    """The library would rule out all but one."""
    pieces = {text for text in shipped().str_tokens(range(SIZE)) if "Once upon".startswith(text)}
    assert len(pieces) > 1 and texts(allowed(Regex("Once upon"), at(""))) == pieces
    pieces = {text for text in shipped().str_tokens(range(SIZE)) if '"Once"'.startswith(text)}
    assert texts(allowed(JsonSchema({"const": "Once"}), at(""))) == pieces


def test_parts_of_characters():
    """The bytes of 漢 and 😀 are tokens by themselves, and are decoded together in the end."""
    sampler = Regex("[漢😀]")
    first = allowed(sampler, at(""))
    assert len(first) == 2 and texts(first) == {"\ufffd"}
    for text, whole in sampled(sampler, 0, rows=6, most=8):
        assert whole and text in "漢😀"


# JSON schemas

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["a", "b\n", "é", None, 1.5]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "schema",
    [
        PERSON,
        {"type": "boolean"},
        {"const": {"a": [1, "漢"]}},
        {"anyOf": [{"type": "null"}, {"type": "number", "minimum": -2, "exclusiveMaximum": 3}]},
        {"type": "string", "pattern": "^[A-Z]{2}[0-9]?$"},
        {"type": "string", "format": "date"},
        {
            "$ref": "#/$defs/pair",
            "$defs": {"pair": {"type": "array", "prefixItems": [{"type": "integer"}], "maxItems": 2}},
        },
        {"type": "object", "patternProperties": {"^x": {"type": "null"}}, "additionalProperties": False},
    ],
)
@pytest.mark.parametrize("whitespace", [True, False])
def test_a_text_is_json_that_the_schema_allows(schema, whitespace):
    # White space and long numbers may go on for ever, which these make improbable.
    bias = {END: 30, "}": 8, "]": 8, " ": -20, "\n": -20, "\n\n": -20}
    ended = 0
    for seed in range(2):
        for text, whole in sampled(JsonSchema(schema, whitespace), seed, bias=bias, most=70):
            ended += whole
            if whole:
                jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())
                assert (
                    whitespace
                    or text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
                    or (
                        "\\" in text or "." in text or "e" in text.lower()  # the same may be written in several ways
                    )
                )
    assert ended >= 4


@pytest.mark.parametrize("schema", ['{"enum": [true]}', "true", " true\n", {"enum": [True]}, True], ids=str)
def test_a_schema_may_be_given_as_text_or_as_values(schema):
    assert "t" in texts(allowed(JsonSchema(schema), at("")))


def test_white_space_is_for_the_option_to_say():
    assert {" ", "\n"} <= texts(allowed(JsonSchema({"type": "array"}, whitespace=True), at("[")))
    assert not {" ", "\n"} & texts(allowed(JsonSchema({"type": "array"}), at("[")))
    assert not {" ", "\n"} & texts(allowed(JsonSchema(True), at("[")))
    own = {"type": "array", "x-guidance": {"whitespace_flexible": True}}
    assert {" ", "\n"} <= texts(allowed(JsonSchema(own), at("[")))


# Grammars


def depths(text: str) -> list[int]:
    return np.cumsum([{"(": 1, ")": -1}[sign] for sign in text]).tolist()


def test_a_text_is_derived_by_the_grammar():
    """Balanced parentheses, which no regular expression describes."""
    ended = 0
    for seed in range(6):
        for text, whole in sampled(LarkGrammar('start: ("(" start ")")*'), seed, most=50, bias={")": 4, END: 2}):
            assert min(depths(text), default=0) >= 0
            assert not whole or not text or depths(text)[-1] == 0
            ended += whole
    assert ended >= 6


def test_a_grammar_may_hold_patterns_comments_and_schemas():
    grammar = '// a comment\nstart: NAME ":" value\nNAME: /[a-c]{2}/\nvalue: %json {"type": "boolean"}  // at the end'
    for text, whole in sampled(LarkGrammar(grammar), 3, most=12, bias={" ": -40, "\n": -40}):
        if whole:
            assert re.fullmatch(r"[a-c]{2}:\s*(true|false)", text)


# The end


def test_where_the_text_may_end_the_end_is_allowed_besides():
    assert texts(allowed(Regex("ab?"), at("a"))) == {"b", END}
    assert texts(allowed(Regex("ab"), at("a"))) == {"b"}
    assert texts(allowed(Regex("ab?"), at("ab"))) == {END}


def test_a_row_that_has_ended_goes_on_with_the_end_alone():
    context = at("", "")
    end = shipped().eos_token_id
    ids = np.array([[7, *ids_of("a"), end, 5], [7, *ids_of("a"), *ids_of("b"), *ids_of("c")]])
    left = Regex("abcd")(np.zeros((2, SIZE)), Context(ids, 3, context.rng, eos_token_id=end, tokenizer=shipped()))
    assert [texts(set(np.flatnonzero(row > -INF).tolist())) for row in left] == [{END}, {"d"}]


def test_a_model_without_an_end_of_text():
    assert texts(allowed(Regex("ab?"), at("a", eos_token_id=None))) == {"b"}
    with pytest.raises(InputError) as caught:
        allowed(Regex("ab?"), at("ab", eos_token_id=None))
    assert str(caught.value) == "Regex: the text is complete, and this model has no token that ends one."


def test_what_was_ruled_out_stays_so_and_no_token_left_is_an_error():
    logits = np.zeros((2, SIZE), np.float32)
    logits[:, ids_of("b")] = -INF
    kept = logits.copy()
    left = Regex("a[bc]")(logits, at("a", "a"))
    assert [texts(set(np.flatnonzero(row > -INF).tolist())) for row in left] == [{"c"}] * 2
    np.testing.assert_array_equal(logits, kept)
    with pytest.raises(InputError) as caught:
        Regex("ab")(logits, at("a", "a"))
    assert str(caught.value) == "Regex: all tokens that may follow 'a' are ruled out already."


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_logits_of_what_is_allowed_are_unchanged(dtype):
    logits = np.random.default_rng(0).normal(size=(1, SIZE)).astype(dtype)
    left = Regex("[ab]")(logits, at(""))
    assert left.dtype == dtype
    for letter in "ab":
        assert left[0, ids_of(letter)] == logits[0, ids_of(letter)]


@pytest.mark.parametrize("size", [SIZE + 200, SIZE, 70])
def test_a_vocabulary_of_another_tokenizer(size):
    """Ids that the tokenizer does not know are ruled out, and those that the model does not know are not missed."""
    tokens = allowed(Regex("(?s).*"), at("", eos_token_id=5), size)
    assert max(tokens) < min(size, SIZE - 1)  # the end is 5, and the tokenizer's own no text
    assert len(tokens) > 60


# State


ALL = [
    Regex("[a-c]+( [a-c]+)*"),
    JsonSchema({"type": "array", "items": {"type": "integer"}}),
    LarkGrammar('start: "x" nested\nnested: ("a" nested "b" | "c")+'),
]


@pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: type(sampler).__name__)
def test_rows_may_change_places_and_branch_without_a_word(sampler):
    """As beams do; a sampler that follows them says the same as one that is new at each step."""
    sampler.reset()
    rng, ids = np.random.default_rng(1), np.full((4, 2), 9)
    for step in range(8):
        logits = rng.normal(0, 2, (4, SIZE))
        context = Context(ids, step, rng, eos_token_id=SIZE - 1, tokenizer=shipped())
        found = sampler(logits, context)
        np.testing.assert_array_equal(found, sampler(logits, context))  # asked again
        np.testing.assert_array_equal(found, dataclasses.replace(sampler)(logits, context))
        chosen = Multinomial()(found, context).argmax(axis=-1)
        parents = rng.integers(0, 4, 4)
        ids = np.concatenate([ids, chosen[:, np.newaxis]], axis=1)[parents]


@pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: type(sampler).__name__)
def test_a_clone_goes_its_own_way_and_a_reset_begins_anew(sampler):
    sampler.reset()
    first = allowed(sampler, at(""))
    token = min(first)
    context = Context(np.array([[7, token]]), 1, np.random.default_rng(0), SIZE - 1, tokenizer=shipped())
    twin = Chain([sampler]).clone().stages[0]
    assert twin == sampler and twin is not sampler
    second = allowed(twin, context)
    assert second == allowed(sampler, context) != first
    twin.reset()
    assert allowed(twin, at("")) == first and allowed(sampler, context) == second


def test_clones_work_in_threads_of_their_own():
    """The library refuses one state to two threads at a time."""
    sampler = JsonSchema({"type": "array"}, whitespace=True)
    expected = allowed(sampler, at("["))

    def ask(twin: Sampler) -> bool:
        return all(allowed(twin, at("[")) == expected for _ in range(150))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, [sampler.clone() for _ in range(4)]))


def test_a_step_takes_one_token_and_not_the_whole_text_again(monkeypatch):
    taken: list[int] = []
    after_tokens = grammars.State.after
    monkeypatch.setattr(grammars.State, "after", lambda self, ids: taken.append(len(ids)) or after_tokens(self, ids))
    sampler = Regex("[a-c]*")
    for text in ("", "a", "ac", "aca"):
        ids = [ids_of(letter)[0] for letter in text]
        context = Context(np.array([[7, *ids]]), len(ids), np.random.default_rng(0), SIZE - 1, tokenizer=shipped())
        allowed(sampler, context)
    assert taken == [0, 1, 1, 1]


def test_another_tokenizer_is_noticed():
    sampler = Regex("ab1")
    assert texts(allowed(sampler, at(""))) == {"a", "ab"}
    small = Context(np.array([[0]]), 0, np.random.default_rng(0), tokenizer=SMALL)
    assert allowed(sampler, small, len(SMALL.tokens)) == {0, 6}


def test_a_text_that_does_not_fit_is_an_error():
    with pytest.raises(InputError) as caught:
        allowed(Regex("[0-9]+"), at("the"))
    assert str(caught.value) == "Regex: the text generated so far, 'the', does not fit the pattern '[0-9]+'."
    unknown = Context(np.array([[7, 4200]]), 1, np.random.default_rng(0), tokenizer=Tokenizer(SHIPPED, d_vocab=4300))
    with pytest.raises(InputError) as caught:
        allowed(LarkGrammar('start: "a"'), unknown)
    assert str(caught.value) == "LarkGrammar: the text generated so far, '[4200]', does not fit the grammar."


def test_without_a_tokenizer():
    with pytest.raises(InputError) as caught:
        allowed(Regex("a"), Context(np.array([[0]]), 0, np.random.default_rng(0)))
    assert str(caught.value) == "Regex: it needs a tokenizer to know the texts of tokens, and there is none."


def test_a_tokenizer_that_is_not_of_bytes(tmp_path):
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers import decoders, models

    fast = FastTokenizer(models.WordPiece({"a": 0, "##b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    fast.decoder = decoders.WordPiece()
    fast.save(str(tmp_path / "tokenizer.json"))
    context = Context(np.array([[0]]), 0, np.random.default_rng(0), tokenizer=Tokenizer(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"^llguidance cannot read this model's tokenizer: .*decoder.*\.$"):
        allowed(Regex("a"), context, 3)


# What cannot be used


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("(", "the pattern '(' cannot be used: unclosed group"),
        ("[a", "the pattern '[a' cannot be used: unclosed character class"),
        ("a{2,1}", "the pattern 'a{2,1}' cannot be used: invalid repetition count range, the start must be <= the end"),
        (
            "(?=a)b",
            "the pattern '(?=a)b' cannot be used: look-around, including look-ahead and look-behind, is not supported",
        ),
        (r"(a)\1", r"the pattern '(a)\\1' cannot be used: backreferences are not supported"),
        (r"\bfoo", r"the pattern '\\bfoo' cannot be used: lookarounds not supported yet; WordUnicode in regex /\bfoo/"),
        ("a\\", r"the pattern 'a\\' cannot be used: it ends with a backslash that escapes nothing"),
        ("(?x)a # b\nc", r"the pattern '(?x)a # b\nc' cannot be used: with the flag x it must be a single line"),
        ("a/ | /b\nstart: /x", None),
        ("[a&&b]", "no text fits the pattern '[a&&b]'"),
        ("a[b&&c]", "no text fits the pattern 'a[b&&c]'"),
        ("a" * 100_001, "the pattern has more than 100,000 characters"),
        ("\ud800", "the pattern is not valid Unicode: a lone surrogate at character 0"),
        ("(" * 300 + ")" * 300, None),
        ("((a{100}){100}){100}", None),
        ("(.*a.*b){20}.{20}", None),
        ("a{4294967295}", None),
        ("a{99999999999999999999}", None),
    ],
)
def test_patterns_that_cannot_be_used(pattern, expected, capfd):
    try:
        sampler = Regex(pattern)
        for text in ("", "a"):
            allowed(sampler, at(text))
    except InputError as error:
        message = str(error)
        assert expected is None or message == f"Regex: {expected}."
        assert "\n" not in message and len(message) < 400 and message.endswith((".", "…."))
        assert "panic" not in message
    else:
        assert expected is None
    assert capfd.readouterr() == ("", "")


def test_a_pattern_is_one_whatever_it_holds():
    """Slashes and lines end nothing in the grammar that is made of it."""
    for pattern in ("a/b", r"a\/b", "[/]", "a/ | /b\nstart: /x", "//", " a", r"\\/", "a\r\n\tb", "\x00", r"\n", "#a"):
        for text, whole in sampled(Regex(pattern), 0, rows=1, most=30):
            assert whole and re.fullmatch(pattern, text)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            "person.json",
            "the schema is not JSON: Expecting value: line 1 column 1 (char 0); a file is given as @ and its",
        ),
        (
            '{"type": "integer"',
            ("the schema is not JSON: Expecting ',' delimiter: line 1 column 19 (char 18); a file is"),
        ),
        ('{"minimum": NaN}', "the schema is not JSON: NaN is not JSON; a file is given as @ and its path."),
        ("[" * 90_000, "the schema is not JSON: it is nested too deeply; a file is given as @ and its path."),
        ("5", "a schema is a mapping, true or false, not '5'."),
        ("[]", "a schema is a mapping, true or false, not '[]'."),
        ("", "the schema is not JSON: Expecting value: line 1 column 1 (char 0); a file is given as @ and its path."),
        ({"const": INF}, "the schema cannot be written as JSON: Out of range float values are not JSON compliant"),
        ({"const": {1, 2}}, "the schema cannot be written as JSON: Object of type set is not JSON serializable."),
        ({"const": "\ud800"}, "the schema cannot be used: "),
        ({"enum": ["x" * 100_000]}, "the schema has more than 100,000 characters."),
        (False, "the schema cannot be used: Unsatisfiable schema: schema is false."),
        ({"type": "nothing"}, "the schema cannot be used: Invalid type: nothing."),
        ({"uniqueItems": True}, 'the schema cannot be used: Unimplemented keys: ["uniqueItems"].'),
        ({"not": {}}, 'the schema cannot be used: Unimplemented keys: ["not"].'),
        ({"format": "nonsense"}, "the schema cannot be used: Unknown format: nonsense."),
        ({"pattern": "("}, "the schema cannot be used: unclosed group."),
        ({"$ref": "http://localhost/x"}, "the schema cannot be used: Resource 'http://localhost/x' is not present"),
        ({"$ref": "#/x"}, "the schema cannot be used: Pointer '/x' does not exist."),
        ({"$ref": "#"}, "no text fits the schema."),
        (
            {"minimum": 5, "maximum": 3, "type": "integer"},
            "the schema cannot be used: Unsatisfiable schema: minimum (5)",
        ),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "the schema cannot be used: oneOf constraints are not"),
        ({"x-guidance": {"colour": 1}}, "the schema cannot be used: unknown field `colour`, expected one of"),
        (json.loads('{"items":' * 400 + "{}" + "}" * 400), "the schema cannot be used: "),
        ({"allOf": [{"anyOf": [{"const": i}, {"const": -i}]} for i in range(40)]}, "the schema cannot be used: "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_schemas_that_cannot_be_used(schema, expected, capfd):
    with pytest.raises(InputError) as caught:
        allowed(JsonSchema(schema), at(""))
    message = str(caught.value)
    assert message.startswith(f"JsonSchema: {expected}")
    assert "\n" not in message and len(message) < 400 and message.endswith(".")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ("start: b", 'the grammar cannot be used: unknown name: "b".'),
        ('start: a\na: "x" | b', 'the grammar cannot be used: line 2, column 4: unknown name: "b".'),
        ('start: A\nA: "x" A | "y"', 'the grammar cannot be used: line 2, column 4: circular reference in token "A" '),
        ("start: x\nx: /(/", "the grammar cannot be used: line 2, column 4: unclosed group."),
        ('rule: "a"', "the grammar cannot be used: no start rule found."),
        ("(*&^%", "the grammar cannot be used: line 1, column "),
        ('start: "a', "the grammar cannot be used: line 1, column 10: lexer error."),
        ("start: start", "no text fits the grammar."),
        (' {"grammars": []}', "a grammar begins with a rule, not with '{'."),
        (
            "%import nothing.INT\nstart: INT",
            "the grammar cannot be used: line 1, column 1: Unknown common regex: nothing",
        ),
        ("start: " + "(" * 90_000, "the grammar cannot be used: line 1, column "),
        ("x" * 100_001, "the grammar has more than 100,000 characters."),
        ('start: "\ud800"', "the grammar is not valid Unicode: a lone surrogate at character 8."),
        ("start: <|nothing|>", 'the grammar cannot be used: unknown special token: "<|nothing|>"'),
    ],
    ids=lambda value: value[:20],
)
def test_grammars_that_cannot_be_used(grammar, expected, capfd):
    with pytest.raises(InputError) as caught:
        allowed(LarkGrammar(grammar), at(""))
    message = str(caught.value)
    assert message.startswith(f"LarkGrammar: {expected}")
    assert "\n" not in message and len(message) < 400 and message.endswith(".")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a{}", "A{}"], ids=["rules", "terminals"])
def test_definitions_that_refer_to_one_another_7_000_deep_do_not_end_the_process(name):
    """They would, on a stack of the usual size."""
    chain = "\n".join(f"{name.format(i)}: {name.format(i + 1)}" for i in range(7_000))
    grammar = f'start: {name.format(0)}\n{chain}\n{name.format(7_000)}: "x"'
    assert texts(allowed(LarkGrammar(grammar), at(""))) == {"x"}


def test_what_takes_too_long_to_read(monkeypatch):
    import llguidance

    monkeypatch.setattr(grammars, "_PATIENCE", 0.01)
    monkeypatch.setattr(llguidance, "LLMatcher", lambda *args, **options: time.sleep(0.5))
    with pytest.raises(InputError) as caught:
        allowed(Regex("ab"), at(""))
    assert str(caught.value) == "Regex: the pattern 'ab' cannot be used: it is too large to be read within 0 seconds."


def test_a_library_that_gives_up_is_an_error(monkeypatch):
    """Its Rust code may panic, which is no Exception."""
    import llguidance

    class PanicException(BaseException):
        pass

    def give_up(*args, **options):
        raise PanicException("assertion failed:\n  too many")

    monkeypatch.setattr(llguidance, "LLMatcher", give_up)
    with pytest.raises(InputError) as caught:
        allowed(Regex("ab"), at(""))
    assert str(caught.value) == "Regex: the pattern 'ab' cannot be used: assertion failed: too many."


def test_the_stack_of_other_threads_is_left_as_it_was():
    import threading

    before = threading.stack_size()
    allowed(Regex("abc"), at(""))
    assert threading.stack_size() == before


# Files


def test_a_schema_and_a_grammar_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("schemas").mkdir()
    Path("schemas/a-b.json").write_text('\ufeff{"type": "boolean"}', encoding="utf-8")
    Path("a.lark").write_text('start: "a" | "é"\n', encoding="utf-8")
    chain = parse("json_schema=@schemas/a-b.json | lark=@a.lark | lark(grammar='@a.lark')", BUILT_IN)
    assert chain.samplers == (JsonSchema("@schemas/a-b.json"), LarkGrammar("@a.lark"), LarkGrammar("@a.lark"))
    Path("a.lark").write_text("start: b", encoding="utf-8")  # it was read already
    assert "t" in texts(allowed(chain.samplers[0], at("")))
    assert "a" in texts(allowed(chain.samplers[1], at("")))


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (None, "none.lark", "the file 'none.lark' cannot be read: No such file or directory."),
        (None, ".", "the file '.' cannot be read: Is a directory."),
        (None, "", "the file '' cannot be read: Is a directory."),
        (None, "a\0b", "the file 'a\\x00b' cannot be read: embedded null byte."),
        (
            b"\xff",
            "x",
            "the file 'x' cannot be read: it is not UTF-8 (byte 0 is 0xff).",
        ),
        (b"a" * 100_001, "x", "the grammar has more than 100,000 characters."),
        (b"", "x", None),
    ],
)
def test_files_that_cannot_be_used(content, name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        allowed(LarkGrammar(f"@{name}"), at(""))
    assert str(caught.value).startswith(
        f"LarkGrammar: {expected or 'the grammar cannot be used: no start rule found.'}"
    )


# In use


@pytest.fixture(scope="module")
def lens() -> onnxlens.Lens:
    return onnxlens.load(provider="cpu", threads=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"regex='[a|b]\\d' | top_k=40", (Regex(r"[a|b]\d"), TopK(40))),
        ("json_schema={'type': 'integer'}", (JsonSchema({"type": "integer"}),)),
        ("""json_schema(schema='{"type": "null"}', whitespace=True)""", (JsonSchema('{"type": "null"}', True),)),
        ("json_schema=True", (JsonSchema(True),)),
        ("""lark='start: "a" | "b"\\n'""", (LarkGrammar('start: "a" | "b"\n'),)),
    ],
)
def test_in_a_chain_as_text(text, expected):
    assert parse(text, BUILT_IN) == Chain(expected)


def test_a_generation_ends_where_the_text_is_complete(lens):
    generation = list(lens.generate("Emma is", max_new_tokens=30, seed=1, sampler="regex=' [0-9]{1,2} years old\\.'"))
    assert re.fullmatch(r" [0-9]{1,2} years old\.", "".join(token.text for token in generation))
    assert len(generation) < 30


def test_in_searches(lens):
    found = beam_search(
        lens, "Emma has", num_beams=3, num_return_sequences=3, max_new_tokens=8, sampler=Regex(" [a-z]+\\.")
    )
    assert len({one.text for one in found}) == 3
    found += best_of(lens, "Emma has", count=3, max_new_tokens=12, seed=2, sampler="regex=' [a-z]{1,5}\\.'")
    for one in found:
        assert one.finish_reason == "length" or re.fullmatch(r" [a-z]+\.", one.text)
    assert any(one.finish_reason == "end_of_text" for one in found)


def test_an_explanation_counts_what_was_ruled_out(lens):
    explanation = lens.explain_sampling("Emma has", sampler=Chain([Regex("[ab]"), Greedy()]))
    assert (explanation.stages[0].tokens, explanation.stages[0].removed_tokens) == (2, SIZE - 2)


def test_the_command(command, tmp_path):
    schema = tmp_path / "person.json"
    schema.write_text(json.dumps(PERSON))
    ran = command("generate", "Emma:", "-n", 60, "--seed", 3, "--provider", "cpu", "--sampler",
                  f"json_schema='@{schema}' | top_k=5")  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    jsonschema.validate(json.loads(ran.out.removeprefix("Emma:")), PERSON)
    ran = command("generate", "Emma:", "--provider", "cpu", "--sampler", "regex='('")
    assert (ran.code, ran.out, ran.err) == (1, "", "Error: Regex: the pattern '(' cannot be used: unclosed group.\n")


WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "llguidance":
            raise ModuleNotFoundError(f"refused: {name}", name=name)

sys.meta_path.insert(0, Refuse())
from onnxlens._cli import main
main()
"""


def without(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True)


def test_without_llguidance_all_is_listed_and_using_it_says_what_to_install():
    shown = without("plugins", "show", "json_schema")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Whether to allow white space of any length" in shown.stdout
    used = without("generate", "Emma:", "--provider", "cpu", "--sampler", "regex='a'")
    assert (used.returncode, used.stderr) == (
        1,
        "Error: Samplers that follow a grammar need llguidance, which is not installed: pip install "
        "'onnxlens[constrained]'.\n",
    )
