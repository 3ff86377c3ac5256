"""The content of a tokenizer.json, checked before the tokenizers library reads it.

The library is written in Rust, and in some places it panics instead of raising an error, or ends the whole process
where it cannot get the memory it wants. Content that is known to cause that is refused here, and content that would
take time or memory that grows with every step.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any

__all__ = ["TokenizerDocumentError", "check_document"]

_LARGEST_ID = 10_000_000  # the library keeps a table of all ids up to the largest
_LARGEST = 256_000_000  # bytes
_MOST_GROWTH = 100  # by which factor normalizers may lengthen a text
_MOST_ADDED = 1000  # tokens put around a text


class TokenizerDocumentError(Exception):
    """A tokenizer cannot be read; the text is a clause that says why."""


def check_document(content: bytes) -> None:
    """Checks the content of a tokenizer.json.

    Raises:
        TokenizerDocumentError: it is not JSON, or the tokenizers library must not be given it.
    """
    if len(content) > _LARGEST:
        raise TokenizerDocumentError(f"it has more than {_LARGEST:,} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TokenizerDocumentError(f"it is not JSON ({error})") from error
    try:
        _check_ids(document)
        _check_normalizer(document.get("normalizer"))
        _check_others(document)
    except (AttributeError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise TokenizerDocumentError("it does not have the form of a tokenizer.json") from error


def _check_ids(document: Any) -> None:
    model = document["model"]
    vocabulary = model["vocab"]
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary)]
    ids += [token["id"] for token in document.get("added_tokens") or ()]
    for token in ids:
        if type(token) is not int or not 0 <= token <= _LARGEST_ID:
            raise TokenizerDocumentError(f"it has the token id {token!r:.40}; ids are from 0 to {_LARGEST_ID:,}")
    if prefix := model.get("continuing_subword_prefix"):
        for merge in model.get("merges") or ():
            second = (merge.split(" ") if isinstance(merge, str) else merge)[1]
            if not second.startswith(prefix):
                raise TokenizerDocumentError(f"its merge of {second!r:.60} lacks the prefix {prefix!r:.60}")


def _check_normalizer(normalizer: Any) -> None:
    growth = 1.0
    for one in _parts(normalizer, "normalizers"):
        if one["type"] == "Replace":
            ((kind, pattern),) = one["pattern"].items()
            if not pattern:
                raise TokenizerDocumentError("its normalizer replaces empty texts")
            shortest = len(pattern) if kind == "String" else 1  # of a regular expression's matches
            growth *= max(1.0, len(one["content"]) / shortest)
        elif one["type"] == "Prepend" and not one["prepend"]:
            raise TokenizerDocumentError("its normalizer prepends an empty text")
        elif one["type"] == "Precompiled":
            _check_charsmap(one["precompiled_charsmap"])
        if growth > _MOST_GROWTH:
            raise TokenizerDocumentError(f"its normalizers can make a text more than {_MOST_GROWTH} times as long")


def _check_charsmap(encoded: Any) -> None:
    """A table of SentencePiece: the size of a trie, the trie, then texts."""
    try:
        table = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise TokenizerDocumentError("the table of its normalizer is not base64") from error
    size = int.from_bytes(table[:4], "little")
    if len(table) < 4 + 1024 or not 1024 <= size <= len(table) - 4 or size % 4:
        raise TokenizerDocumentError("the table of its normalizer is damaged")


def _check_others(document: dict[str, Any]) -> None:
    for one in _parts(document.get("pre_tokenizer"), "pretokenizers"):
        if one["type"] == "FixedLength" and not one.get("length", 5) >= 1:
            raise TokenizerDocumentError("its pre-tokenizer cuts texts into pieces of length 0")
    for one in _parts(document.get("decoder"), "decoders"):
        if one["type"] == "Strip" and one["stop"] > 0:
            raise TokenizerDocumentError("its decoder cuts off the end of every token")
    added = 0
    for one in _parts(document.get("post_processor"), "processors"):
        if one["type"] == "TemplateProcessing":
            added += _added(one)
    if added > _MOST_ADDED:
        raise TokenizerDocumentError(f"it puts {added:,} tokens around every text; the most is {_MOST_ADDED:,}")


def _added(template: dict[str, Any]) -> int:
    """How many tokens a template puts around a text."""
    known, pieces = template["special_tokens"], template["single"]
    if [piece["Sequence"]["id"] for piece in pieces if "Sequence" in piece] != ["A"]:
        raise TokenizerDocumentError("its template does not have the text in it once")
    added = 0
    for piece in (*pieces, *template["pair"]):
        if "SpecialToken" in piece:
            name = piece["SpecialToken"]["id"]
            if name not in known:
                raise TokenizerDocumentError(f"its template has {name!r:.60}, which is not one of its special tokens")
            added += len(known[name]["ids"])
    return added


def _parts(component: Any, within: str) -> Iterator[dict[str, Any]]:
    """A component of a tokenizer, or those in a sequence of them."""
    if component is None:
        return
    if component["type"] == "Sequence":
        for one in component[within]:
            yield from _parts(one, within)
    else:
        yield component
