"""Reads a checkpoint's tokenizer: as transformers' AutoTokenizer reads it, and in no other way."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from onnxlens.export._configuration_files import read_object
from onnxlens.runtime._bundle.json_file import JsonFileError, read_json
from onnxlens.runtime._escape import quoted
from onnxlens.runtime._panics import one_line
from onnxlens.runtime._text.tokenizer import Tokenizer as BundleTokenizer
from onnxlens.runtime._text.tokenizer_document import TokenizerDocumentError, check_document
from onnxlens.runtime.errors import CheckpointError, ExportError

__all__ = [
    "OTHER_KINDS",
    "CheckpointTokenizer",
    "check_tokenizer",
    "read_tokenizer",
    "special_ids",
    "take_tokenizer",
]

# The kinds of vocabulary files that transformers reads only if the tokenizer's class is named.
OTHER_KINDS = {
    "vocab.txt": ("a WordPiece (BERT)", "BertTokenizerFast"),
    "spiece.model": ("a SentencePiece", "AutoTokenizer"),
    "tokenizer.model": ("a SentencePiece", "AutoTokenizer"),
    "sentencepiece.bpe.model": ("a SentencePiece", "AutoTokenizer"),
}
_JSON = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_FILES = ("tokenizer.json", "vocab.json", "merges.txt", *_JSON, *OTHER_KINDS)
_LARGEST = 256_000_000  # bytes of a file
_LARGEST_ID = 10_000_000
_PATIENCE = 300.0  # seconds

# Spaces, newlines, digits, quotes, several scripts, combined characters, and texts that look like special tokens.
_TEXTS = [
    "Hello, world!", " the cat sat", "the  cat   sat", "  ", " a", "a ", "a\nb", "\n\n a\n", "a\r\nb",
    "\t\tif x:\n    y", "don't we'll I'VE", "3.14159 2026-11-26 1,000,000", "snake_case CamelCase a/b\\c",
    '"quoted" (text) [x] {y}', "Ünïcödé café naïve", "cafe\u0301", "ﬁ ½ ①", "Привет, мир", "你好，世界",  # noqa: RUF001
    "こんにちは世界", "안녕하세요", "مرحبا بالعالم", "नमस्ते", "👩\u200d👩\u200d👧 🎉", "\ufeffmark",
    "\u00a0space\u2003wide", "zero\x00one\x1b[0m", "<s>a</s>", "<|endoftext|>", "a<|endoftext|>b",
    "<pad><unk><mask>", "[CLS] a [SEP] [PAD]", "UPPER lower", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]  # fmt: skip

logger = logging.getLogger("onnxlens")


@dataclass(frozen=True, kw_only=True)
class CheckpointTokenizer:
    """A tokenizer as transformers reads it, with reference encodings.

    Attributes:
        tokenizer: without truncation, padding and dropout.
        config: the entries of a tokenizer_config.json with which transformers reads the same tokenizer back.
        kind: the class of transformers that read it.
        encoded: texts and their ids in transformers.
    """

    tokenizer: Tokenizer
    config: dict[str, Any]
    kind: str
    encoded: list[tuple[str, list[int]]]


def special_ids(config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> dict[str, int]:
    """The ids of the special tokens that a model's configuration names, by the names of tokenizer_config.json.

    Args:
        config: the entries of config.json.
        generation: those of generation_config.json, which come first.
    """
    found: dict[str, int] = {}
    for name in ("bos_token", "eos_token", "pad_token"):
        for entries in (generation or {}, config):
            value = entries.get(f"{name}_id")
            value = value[0] if isinstance(value, list) and value else value
            if type(value) is int and value >= 0:
                found.setdefault(name, value)
    return found


def read_tokenizer(
    path: Path, *, config: dict[str, Any] | None = None, special: Mapping[str, int] | None = None
) -> CheckpointTokenizer:
    """Reads a tokenizer as `AutoTokenizer.from_pretrained(folder)` does, or a named tokenizer.json unchanged.

    Args:
        path: a folder with tokenizer.json, or vocab.json and merges.txt, or others that transformers reads; or a
            tokenizer.json itself.
        config: entries for a tokenizer_config.json, where there is none.
        special: the ids of special tokens, such as `eos_token`, of which the tokenizer itself may not know.

    Raises:
        CheckpointError: there are no such files, they are damaged, or transformers reads them as something else.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found: dict[str, Any] = {}
        if path.is_file():
            _copy(path, folder / "tokenizer.json")
        elif path.is_dir():
            found = _gather(path, folder)
        if not (folder / "tokenizer.json").is_file():
            _check_vocabulary(path, folder, found)
        return _read(
            folder,
            str(path),
            as_written=path.is_file(),
            config=found or config or {},
            special=special or {},
            model=_model(path),
        )


def take_tokenizer(
    tokenizer: Tokenizer, *, config: dict[str, Any], special: Mapping[str, int] | None = None
) -> CheckpointTokenizer:
    """Takes a tokenizer in memory; it is read, not changed. Errors are those of `read_tokenizer`."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        return _read(Path(scratch), "memory", as_written=True, config=config, special=special or {}, model=_model(None))


def check_tokenizer(file: Path, expected: CheckpointTokenizer) -> dict[str, Any]:
    """Verifies that the tokenizer of a bundle encodes as transformers does; returns the report.

    Args:
        file: the tokenizer.json that was written.
        expected: the same in transformers.

    Raises:
        ExportError: it does not.
    """
    ours = BundleTokenizer(file)
    for text, ids in expected.encoded:
        if (found := ours.token_ids(text, add_special_tokens=True)) != ids:
            raise ExportError(
                f"The exported tokenizer encodes {quoted(text)} as {quoted(found)}, and transformers' {expected.kind} "
                f"as {quoted(ids)}; nothing was written."
            )
    return {"reference": f"transformers {expected.kind}", "texts": len(expected.encoded)}


def _gather(source: Path, folder: Path) -> dict[str, Any]:
    """Copies the files of a tokenizer, and no others; returns the entries of tokenizer_config.json."""
    for name in _FILES:
        if (source / name).is_file():
            _copy(source / name, folder / name)
    for name in _JSON:
        if (folder / name).is_file():
            read_object(source / name)  # which checks it
    config = read_object(source / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    if config.get("auto_map"):
        raise CheckpointError(
            f"{source / 'tokenizer_config.json'}: 'auto_map' is set; tokenizers with code of their own cannot be "
            "exported."
        )
    return config


def _copy(source: Path, target: Path) -> None:
    try:
        if source.stat().st_size > _LARGEST:
            raise CheckpointError(f"{source} cannot be read: it has more than {_LARGEST:,} bytes.")
        shutil.copyfile(source, target)
    except OSError as error:
        raise CheckpointError(f"{source} cannot be read: {error.strerror or error}.") from error


def _check_vocabulary(path: Path, folder: Path, config: dict[str, Any]) -> None:
    """Checks that a folder without tokenizer.json has another form of tokenizer."""
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        try:
            vocabulary = read_json(folder / "vocab.json", _LARGEST)
        except JsonFileError as error:
            raise CheckpointError(f"The tokenizer in {path} cannot be read: vocab.json: {error}.") from error
        ids = vocabulary.values() if isinstance(vocabulary, dict) else [None]
        if any(type(token) is not int or not 0 <= token <= _LARGEST_ID for token in ids):
            raise CheckpointError(
                f"The tokenizer in {path} cannot be read: vocab.json must give each token an id from 0 to "
                f"{_LARGEST_ID:,}."
            )
        return
    for other, (kind, reader) in OTHER_KINDS.items():
        if (folder / other).is_file():
            if other == "vocab.txt" and str(config.get("tokenizer_class", "")).startswith("Bert"):
                return
            raise CheckpointError(
                f"{path} has no tokenizer.json, and its {other} is {kind} vocabulary; without tokenizer.json, onnxlens "
                f"reads only GPT-2's vocab.json and merges.txt. Make one with transformers: "
                f"{reader}.from_pretrained(FOLDER).save_pretrained(FOLDER)."
            )
    raise CheckpointError(
        f"{path} has no tokenizer: neither tokenizer.json nor vocab.json and merges.txt. Give one with --tokenizer."
    )


def _model(source: Path | None) -> dict[str, Any]:
    """The entries of a model's config.json that decide the class of its tokenizer."""
    entries = read_object(source / "config.json") if source and (source / "config.json").is_file() else {}
    known = {key: entries[key] for key in ("model_type", "tokenizer_class") if isinstance(entries.get(key), str)}
    return {"model_type": "gpt2", **known}


def _read(
    folder: Path,
    origin: str,
    *,
    as_written: bool,
    config: dict[str, Any],
    special: Mapping[str, int],
    model: dict[str, Any],
) -> CheckpointTokenizer:
    where = f"The tokenizer in {origin} cannot be read"
    if (folder / "tokenizer.json").is_file():
        try:
            check_document((folder / "tokenizer.json").read_bytes())
        except TokenizerDocumentError as error:
            raise CheckpointError(f"{where}: {error}.") from error
    (folder / "config.json").write_text(json.dumps(model), encoding="utf-8")
    request = {
        "folder": str(folder),
        "as_written": as_written,
        "texts": _TEXTS,
        "config": config,
        "special": {**special},
    }
    answer = _asked(request, where)
    if "error" in answer:
        raise CheckpointError(f"{where}: {answer['error']}.")
    found = CheckpointTokenizer(
        tokenizer=Tokenizer.from_str(answer["document"]),
        config=answer["config"],
        kind=answer["kind"],
        encoded=[(text, ids) for text, ids in answer["encoded"]],
    )
    _check_added(folder, found, where)
    for text, ids in found.encoded:
        if found.tokenizer.encode(text).ids != ids:
            raise CheckpointError(
                f"{where}: transformers' {found.kind} cannot be expressed as a tokenizer.json: {quoted(text)} would "
                "have other tokens."
            )
    if answer["differs"] is not None:
        logger.warning(
            "transformers' %s does not read tokenizer.json as it is written: for example, %s has other tokens. The "
            "export follows transformers; to use the file as it is written, give it with --tokenizer.",
            found.kind,
            quoted(answer["differs"]),
        )
    return found


def _asked(request: dict[str, Any], where: str) -> dict[str, Any]:
    """The answer of `auto_tokenizer`, in a process of its own, without network access."""
    program = Path(__file__).with_name("_auto_tokenizer.py")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(program)],
            input=json.dumps(request).encode(),
            capture_output=True,
            env=environment,
            timeout=_PATIENCE,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(f"{where}: it takes more than {_PATIENCE:.0f} seconds.") from error
    except OSError as error:
        raise CheckpointError(f"{where}: no process can be started for it: {error.strerror}.") from error
    except ValueError as error:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        why = one_line(ValueError(done.stderr.decode("utf-8", "replace").strip().split("\n")[0]))
        raise CheckpointError(f"{where}: the library that reads it crashed ({how}: {quoted(why)}).") from error
    return answer


def _check_added(folder: Path, found: CheckpointTokenizer, where: str) -> None:
    """Checks that added tokens have the ids that their files give them, which transformers does not always use."""
    if not (folder / "added_tokens.json").is_file() or (folder / "tokenizer.json").is_file():
        return
    for name, number in read_object(folder / "added_tokens.json").items():
        if (actual := found.tokenizer.token_to_id(name)) != number:
            raise CheckpointError(
                f"{where}: added_tokens.json gives {quoted(name)} the id {quoted(number)}, but transformers gives it "
                f"{actual}, the next free id."
            )
