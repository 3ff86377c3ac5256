"""Byte-pair encoding, step by step: which pieces of a word were joined, and in what order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from onnxlens.runtime.errors import InputError

__all__ = ["Merge", "Merges", "token_bytes"]

# Radford et al. 2019 write each byte as a letter: itself where it can be seen, one of those from 256 on where not.
_SEEN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_UNSEEN = [byte for byte in range(256) if byte not in _SEEN]
_BYTES = {chr(byte): byte for byte in _SEEN} | {chr(256 + place): byte for place, byte in enumerate(_UNSEEN)}


def token_bytes(token: str) -> bytes:
    """The bytes of a token of a byte-level vocabulary; in other vocabularies, those of its text."""
    if all(letter in _BYTES for letter in token):
        return bytes(_BYTES[letter] for letter in token)
    return token.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Merge:
    """One step: a pair of pieces became one, wherever it stood in the word.

    Attributes:
        rank: which of the vocabulary's merges it is, 0 for the first that was learned.
        pair: the bytes of both.
        pieces: the bytes of all pieces of the word after the step.
    """

    rank: int
    pair: tuple[bytes, bytes]
    pieces: tuple[bytes, ...]


class Merges:
    """The merges of a byte-level vocabulary.

    Args:
        document: a tokenizer as the tokenizers library writes it, JSON.

    Raises:
        InputError: it is not a byte-level byte-pair encoding.
    """

    def __init__(self, document: str) -> None:
        found: dict[str, Any] = json.loads(document)
        model = found["model"]
        is_byte_level = (found.get("decoder") or {}).get("type") == "ByteLevel"
        if model.get("type") != "BPE" or model.get("ignore_merges") or not is_byte_level:
            raise InputError("This model's tokenizer is not a byte-level byte-pair encoding, so it has no merge steps.")
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}

    def steps(self, word: str) -> list[Merge]:
        """How a word is put together from its bytes (Sennrich et al. 2016, section 3.2).

        Of all neighbours, the pair that was learned first is joined, until none is left that was learned.

        Args:
            word: its bytes as the vocabulary writes them, a letter each.
        """
        pieces, found = list(word), []
        while len(pieces) > 1:
            rank, pair = min((self._ranks.get(pair, len(self._ranks)), pair) for pair in pairwise(pieces))
            if rank == len(self._ranks):
                break
            pieces = _joined(pieces, pair)
            first, second = map(token_bytes, pair)
            found.append(Merge(rank, (first, second), tuple(map(token_bytes, pieces))))
        return found


def _joined(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """The pieces with every such pair as one, from the left."""
    joined: list[str] = []
    rest = iter(range(len(pieces)))
    for place in rest:
        if tuple(pieces[place : place + 2]) == pair:
            joined.append("".join(pair))
            next(rest)
        else:
            joined.append(pieces[place])
    return joined
