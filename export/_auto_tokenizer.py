"""Reads a tokenizer with transformers, in a process of its own, since damaged files can crash it.

It takes a request on standard input and prints an answer, both JSON:

- `folder`: where the tokenizer's files are, and a config.json that names the type of model;
- `as_written`: whether tokenizer.json is read as it is, not as the class of tokenizer that transformers chooses;
- `texts`: the texts to encode;
- `config`: the known entries of the bundle's tokenizer_config.json;
- `special`: the ids of special tokens, such as `eos_token`, that the model's configuration names;

and answers with `error`, or with

- `document`: the tokenizer as the tokenizers library writes it, without truncation, padding and dropout;
- `kind`: the class that read it;
- `config`: tokenizer_config.json with which transformers reads that document as the same tokenizer. It names the
  tokens of `_SPECIAL`, since transformers.js needs them where several texts are padded; for one that neither tokenizer
  nor model has, the end token;
- `encoded`: pairs of a text and its ids, the texts of the request and some with each token that was added;
- `differs`: the first text that the original tokenizer.json would encode differently, or null.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

_MOST_MEMORY = 8 << 30  # bytes
_ADDED = 40  # tokens that get texts of their own
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def main() -> None:
    """Answers one request."""
    request = json.load(sys.stdin)
    _limit()
    try:
        answer = _read(**request)
    except BaseException as error:  # includes panics of Rust code
        answer = {"error": " ".join(str(error).split())[:300] or type(error).__name__}
    json.dump(answer, sys.stdout)


def _read(
    folder: str, as_written: bool, texts: list[str], config: dict[str, Any], special: dict[str, int]
) -> dict[str, Any]:
    from tokenizers import Tokenizer

    auto, plain = _classes()
    file = Path(folder) / "tokenizer.json"
    if as_written:
        made = plain(tokenizer_file=str(file))
    else:
        made = auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind = type(made).__name__
    fast = getattr(made, "backend_tokenizer", None)
    if not isinstance(fast, Tokenizer):
        raise ValueError(f"transformers reads it with {kind}, which is not a class of the tokenizers library")
    _make_plain(fast)
    if file.is_file():
        written = json.loads(file.read_bytes())["model"].get("type")
        if written not in (None, type(fast.model).__name__):
            raise ValueError(
                f"tokenizer.json is a {written} tokenizer, and transformers reads it as {kind}, a "
                f'{type(fast.model).__name__} tokenizer; let tokenizer_config.json have "tokenizer_class": '
                '"PreTrainedTokenizerFast"'
            )
    added = [token.content for token in fast.get_added_tokens_decoder().values()][:_ADDED]
    named = {name: str(token) for name, token in made.special_tokens_map.items() if not isinstance(token, list)}
    entries = {"padding_side": "left", **named, **config}
    completed = entries | _special_tokens(fast, entries, special)
    added += dict.fromkeys(_text(completed[name]) for name in _SPECIAL if completed.get(name))
    texts = texts + [form.format(token) for token in added for form in ("{0}", "a{0}b", "a {0} b\n{0}")]
    encoded = [(text, made(text)["input_ids"]) for text in texts]
    if not any(ids for _, ids in encoded):
        raise ValueError(f"{kind} has no token for any text")
    differs = None
    if file.is_file() and not as_written:
        itself = _make_plain(Tokenizer.from_file(str(file)))
        differs = next((text for text, ids in encoded if itself.encode(text).ids != ids), None)
    document = fast.to_str(pretty=True)
    model = json.loads((Path(folder) / "config.json").read_text())
    # A special token is one wherever a text holds it: an end token that is a word cannot be named.
    entries = _reloads(document, (completed, entries), encoded, model)
    return {"document": document, "kind": kind, "config": entries, "encoded": encoded, "differs": differs}


def _special_tokens(fast: Any, entries: dict[str, Any], special: dict[str, int]) -> dict[str, Any]:
    """The special tokens, by their kind, where any are known; those that the entries name come first."""
    found = {name: fast.id_to_token(number) for name, number in special.items()}
    found["unk_token"] = getattr(fast.model, "unk_token", None)
    tokens = {name: entries.get(name) or found.get(name) for name in _SPECIAL}
    end = tokens["eos_token"] or tokens["bos_token"] or tokens["pad_token"] or tokens["unk_token"]
    return {name: token or _text(end) for name, token in tokens.items()} if end else {}


def _text(token: Any) -> str:
    """A token that is written as text, or as an object with its content."""
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _make_plain(fast: Any) -> Any:
    fast.no_truncation()
    fast.no_padding()
    if getattr(fast.model, "dropout", None) is not None:
        fast.model.dropout = None
    return fast


def _reloads(
    document: str,
    configs: tuple[dict[str, Any], ...],
    encoded: list[tuple[str, list[int]]],
    model: dict[str, Any],
) -> dict[str, Any]:
    """The first entries of a tokenizer_config.json with which transformers reads a document as the same tokenizer."""
    auto, _ = _classes()
    first = configs[0].get("tokenizer_class", "GPT2TokenizerFast")
    # Many classes of transformers build a tokenizer anew from the vocabulary; the last one takes it as it is.
    classes = dict.fromkeys((first, "PreTrainedTokenizerFast"))
    for entries in (_of_class(name, config) for config in configs for name in classes):
        with tempfile.TemporaryDirectory() as scratch:
            for file, content in (("config.json", model), ("tokenizer_config.json", entries)):
                (Path(scratch) / file).write_text(json.dumps(content), encoding="utf-8")
            (Path(scratch) / "tokenizer.json").write_text(document, encoding="utf-8")
            made = auto.from_pretrained(scratch, local_files_only=True, trust_remote_code=False)
            if all(made(text)["input_ids"] == ids for text, ids in encoded):
                return entries
    raise ValueError("transformers would not read the exported tokenizer.json as the same tokenizer")


def _of_class(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The entries for a class of tokenizer; that of no model would ask for token types, which decoders do not have."""
    inputs = {"model_input_names": ["input_ids", "attention_mask"]} if name == "PreTrainedTokenizerFast" else {}
    return {**inputs, **config, "tokenizer_class": name}


def _classes() -> tuple[Any, Any]:
    """AutoTokenizer and PreTrainedTokenizerFast, without PyTorch, which takes longer to import than everything else."""
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: None if name == "torch" else find(name, package)
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
        from transformers.utils import logging
    finally:
        importlib.util.find_spec = find
    logging.set_verbosity_error()
    return AutoTokenizer, PreTrainedTokenizerFast


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, most in ((resource.RLIMIT_AS, _MOST_MEMORY), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    main()
