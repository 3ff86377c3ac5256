"""Tokens in options: given by id, or by text."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import cast

from onnxlens.plugins._sampling.sampler import Context
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import InputError

__all__ = ["Tokens", "ends_of_text", "sequence", "single", "text_of"]

Tokens = int | str | Sequence[int]

# Results of earlier lookups, since samplers ask at every step.
_encoded: weakref.WeakKeyDictionary[Tokenizer, dict[str, tuple[int, ...]]] = weakref.WeakKeyDictionary()
_decoded: weakref.WeakKeyDictionary[Tokenizer, dict[int, str]] = weakref.WeakKeyDictionary()


def sequence(tokens: Tokens, context: Context, vocabulary: int, name: str) -> tuple[int, ...]:
    """Ids of the tokens that an option names: an id, several, or a text.

    Args:
        tokens: the value of the option.
        context: the context, whose tokenizer reads texts.
        vocabulary: how many tokens there are.
        name: of the sampler, for errors.

    Raises:
        InputError: the text is empty or there is no tokenizer to read it, or an id is not in the vocabulary.
    """
    if isinstance(tokens, str):
        if not tokens:
            raise InputError(f"{name}: a text must have at least one character.")
        known = _encoded.setdefault(_tokenizer(tokens, context, name), {})
        if tokens not in known:
            known[tokens] = tuple(_tokenizer(tokens, context, name).encode_word(tokens))
        return known[tokens]
    ids = (int(tokens),) if is_integer(tokens) else tuple(cast("Sequence[int]", tokens))
    if not ids:
        raise InputError(f"{name}: a sequence must have at least one token.")
    for token in ids:
        if not 0 <= token < vocabulary:
            raise InputError(f"{name}: token id {token} is out of range, ids are 0 to {vocabulary - 1}.")
    return ids


def single(token: int | str, context: Context, vocabulary: int, name: str) -> int:
    """The id of the one token that an option names.

    Raises:
        InputError: it is not one token; or as `sequence` does.
    """
    ids = sequence(token, context, vocabulary, name)
    if len(ids) != 1:
        raise InputError(f"{name} takes single tokens, and {token!r} is {len(ids)} tokens: {list(ids)}.")
    return ids[0]


def text_of(token: int, context: Context, name: str) -> str:
    """The text of a token.

    Raises:
        InputError: there is no tokenizer.
    """
    tokenizer = _tokenizer(token, context, name)
    known = _decoded.setdefault(tokenizer, {})
    if token not in known:
        known[token] = tokenizer.decode([token])
    return known[token]


def ends_of_text(context: Context, name: str) -> list[int]:
    """The tokens that end a text.

    Raises:
        InputError: the model has none.
    """
    if not context.ends:
        raise InputError(f"{name} needs an end-of-text token, and this model has none.")
    return context.ends


def _tokenizer(tokens: Tokens, context: Context, name: str) -> Tokenizer:
    if context.tokenizer is None:
        raise InputError(f"{name}: there is no tokenizer to read {tokens!r}; give token ids.")
    return context.tokenizer
