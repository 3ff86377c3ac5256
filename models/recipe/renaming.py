"""Stories retold with other names, so that who is meant can only be told from the text itself."""

__all__ = ["Renamer"]

import re

import numpy as np
from tokenizers import Tokenizer

from recipe import lexicon

_NAME = re.compile(rf"\b({'|'.join(lexicon.NAMES)})\b")


class Renamer:
    """Gives the people of a text other names: those of others, or words that are no names at all.

    With few dozen names a model learns by heart who of them receives gifts, and never guesses another. Here any word
    may be a name for once. Names that are held out of a role are never given to anybody.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Collects the names to give: every known name that is not held out, and the words of a vocabulary."""
        held_out = {name.lower() for name in lexicon.NAMES}
        words = {token.lstrip("Ġ").lower() for token in tokenizer.get_vocab()}
        self._words = sorted(word.capitalize() for word in words - held_out if re.fullmatch("[a-z]{3,10}", word))
        self._names = sorted(set(lexicon.NAMES) - set(lexicon.HELD_OUT_RECEIVERS))

    def __call__(self, text: str, dice: np.random.Generator) -> str:
        """Renames everybody: each name of the text becomes another one throughout, no two the same."""
        old = sorted(set(_NAME.findall(text)))
        given = [*dice.permutation(self._words)[: len(old)], *dice.permutation(self._names)[: len(old)]]
        new = dict(zip(old, dice.permutation(given), strict=False))
        return _NAME.sub(lambda found: str(new[found[0]]), text)
