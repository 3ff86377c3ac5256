"""The people, places and things of one text, and the dice that decide what is said about them."""

__all__ = ["Scene"]

import random
import re
from collections.abc import Mapping, Sequence

from recipe.lexicon import KINDS, NAMES, WOMEN, article, plural

_CHOICE = re.compile(r"<([^<>]*)>")
_SLOT = re.compile(r"\{(?:(\w+) )?([A-Za-z_]+)(\d?)\}")
_START = re.compile(r"(?:^|(?<=[.!?] )|(?<=\n))[a-z]")
_PRONOUNS = {"he": "she", "his": "her", "him": "her", "himself": "herself", "boy": "girl"}


class Scene:
    """One text's words: a slot keeps what it was first filled with, so later sentences refer back.

    Args:
        dice: Decides.
        kinds: More kinds of words than the lexicon's.
    """

    def __init__(self, dice: random.Random, kinds: Mapping[str, Sequence[str]] | None = None) -> None:
        self.dice = dice
        self.cast = dice.sample(NAMES, 3)
        self._kinds = {**KINDS, **(kinds or {})}
        self._said: dict[str, str] = dict(zip("ABC", self.cast, strict=True))

    def say(self, template: str) -> str:
        """Fills a template.

        Args:
            template: `<one|other>` is one of the wordings; `{place}` is a word of that kind, the same one
                wherever the slot occurs, and `{place2}` is a different one; `{a place}` and `{many place}` are
                its forms; `{A}`, `{B}` and `{C}` are people, `{he A}`, `{his A}` and so on their pronouns.

        Returns:
            The text, with a capital letter at the start of each sentence.
        """
        while "<" in template:
            template = _CHOICE.sub(lambda found: self.dice.choice(found[1].split("|")), template)
        return _START.sub(lambda found: found[0].upper(), _SLOT.sub(self._fill, template))

    def choose(self, templates: Sequence[str]) -> str:
        """Fills one of several templates."""
        return self.say(self.dice.choice(templates))

    def two(self) -> list[str]:
        """Two different people of the text, in either order."""
        return self.dice.sample(self.cast, 2)

    def _fill(self, found: re.Match[str]) -> str:
        form, kind, digit = found.groups()
        word = self._word(kind, digit)
        if form == "a":
            return article(word)
        if form == "many":
            return plural(word)
        if form in _PRONOUNS:
            return _PRONOUNS[form] if word in WOMEN else form
        return word

    def _word(self, kind: str, digit: str) -> str:
        if kind + digit not in self._said:
            taken = {word for slot, word in self._said.items() if slot.rstrip("0123456789") == kind}
            self._said[kind + digit] = self.dice.choice([word for word in self._kinds[kind] if word not in taken])
        return self._said[kind + digit]
