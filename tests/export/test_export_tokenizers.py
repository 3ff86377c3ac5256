"""The tokenizer of an export is what transformers' AutoTokenizer makes of the checkpoint's files, or none."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tokenizer
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from onnxlens.export._checkpoint import _check_fit
from onnxlens.export._tokenizer import CheckpointTokenizer, check_tokenizer, read_tokenizer, special_ids, take_tokenizer
from onnxlens.runtime.errors import CheckpointError, ExportError

BASE: dict[str, Any] = json.loads(tokenizer().to_str())
MERGES = "".join(f"{' '.join(pair)}\n" for pair in BASE["model"]["merges"])
OLD: dict[str, Any] = {"vocab.json": BASE["model"]["vocab"], "merges.txt": f"#version: 0.2\n{MERGES}"}
SPECIAL = {"eos_token": "</s>", "bos_token": "</s>", "pad_token": "<pad>"}
TEXTS = ["the cat</s>the dog", " the\n<pad> hat", "Привет <|endoftext|>", "", "THE  cat"]
TRAINING = {
    "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
    "padding": {
        "strategy": {"Fixed": 30}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    },
}  # fmt: skip


def written(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir()
    for name, content in {"config.json": {"model_type": "gpt2"}, **files}.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def changed(**parts: Any) -> dict[str, Any]:
    document = copy.deepcopy(BASE)
    document["model"] |= parts.pop("model", {})
    return document | parts


ODD = changed(normalizer={"type": "Lowercase"})


@pytest.mark.parametrize(
    "files",
    [
        {**OLD, "special_tokens_map.json": SPECIAL, "tokenizer_config.json": {"eos_token": "</s>"}},
        {**OLD, "tokenizer_config.json": {**SPECIAL, "add_bos_token": True}},
        {**OLD, "added_tokens.json": {"<pad>": 290}, "tokenizer_config.json": {"add_prefix_space": True}},
        {"tokenizer.json": BASE, "tokenizer_config.json": {"add_prefix_space": True}},
        {"tokenizer.json": ODD},
        {"tokenizer.json": ODD, "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}},
        {"vocab.txt": "[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\nthe\ncat\n", "tokenizer_config.json": {"tokenizer_class": "BertTokenizer"}},  # noqa: E501
    ],
    ids=["specials", "bos", "prefix space", "prefix space and json", "odd", "odd as written", "bert"],
)  # fmt: skip
def test_it_is_what_transformers_gives(tmp_path: Path, files: dict[str, Any]) -> None:
    folder = written(tmp_path / "source", files)
    found, theirs = read_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    (bundle := tmp_path / "bundle").mkdir()
    found.tokenizer.save(str(bundle / "tokenizer.json"))
    (bundle / "tokenizer_config.json").write_text(json.dumps(found.config))
    (bundle / "config.json").write_text('{"model_type": "gpt2"}')
    again = AutoTokenizer.from_pretrained(bundle)
    for text in TEXTS:
        assert found.tokenizer.encode(text).ids == theirs(text)["input_ids"] == again(text)["input_ids"], text
    assert again.special_tokens_map.items() >= theirs.special_tokens_map.items()
    assert check_tokenizer(bundle / "tokenizer.json", found)["texts"] > 30


NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
LLAMA = {"tokenizer_class": "PreTrainedTokenizerFast"}  # which has no special tokens of its own


def with_tokens(*texts: str) -> dict[str, Any]:
    """The tokenizer with further special tokens, whose ids are 290 and on."""
    added = [
        {
            "id": 290 + number, "content": text, "special": True,
            "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        }
        for number, text in enumerate(texts)
    ]  # fmt: skip
    return changed(added_tokens=[*BASE["added_tokens"], *added])


@pytest.mark.parametrize(
    ("config", "ids", "expected"),
    [
        (LLAMA, {"eos_token": 0}, dict.fromkeys(NAMED, "<|endoftext|>")),
        (LLAMA, {"bos_token": 290, "eos_token": 291}, {**dict.fromkeys(NAMED, "</s>"), "bos_token": "<s>"}),
        (LLAMA, {"bos_token": 290, "eos_token": 291, "pad_token": 293}, {**NAMED, "unk_token": "</s>"}),
        (LLAMA, {"bos_token": 290}, dict.fromkeys(NAMED, "<s>")),
        (LLAMA | NAMED, {"eos_token": 0, "pad_token": 0}, NAMED),
        (LLAMA | {"eos_token": "</s>", "pad_token": None}, {"eos_token": 0}, dict.fromkeys(NAMED, "</s>")),
        (LLAMA | {"eos_token": {"content": "</s>", "__type": "AddedToken"}}, {}, {"pad_token": "</s>"}),
        (LLAMA | {"padding_side": "right"}, {"eos_token": 0}, {"padding_side": "right", "pad_token": "<|endoftext|>"}),
        ({}, {}, dict.fromkeys(NAMED, "<|endoftext|>")),
    ],
)
def test_special_tokens_are_named(
    tmp_path: Path, config: dict[str, Any], ids: dict[str, int], expected: dict[str, Any]
) -> None:
    files = {"tokenizer.json": with_tokens("<s>", "</s>", "<unk>", "<pad>"), "tokenizer_config.json": config}
    found = read_tokenizer(written(tmp_path / "source", files), special=ids).config
    assert found.items() >= ({"padding_side": "left"} | expected).items()


def test_a_batch_has_what_a_decoder_takes(tmp_path: Path) -> None:
    files = {"tokenizer.json": BASE, "tokenizer_config.json": LLAMA}
    (bundle := tmp_path / "bundle").mkdir()
    found = read_tokenizer(written(tmp_path / "source", files), special={"eos_token": 0})
    found.tokenizer.save(str(bundle / "tokenizer.json"))
    (bundle / "tokenizer_config.json").write_text(json.dumps(found.config))
    (bundle / "config.json").write_text('{"model_type": "llama"}')
    batch = AutoTokenizer.from_pretrained(bundle)(["the cat sat", "the"], padding=True)
    assert batch.keys() == {"input_ids", "attention_mask"}
    assert batch["attention_mask"] == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("ids", [{}, {"eos_token": BASE["model"]["vocab"]["he"]}, {"eos_token": 50256}])
def test_a_token_of_the_text_is_not_named_as_a_special_one(tmp_path: Path, ids: dict[str, int]) -> None:
    plain = changed(added_tokens=[])
    found = read_tokenizer(
        written(tmp_path / "s", {"tokenizer.json": plain, "tokenizer_config.json": LLAMA}), special=ids
    )
    assert not {*NAMED} & {*found.config}  # named, it would be cut out of every text that holds it


def test_the_ids_of_special_tokens_are_those_that_generation_uses() -> None:
    config = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    assert special_ids(config) == {"bos_token": 1, "eos_token": 2}
    assert special_ids(config, {"eos_token_id": [5, 6], "pad_token_id": 7}) == {
        "bos_token": 1, "eos_token": 5, "pad_token": 7,
    }  # fmt: skip
    assert special_ids({"bos_token_id": -1, "eos_token_id": "x"}) == {}


def test_the_specials_are_known(tmp_path: Path) -> None:
    files = {**OLD, "special_tokens_map.json": SPECIAL, "tokenizer_config.json": {"eos_token": "</s>"}}
    assert len(read_tokenizer(written(tmp_path / "source", files)).tokenizer.encode("the cat</s>the dog").ids) == 6


def test_a_tokenizer_json_that_transformers_reads_otherwise_is_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = written(tmp_path / "source", {"tokenizer.json": ODD})
    read_tokenizer(folder)
    assert (
        "GPT2Tokenizer does not read tokenizer.json as it is written: for example, 'Hello, world!' has other tokens"
    ) in caplog.text
    caplog.clear()
    assert read_tokenizer(folder / "tokenizer.json").tokenizer.encode("THE").ids == tokenizer().encode("the").ids
    assert not caplog.text


def test_truncation_padding_and_dropout_are_off(tmp_path: Path) -> None:
    for number, extra in enumerate([{}, {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}}]):
        document = changed(**TRAINING, model={"dropout": 0.5})
        made = read_tokenizer(written(tmp_path / str(number), {"tokenizer.json": document, **extra})).tokenizer
        assert made.truncation is None
        assert made.padding is None
        assert json.loads(made.to_str())["model"]["dropout"] is None
        text = "the cat sat on the mat"
        assert {tuple(made.encode(text).ids) for _ in range(20)} == {tuple(tokenizer().encode(text).ids)}


def test_a_tokenizer_in_memory_is_copied() -> None:
    made = Tokenizer.from_str(json.dumps(changed(model={"dropout": 0.5})))
    found = take_tokenizer(made, config={"tokenizer_class": "GPT2TokenizerFast"})
    assert found.config["tokenizer_class"] == "GPT2TokenizerFast"
    assert json.loads(made.to_str())["model"]["dropout"] == 0.5


PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": "/////w=="}
DOUBLING = {"type": "Replace", "pattern": {"Regex": "[a-z]"}, "content": "aa"}
SPLIT = {"tokenizer.json": BASE, "tokenizer_config.json": {"split_special_tokens": True}}
CODE = {"tokenizer.json": BASE, "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["a.B", None]}}}
WORDS = {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"tokenizer.json": changed(model={"vocab": {"a": 2**31}, "merges": []})},
            "it has the token id 2147483648; ids",
        ),
        ({"tokenizer.json": changed(model={"continuing_subword_prefix": "##"})}, "lacks the prefix '##'"),
        ({"tokenizer.json": changed(normalizer=PRECOMPILED)}, "the table of its normalizer is damaged"),
        (
            {"tokenizer.json": changed(normalizer={"type": "Sequence", "normalizers": [DOUBLING] * 34})},
            "its normalizers can make a text more than 100 times as long",
        ),
        (
            {
                "tokenizer.json": changed(pre_tokenizer={"type": "FixedLength", "length": 0}),
                "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
            },
            "pieces of length 0",
        ),
        (
            {"tokenizer.json": {**BASE, "model": WORDS}},
            "is a WordLevel tokenizer, and transformers reads it as GPT2Tokenizer",
        ),
        ({"tokenizer.json": "{"}, "it is not JSON"),
        ({"tokenizer.json": "[]"}, "it does not have the form of a tokenizer.json"),
        ({**OLD, "vocab.json": {"a": 2**31}}, "vocab.json must give each token an id from 0 to 10,000,000"),
        ({**OLD, "added_tokens.json": {"<pad>": 295}}, "gives '<pad>' the id 295, but transformers gives it 290"),
        (SPLIT, "GPT2Tokenizer cannot be expressed as a tokenizer.json"),
        (CODE, "'auto_map' is set; tokenizers with code of their own"),
        ({"vocab.txt": "the\n"}, "its vocab.txt is a WordPiece (BERT) vocabulary"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], files: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError) as refused:
        read_tokenizer(written(tmp_path / "source", files))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("program", ["import os; os.abort()", "raise SystemExit(3)", "print('[')"])
def test_a_library_that_ends_its_process_does_not_end_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    from onnxlens.export import _tokenizer as module

    (tmp_path / "auto_tokenizer.py").write_text(program)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "tokenizer.py"))
    with pytest.raises(
        CheckpointError, match=r"cannot be read: the library that reads it crashed \((signal|exit code) "
    ):
        read_tokenizer(written(tmp_path / "source", {"tokenizer.json": BASE}))


def test_an_export_that_encodes_otherwise_is_refused(tmp_path: Path) -> None:
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    ids = tokenizer().encode("the").ids
    expected = CheckpointTokenizer(tokenizer=tokenizer(), config={}, kind="GPT2Tokenizer", encoded=[("the", [*ids, 1])])
    with pytest.raises(
        ExportError, match=r"^The exported tokenizer encodes 'the' as \[.*and transformers' GPT2Tokenizer"
    ):
        check_tokenizer(tmp_path / "tokenizer.json", expected)


@pytest.mark.parametrize(
    ("size", "outcome"),
    [
        (300, None),
        (290, None),
        (289, "1 entries of the tokenizer lie beyond the model's 289 tokens"),
        (288, "2 entries"),
        (280, CheckpointError),
        (580, None),
        (581, "The tokenizer has 290 entries, and the model 581 tokens: it seems to belong to another model."),
    ],
)
def test_whether_a_tokenizer_belongs_to_a_model(
    caplog: pytest.LogCaptureFixture, size: int, outcome: str | type[Exception] | None
) -> None:
    caplog.set_level(logging.WARNING)
    if isinstance(outcome, type):
        with pytest.raises(outcome, match="The tokenizer has ids up to 289, but the model has only 280 tokens"):
            _check_fit(tokenizer(), size)
        return
    _check_fit(tokenizer(), size)
    assert (outcome or "") in caplog.text
    assert bool(outcome) == bool(caplog.text)
