"""Questions with one right answer, about words in the roles that training kept from them."""

__all__ = ["Question", "agreements", "closings", "comparisons", "indirect_objects"]

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from onnxlens.models import circuits
from onnxlens.models import lexicon as lex
from onnxlens.models.grammar import NOUNS
from onnxlens.models.lexicon import NUMBERS, plural

_CLOSERS = tuple(circuits.BRACKETS.values())


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
    """Asks who of two receives the gift: somebody who never did in training, at a new place, of a new thing."""

    def ask(dice: random.Random, number: int) -> Question:
        while True:
            receiver = dice.choice(lex.HELD_OUT_RECEIVERS)
            giver, third = dice.sample(lex.kept(lex.NAMES, (receiver,)), 2)
            place, thing = dice.choice(lex.HELD_OUT_PLACES), dice.choice(lex.HELD_OUT_GIFTS)
            piece = circuits.gift(dice, giver, receiver, third, place, thing)
            named = re.findall(rf"\b(?:{giver}|{receiver})\b", piece.before)
            if (named[0] == receiver) == (number % 2 == 0):  # each comes first in half of the questions
                return Question(piece.before, piece.answer, (f" {giver}",))

    return _distinct(ask, "indirect objects", count, seed)


def agreements(count: int = 400, seed: int = 0) -> list[Question]:
    """Asks for the verb of a subject that never was one at a distance; what stands between is of the other number."""

    def ask(dice: random.Random, number: int) -> Question:
        head, many = dice.choice(lex.HELD_OUT_HEADS), number % 2 == 0
        first, second = dice.sample([noun for noun in NOUNS if noun != head], 2)
        piece = circuits.agreement(dice, head, many, (first, second), (not many, not many))
        wrong = next(pair[not many] for pair in circuits.VERBS if f" {pair[many]}" == piece.answer)
        return Question(piece.before, piece.answer, (f" {wrong}",))

    return _distinct(ask, "agreements", count, seed)


def closings(count: int = 400, seed: int = 0) -> list[Question]:
    """Asks for the bracket or quote that closes, in prose and in code, around words that never were inside one."""

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
    """Asks who has more or fewer, for sums up to twelve, and for the next day, month or season."""

    def ask(dice: random.Random, number: int) -> Question:
        one, other = dice.sample(lex.NAMES, 2)
        things = plural(dice.choice(lex.HELD_OUT_COUNTED))
        if number % 4 < 2:
            first, second = dice.sample(range(2, 13), 2)
            how = ("more", "fewer")[number % 2]
            had = f"{one} had {NUMBERS[first]} {things} and {other} had {NUMBERS[second]} {things}"
            right, wrong = (one, other) if (first > second) == (how == "more") else (other, one)
            return Question(f"{had}. The one with {how} {things} was", f" {right}", (f" {wrong}",))
        if number % 4 == 2:
            owned = dice.randint(2, 9)
            got = dice.randint(1, 12 - owned)
            him, he = ("her", "she") if one in lex.WOMEN else ("him", "he")
            prompt = f"{one} had {NUMBERS[owned]} {things}. {other} gave {him} {NUMBERS[got]} more, so {he} had"
            answer = NUMBERS[owned + got]
            return Question(prompt, f" {answer}", tuple(f" {name}" for name in NUMBERS[1:] if name != answer))
        cycle = dice.choice(lex.CALENDARS)
        start = dice.randrange(len(cycle))
        answer = cycle[(start + 1) % len(cycle)]
        wrong_ones = tuple(f" {name}" for name in cycle if name != answer)
        return Question(f"{one} knew that after {cycle[start]} comes", f" {answer}", wrong_ones)

    return _distinct(ask, "comparisons", count, seed)


def _distinct(ask: Callable[[random.Random, int], Question], name: str, count: int, seed: int) -> list[Question]:
    """Asks until there are enough different questions, kind by kind in turn."""
    questions: dict[str, Question] = {}
    dice = random.Random(f"{name}:{seed}")
    while len(questions) < count:
        question = ask(dice, len(questions))
        questions.setdefault(question.prompt, question)
    return list(questions.values())
