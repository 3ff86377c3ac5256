"""Tokenizers that would make the library give up are refused, or give one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tokenizer as make_tokenizer

from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import BundleError, InputError

BASE: dict[str, Any] = json.loads(make_tokenizer().to_str())
TEMPLATE = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
DOUBLING = {"type": "Replace", "pattern": {"Regex": "[a-z]"}, "content": "aa"}


def opened(folder: Path, **parts: Any) -> Tokenizer:
    document = {**BASE, **parts, "model": BASE["model"] | parts.get("model", {})}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return Tokenizer(folder / "tokenizer.json", 0, 290)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"model": {"vocab": {"a": 2**32 - 1}, "merges": []}},
            "it has the token id 4294967295; ids are from 0 to 10,000,000",
        ),
        ({"model": {"vocab": {"a": -1}, "merges": []}}, "it has the token id -1"),
        ({"model": {"vocab": {"a": "b"}, "merges": []}}, "it has the token id 'b'"),
        ({"added_tokens": [{"id": 10**9, "content": "a"}]}, "it has the token id 1000000000"),
        ({"model": {"continuing_subword_prefix": "##"}}, "lacks the prefix '##'"),
        ({"normalizer": {"type": "Prepend", "prepend": ""}}, "its normalizer prepends an empty text"),
        ({"normalizer": {**DOUBLING, "pattern": {"String": ""}}}, "its normalizer replaces empty texts"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "?"}}, "is not base64"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}}, "its normalizer is damaged"),
        ({"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 34}}, "more than 100 times as long"),
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "into pieces of length 0"),
        ({"decoder": {"type": "Strip", "content": "a", "start": 0, "stop": 9}}, "cuts off the end of every token"),
        ({"post_processor": {**TEMPLATE, "single": []}}, "does not have the text in it once"),
        ({"post_processor": {**TEMPLATE, "single": [TEXT] * 3}}, "does not have the text in it once"),
        (
            {"post_processor": {**TEMPLATE, "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, TEXT]}},
            "has '</s>', which is not one of its special tokens",
        ),
        ({"normalizer": 5}, "it does not have the form of a tokenizer.json"),
        ({"model": {"vocab": None}}, "it does not have the form of a tokenizer.json"),
    ],
)
def test_what_the_library_cannot_be_given(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=r"^The tokenizer .* cannot be read: [^\n]*\.$") as refused:
        opened(tmp_path, **parts)
    assert message in str(refused.value)
    assert capfd.readouterr().err == ""  # no word of the Rust library's


def test_where_the_library_gives_up_all_the_same(tmp_path: Path) -> None:
    """A regular expression that matches an empty text: only the library can tell."""
    made = opened(tmp_path, normalizer={"type": "Replace", "pattern": {"Regex": "x*"}, "content": "x"})
    with pytest.raises(InputError, match=r"^This model's tokenizer cannot encode the text: [^\n]*\.$"):
        made.encode("the cat")


def test_truncation_padding_and_dropout_are_off(tmp_path: Path) -> None:
    text = "the cat sat on the mat"
    made = opened(tmp_path, model={"dropout": 0.5})
    assert {tuple(made.encode(text)) for _ in range(20)} == {tuple(make_tokenizer().encode(text).ids)}


def test_a_token_that_only_the_tokenizer_has(tmp_path: Path) -> None:
    extra = {"id": 290, "content": "<pad>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    made = opened(tmp_path, added_tokens=[*BASE["added_tokens"], {**extra, "special": True}])
    assert made.encode("the") == make_tokenizer().encode("the").ids
    with pytest.raises(
        InputError, match=r"^The text has the token '<pad>', id 290, which this model does not have: its"
    ):
        made.encode("the<pad>")
