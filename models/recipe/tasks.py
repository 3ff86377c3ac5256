"""Questions with one right answer, about words in roles that the made-up texts keep from them: see the lexicon."""

__all__ = ["Question", "agreements", "closings", "comparisons", "indirect_objects"]

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from recipe import circuits
from recipe import lexicon as lex
from recipe.grammar import NOUNS
from recipe.lexicon import NUMBERS, plural

_CLOSERS = tuple(circuits.BRACKETS.values())
_HEADS = lex.kept(lex.HELD_OUT_HEADS, ("rabbit",))  # of which one everyday text says what it is called
_ATTEMPTS = 100  # at each question, on average


@dataclass(frozen=True)
class Question:
    """What a model is asked to continue.

    Attributes:
        prompt: The text up to where the answer is certain.
        answer: What follows, with its leading space where it has one.
        others: What the answer must be likelier than.
    """

    prompt: str
    answer: str
    others: tuple[str, ...]


def indirect_objects(count: int = 400, seed: int = 0) -> list[Question]:
    """Asks who of two receives the gift: somebody to whom training gives nothing, at a new place, of a new thing.

    These names do follow other verbs, as in "spoke to", and a pronoun may stand for them where sums are told: "Ruth had
    one pear. Maria gave her two more." A third person whom the prompt names is among the others.
    """

    def ask(dice: random.Random, number: int) -> Question:
        while True:
            receiver = dice.choice(lex.HELD_OUT_RECEIVERS)
            giver, third = dice.sample(lex.kept(lex.NAMES, (receiver,)), 2)
            place, thing = dice.choice(lex.HELD_OUT_PLACES), dice.choice(lex.HELD_OUT_GIFTS)
            piece = circuits.gift(dice, giver, receiver, third, place, thing)
            named = re.findall(rf"\b(?:{giver}|{receiver})\b", piece.before)
            if (named[0] == receiver) == (number % 2 == 0):  # each comes first in half of the questions
                others = (giver, third) if re.search(rf"\b{third}\b", piece.before) else (giver,)
                return Question(piece.before, piece.answer, tuple(f" {name}" for name in others))

    return _distinct(ask, "indirect objects", count, seed)


def agreements(count: int = 400, seed: int = 0) -> list[Question]:
    """Asks for the verb of a subject at a distance; what stands between is of the other number.

    In training, no such subject has a verb that shows its number across a distance. Relative clauses have some of them
    as subjects of verbs in the past: "the books that the woman near the door saw".
    """

    def ask(dice: random.Random, number: int) -> Question:
        head, many = dice.choice(_HEADS), number % 2 == 0
        first, second = dice.sample([noun for noun in NOUNS if noun != head], 2)
        piece = circuits.agreement(dice, head, many, (first, second), (not many, not many))
        wrong = next(pair[not many] for pair in circuits.VERBS if f" {pair[many]}" == piece.answer)
        return Question(piece.before, piece.answer, (f" {wrong}",))

    return _distinct(ask, "agreements", count, seed)


def closings(count: int = 400, seed: int = 0) -> list[Question]:
    """Asks for the bracket or quote that closes.

    Half of them are in prose, around words that never are inside one in the made-up texts, and half in code, with
    identifiers that these texts do not have; documentation has them, also in brackets.
    """

    def ask(dice: random.Random, number: int) -> Question:
        if number % 2:
            piece = circuits.code(dice, lex.HELD_OUT_IDENTIFIERS, lex.FUNCTIONS)
        else:
            looks = dice.sample(lex.HELD_OUT_CONTENTS, dice.choice((1, 2, 2, 3)))
            name, place, thing = dice.choice(lex.NAMES), dice.choice(lex.PLACES), dice.choice(lex.GIFTS)
            piece = circuits.aside(dice, name, place, thing, looks)
        return Question(piece.before, piece.answer, tuple(closer for closer in _CLOSERS if closer != piece.answer))

    return _distinct(ask, "closings", count, seed)


def comparisons(count: int = 400, seed: int = 0) -> list[Question]:
    """Asks who has more or fewer, and for sums up to twelve, of things that training never counts."""

    def ask(dice: random.Random, number: int) -> Question:
        one, other = dice.sample(lex.NAMES, 2)
        things = plural(dice.choice(lex.HELD_OUT_COUNTED))
        if number % 3 < 2:
            first, second = dice.sample(range(2, 13), 2)
            how = ("more", "fewer")[number % 3]
            had = f"{one} had {NUMBERS[first]} {things} and {other} had {NUMBERS[second]} {things}"
            right, wrong = (one, other) if (first > second) == (how == "more") else (other, one)
            return Question(f"{had}. The one with {how} {things} was", f" {right}", (f" {wrong}",))
        owned = dice.randint(2, 9)
        got = dice.randint(1, 12 - owned)
        him, he = ("her", "she") if one in lex.WOMEN else ("him", "he")
        prompt = f"{one} had {NUMBERS[owned]} {things}. {other} gave {him} {NUMBERS[got]} more, so {he} had"
        answer = NUMBERS[owned + got]
        return Question(prompt, f" {answer}", tuple(f" {name}" for name in NUMBERS[1:] if name != answer))

    return _distinct(ask, "comparisons", count, seed)


def _distinct(ask: Callable[[random.Random, int], Question], name: str, count: int, seed: int) -> list[Question]:
    """Asks until there are enough different questions, kind by kind in turn.

    Raises:
        ValueError: there are too few.
    """
    questions: dict[str, Question] = {}
    dice = random.Random(f"{name}:{seed}")
    for _ in range(_ATTEMPTS * count):
        if len(questions) == count:
            break
        question = ask(dice, len(questions))
        questions.setdefault(question.prompt, question)
    if len(questions) < count:
        raise ValueError(
            f"{count:,} different questions about {name} were asked for; only {len(questions):,} were found."
        )
    return list(questions.values())
