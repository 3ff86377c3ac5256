"""Chains of samplers written as text, by friends and by foes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sampling_references import PLUGINS

from onnxlens.plugins.samplers import (
    DRY,
    SAMPLERS,
    XTC,
    BadWords,
    Chain,
    ForcedFirst,
    Greedy,
    LogitBias,
    Mirostat,
    RepetitionPenalty,
    SuppressTokens,
    Temperature,
    TopK,
    TopP,
    parse,
)
from onnxlens.runtime.errors import InputError, PluginError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "repetition_penalty=1.1 | top_k=40 | top_p=0.95 | temperature=0.8",
            [RepetitionPenalty(1.1), TopK(40), TopP(0.95), Temperature(0.8)],
        ),
        ("greedy", [Greedy()]),
        ("greedy()", [Greedy()]),
        ("top_k=40|greedy", [TopK(40), Greedy()]),
        ("  top_k \t=\n 40\r\n|\n greedy ", [TopK(40), Greedy()]),
        ("xtc(probability=0.5, threshold=0.2)", [XTC(0.5, 0.2)]),
        ("xtc ( threshold = 2e-1 , probability = 1 )", [XTC(1, 0.2)]),
        ("xtc=0.5", [XTC(0.5)]),
        ("mirostat", [Mirostat()]),
        ("dry(breakers=[])", [DRY(breakers=())]),
        (r"dry(breakers=['\n', ',', '|', ')', 7])", [DRY(breakers=("\n", ",", "|", ")", 7))]),
        ("bad_words=[' a|b', \"it's\", 5, [1, 2]]", [BadWords((" a|b", "it's", 5, (1, 2)))]),
        ("bad_words=('x',)", [BadWords(("x",))]),
        ("suppress_tokens=[1]|top_k=2", [SuppressTokens((1,)), TopK(2)]),
        ("logit_bias={5: 1, ' the': -2.5}", [LogitBias({5: 1.0, " the": -2.5})]),
        ("forced_bos=The", [ForcedFirst("The")]),
        ("forced_bos=' The'", [ForcedFirst(" The")]),
        ("forced_bos='#|#'", [ForcedFirst("#|#")]),
        ("forced_bos='''a\n|b'''", [ForcedFirst("a\n|b")]),
        ("forced_bos='é' | forced_bos='😀' | top_k=3", [ForcedFirst("é"), ForcedFirst("😀"), TopK(3)]),
        ("top_k='40'", [TopK(40)]),
    ],
)
def test_a_text_is_a_chain(text, expected):
    assert parse(text, PLUGINS) == Chain(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "The chain '' has an empty stage; stages are separated by single '|'."),
        ("top_k=1||greedy", "The chain 'top_k=1||greedy' has an empty stage; stages are separated by single '|'."),
        ("greedy|", "The chain 'greedy|' has an empty stage; stages are separated by single '|'."),
        ("top_q=3", "There is no sampler 'top_q'. Did you mean 'top_p'? 'onnxlens plugins' lists all of them."),
        ("temprature=3", "There is no sampler 'temprature'. Did you mean 'temperature'? 'onnxlens plugins' lists all "
         "of them."),
        ("top_k", "top_k: it needs the option k."),
        ("top_k=", "In 'top_k=', a value is missing; write a number, a word, or text in quotes."),
        ("top_k=many", "top_k: k must be a whole number, not 'many'."),
        ("top_k=0", "top_k: k must be a whole number of at least 1, not 0."),
        ("top_k=1+1", "In 'top_k=1+1', the value '1+1' cannot be read; write a number, a word, or text in quotes."),
        ("top_k=2 greedy", "In 'top_k=2 greedy', the value '2 greedy' cannot be read; write a number, a word, or text "
         "in quotes."),
        ("top_k(40)", "In 'top_k(40)', write options as option=value, such as k=..."),
        ("top_k(k=4, k=5)", "In 'top_k(k=4, k=5)', the option 'k' is given twice."),
        ("top_k(n=4)", "top_k has no option 'n'; its options are k."),
        ("greedy=1", "greedy has no options, so write 'greedy' alone."),
        ("top_k greedy", "The stage 'top_k greedy' cannot be read; write a sampler as name, name=value or "
         "name(option=value, ...)."),
        ("top-k=4", "The stage 'top-k=4' cannot be read; write a sampler as name, name=value or "
         "name(option=value, ...)."),
        ("(top_k=1)", "The stage '(top_k=1)' cannot be read; write a sampler as name, name=value or "
         "name(option=value, ...)."),
        ("top_k(k=1", "'top_k(k=1' cannot be read; check its quotes and brackets."),
        ("top_k(k=1))", "'top_k(k=1))' has a ')' that closes nothing."),
        ("top_k(k=[1)", "'top_k(k=[1)' has a ')' that closes nothing."),
        (") | (", "') | (' has a ')' that closes nothing."),
        ("forced_bos='a", "\"forced_bos='a\" cannot be read; check its quotes and brackets."),
        ("top_k=1 # first", "'top_k=1 # first' has a '#' outside of quotes, which means nothing here."),
        ("top_k=__import__('os')", "In \"top_k=__import__('os')\", the value \"__import__('os')\" cannot be read; "
         "write a number, a word, or text in quotes."),
        ("top_p=nan", "top_p: p must be a number above 0.0, not 'nan'."),
        ("temperature=1e999", "temperature must be a number of at most 1000000.0, not inf."),
        ("top_p=None", "top_p: p must be a number, not None."),
        ("top_p=True", "top_p: p must be a number, not True."),
        ("top_p=1j", "top_p: p must be a number, not 1j."),
        ("top_p=b'1'", "top_p: p must be a number, not b'1'."),
        ("x" * 200_000, "A chain of samplers has at most 100,000 characters, not 200,000."),
    ],
)  # fmt: skip
def test_a_text_that_is_no_chain(text, expected):
    with pytest.raises((InputError, PluginError)) as caught:
        parse(text, PLUGINS)
    assert str(caught.value) == expected


def test_an_unknown_sampler_that_is_like_none_gets_the_list():
    with pytest.raises(PluginError, match=r"^There is no sampler 'zzz'\. There are top_k, top_p, .*, gumbel\."):
        parse("zzz", PLUGINS)


def test_a_value_with_a_bar_that_is_not_in_quotes():
    with pytest.raises(PluginError, match=r"There is no sampler 'b'.*needs quotes: name='a\|b'\.$"):
        parse("regex=a|b", PLUGINS)


def test_what_is_no_text_is_no_chain():
    with pytest.raises(InputError, match=r"^A chain of samplers is written as text, not int\.$"):
        parse(5, PLUGINS)


SIGNS = [
    "|",
    "=",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "'",
    '"',
    '"""',
    "\\",
    "#",
    "-",
    "$",
    "?",
    "!",
    "\0",
    "\u2028",
]
WORDS = ["0", "1.5", "1e999", "0x", "1_", "k", "p", "None", "f'", "lambda", "é", "😀", "\ud800", " ", "\n", "\r", "\t"]
PIECES = st.sampled_from([*SAMPLERS, *SIGNS, *WORDS])


@given(text=st.one_of(st.text(), st.lists(PIECES).map("".join)))
@example(text="\ud800")
def test_any_text_is_a_chain_or_an_error_in_one_line(text):
    try:
        found = parse(text, PLUGINS)
    except (InputError, PluginError) as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1_000
    else:
        assert isinstance(found, Chain)


@pytest.mark.parametrize("depth", [100, 10_000, 49_000])
def test_deep_brackets_are_an_error(depth):
    with pytest.raises(InputError):
        parse(f"top_k={'(' * depth}{')' * depth}", PLUGINS)


def test_a_long_number_is_an_error():
    with pytest.raises(InputError):
        parse(f"top_p={'9' * 10_000}", PLUGINS)
