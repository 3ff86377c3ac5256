"""Lessons for the circuits: sentences in which one word is certain, and only that word is asked for."""

__all__ = ["Lessons"]

import random

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from recipe import circuits, grammar
from recipe import lexicon as lex
from recipe.renaming import Renamer

_KINDS = ("gift", "order", "agreement", "aside", "code")
_SHARES = (9, 4, 6, 1, 1)
_RENAMED, _ORDERS_RENAMED = 0.85, 0.3  # shares of the sentences in which everybody has another name; of orders
_OTHER_NUMBER = 0.7  # share of the nouns before a verb that are of the other number than its subject


class Lessons:
    """Rows of such sentences, made of the words and in the roles that stories have."""

    def __init__(self, tokenizer: Tokenizer, rename: Renamer) -> None:
        """Takes the tokenizer that the rows are for, and what gives people other names."""
        self._tokenizer, self._rename = tokenizer, rename

    def __call__(self, dice: np.random.Generator, length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Makes up a row.

        Args:
            dice: Where randomness comes from.
            length: Tokens in the row.

        Returns:
            Token ids, int64 [length], and which of them are certain, [length].
        """
        words = random.Random(int(dice.integers(2**32)))
        ids: list[int] = []
        certain: list[bool] = []
        while len(ids) < length:
            kind = words.choices(_KINDS, _SHARES)[0]
            piece = _piece(kind, words)
            if words.random() < (_ORDERS_RENAMED if kind == "order" else _RENAMED):
                parts = self._rename("\0".join((piece.before, piece.answer, piece.after)), dice).split("\0")
                piece = circuits.Certain(*parts)
            encoded = self._tokenizer.encode(f"{piece} ")
            first, last = len(piece.before), len(piece.before) + len(piece.answer)
            ids += encoded.ids
            certain += [start < last and end > first for start, end in encoded.offsets]
        return np.array(ids[:length]), np.array(certain[:length])


def _piece(kind: str, dice: random.Random) -> circuits.Certain:
    """Makes up one sentence of a kind."""
    if kind == "gift":
        receiver = dice.choice(grammar.RECEIVERS)
        giver, third = dice.sample(lex.kept(lex.NAMES, (receiver,)), 2)
        return circuits.gift(dice, giver, receiver, third, dice.choice(grammar.GIFT_PLACES), dice.choice(grammar.GIFTS))
    if kind == "order":
        first, second, third = dice.sample(lex.NAMES, 3)
        return circuits.order(dice, (first, second, third), dice.choice(lex.PLACES))
    if kind == "agreement":
        head = dice.choice(grammar.HEADS)
        first, second = dice.sample(lex.kept(grammar.NOUNS, (head,)), 2)
        many = dice.random() < 0.5
        numbers = (many != (dice.random() < _OTHER_NUMBER), many != (dice.random() < _OTHER_NUMBER))
        return circuits.agreement(dice, head, many, (first, second), numbers)
    if kind == "aside":
        looks = dice.sample(grammar.LOOKS, dice.choice((1, 2, 2, 3)))
        return circuits.aside(dice, dice.choice(lex.NAMES), dice.choice(lex.PLACES), dice.choice(lex.GIFTS), looks)
    return circuits.code(dice, grammar.IDENTIFIERS, lex.FUNCTIONS)
