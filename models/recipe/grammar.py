"""All the texts that are made up: stories, essays, everyday texts, and exercises of one kind each."""

__all__ = ["comparison", "counting", "repetition", "stories", "story"]

import random
from collections.abc import Callable, Iterator

from recipe import circuits
from recipe import lexicon as lex
from recipe.essays import essay
from recipe.everyday import everyday
from recipe.lexicon import NUMBERS, kept, plural
from recipe.plots import EVENTS, PLOTS, VOYAGES, Plot
from recipe.scene import Scene

Exercise = Callable[[Scene], str]

RECEIVERS = kept(lex.NAMES, lex.HELD_OUT_RECEIVERS)
GIFT_PLACES = kept(lex.PLACES, lex.HELD_OUT_PLACES)
GIFTS = kept(lex.GIFTS, lex.HELD_OUT_GIFTS)
NOUNS = kept(lex.OBJECTS + lex.PERSONS + lex.ANIMALS, ("sheep",))  # one sheep, two sheep: no telling them apart
HEADS = kept(NOUNS, lex.HELD_OUT_HEADS)
LOOKS = kept(lex.LOOKS, lex.HELD_OUT_CONTENTS)
IDENTIFIERS = kept(lex.IDENTIFIERS, lex.HELD_OUT_IDENTIFIERS)
COUNTED = kept(lex.COUNTED, lex.HELD_OUT_COUNTED)
_LETTERS = "bdfgklmnprstvz"


def stories(count: int, seed: int = 0) -> Iterator[str]:
    """Makes up texts.

    Args:
        count: How many.
        seed: Another seed gives other texts; text number i of a seed is the same whatever the count.

    Yields:
        One text at a time.
    """
    return (story(random.Random(f"{seed}:{number}")) for number in range(count))


def story(dice: random.Random) -> str:
    """Makes up one text in which no held-out prompt occurs."""
    while True:
        text = _KINDS[dice.choices(range(len(_KINDS)), _SHARES)[0]](dice)
        if not any(prompt.lower() in text.lower() for prompt in lex.HELD_OUT_PROMPTS):
            return text


def narrative(dice: random.Random, plots: tuple[Plot, ...] = PLOTS, woven: int = 3) -> str:
    """Tells a story along a plot, with a few things on the way."""
    scene = Scene(dice)
    steps = [scene.choose(step) for step in dice.choice(plots)]
    for exercise in dice.sample(_WOVEN, dice.randint(0, woven)):
        # Never before the first step, which says what it is about, nor after the last, which ends it.
        steps.insert(dice.randrange(1, len(steps)), exercise(scene))
    text = dice.choice((" ", " ", "\n\n")).join(dict.fromkeys(steps))
    return text if 40 <= len(text.split()) <= 180 else narrative(dice, plots, woven)


def voyage(dice: random.Random) -> str:
    """Tells of a flight through space."""
    return narrative(dice, VOYAGES, woven=1)


def exercises(dice: random.Random) -> str:
    """Says one to four sentences of one kind, each about other people."""
    exercise, most = dice.choices(_EXERCISES, [weight for *_, weight in _EXERCISES])[0][:2]
    joint = "\n" if exercise is code else " "
    return joint.join(dict.fromkeys(exercise(Scene(dice)) for _ in range(dice.randint(1, most))))


def gift(scene: Scene) -> str:
    """Somebody gives something to the other one of two."""
    dice = scene.dice
    names = [name for name in scene.cast if name in RECEIVERS] or [dice.choice(RECEIVERS)]  # all three are held out
    receiver = dice.choice(names)
    giver, third = dice.sample([name for name in scene.cast if name != receiver][:2], 2)
    place, thing = dice.choice(GIFT_PLACES), dice.choice(GIFTS)
    return str(circuits.gift(dice, giver, receiver, third, place, thing, direct=dice.random() < 0.12))


def agreement(scene: Scene) -> str:
    """A verb that agrees with a subject at a distance."""
    head = scene.dice.choice(HEADS)
    first, second = scene.dice.sample([noun for noun in NOUNS if noun != head], 2)
    many, *others = scene.dice.choices((False, True), k=3)
    return str(circuits.agreement(scene.dice, head, many, (first, second), (others[0], others[1])))


def simple(scene: Scene) -> str:
    """A verb beside its subject, which may be any noun."""
    noun, many = scene.dice.choice(NOUNS), scene.dice.random() < 0.5
    subject = plural(noun) if many else noun
    verb = scene.dice.choice(("are", "were", "look", "seem") if many else ("is", "was", "looks", "seems"))
    start = scene.say("<The|The|Now the|Here the|On {day4} the|I think that the|{A} says that the>")
    looks = (*lex.FEELINGS, "young", "clever", "kind", "busy") if noun in lex.PERSONS else lex.LOOKS
    degree = scene.dice.choice(("very ", "quite ", "not ", "", "", ""))
    return f"{start} {subject} {verb} {degree}{scene.dice.choice(looks)}."


def aside(scene: Scene) -> str:
    """Brackets or quotes that close, sometimes inside others."""
    dice = scene.dice
    looks = dice.sample(LOOKS, dice.choice((1, 1, 2, 2, 3)))
    return str(circuits.aside(dice, dice.choice(scene.cast), dice.choice(lex.PLACES), dice.choice(GIFTS), looks))


def code(scene: Scene) -> str:
    """A line that looks like code."""
    return str(circuits.code(scene.dice, IDENTIFIERS, lex.FUNCTIONS))


def quotation(scene: Scene) -> str:
    """A short dialogue in which every quote closes."""
    asker, answerer = scene.two()
    return scene.say(
        f'<"Where is the {{gift7}}?" asked {asker}. "It is in the {{box7}}," said {answerer}.|'
        f'"Is this your {{gift7}}?" asked {asker}. "<Yes, it is|No, it is not> mine," said {answerer}.|'
        f'{asker} said, "I saw {{a animal7}} at the {{place7}}." "So did I," {answerer} answered.|'
        f"{asker} has read the book 'The {{colour7}} {{thing7}}' twice.|"
        f'The <song|film|book|picture> "The {{thing7}} of the {{person7}}" made {asker} {{feeling7}}.|'
        f"The sign said '{{many thing7}} and {{many gift7}}' in {{colour8}} letters.>"
    )


def hiding(scene: Scene) -> str:
    """Something is put somewhere, something else happens, and it is found where it was."""
    hider, finder = scene.two()
    return scene.say(
        f"{hider} put the {{gift8}} in the {{box8}} and the {{gift9}} in the {{box9}}. "
        f"<Later|After a while|The next day> {finder} looked for the {{gift8}} and found it in the {{box8}}."
    )


def comparison(scene: Scene) -> str:
    """Which of two is more, in words or digits."""
    dice = scene.dice
    one, other, third = dice.sample(scene.cast, 3)
    if dice.random() < 0.3:
        word = dice.choice(("taller", "older", "faster", "stronger", "younger"))
        return f"{one} is {word} than {other}, and {other} is {word} than {third}, so {one} is {word} than {third}."
    first, second = dice.sample(range(1, 13), 2)
    more, less = (one, other) if first > second else (other, one)
    digits = dice.random() < 0.3
    names = _names(digits)
    thing = dice.choice(COUNTED)
    things = plural(thing)
    had = f"{one} had {names[first]} {_counted(first, thing)} and {other} had {names[second]} {_counted(second, thing)}"
    return had + dice.choice(
        (
            f", so {more} had more {things}.",
            f", so {less} had fewer {things}.",
            f". The one with more {things} was {more}.",
            f". The one with fewer {things} was {less}.",
        )
    )


def _names(digits: bool) -> list[str]:
    return [str(number) if digits else name for number, name in enumerate(NUMBERS)]


def _counted(number: int, thing: str) -> str:
    return thing if number == 1 else plural(thing)


def counting(scene: Scene) -> str:
    """A sum up to twelve, counting aloud, or a number next to another."""
    dice = scene.dice
    one, other = scene.two()
    shape = dice.random()
    if shape < 0.2:
        numbers = NUMBERS[1:] if dice.random() < 0.6 else tuple(map(str, range(1, 13)))
        begin = dice.randint(0, 6)
        run = numbers[begin : begin + dice.randint(4, 6)]
        return f'{one} counted aloud: "{", ".join(run if dice.random() < 0.7 else run[::-1])}."'
    had = dice.randint(1, 9)
    got = dice.randint(1, 12 - had)
    digits = dice.random() < 0.3
    names = _names(digits)
    if shape < 0.4:
        plus, equals = ("+", "=") if digits else ("and", "is")
        return f"{names[had].capitalize()} {plus} {names[got]} {equals} {names[had + got]}."
    thing = dice.choice(COUNTED)
    him, he = ("her", "she") if one in lex.WOMEN else ("him", "he")
    if shape < 0.7:
        start = f"{one} had {names[had]} {_counted(had, thing)}. {other} gave {him} {names[got]} more"
        return f"{start}, so {he} had {names[had + got]} {plural(thing)}."
    left = f"{names[got]} {_counted(got, thing)}"
    return f"{one} had {names[had + got]} {plural(thing)} and lost {names[had]}, so {he} had {left}."


def calendar(scene: Scene) -> str:
    """Days, months and seasons in their order."""
    cycle = scene.dice.choice((*lex.CALENDARS, lex.CALENDARS[0]))
    start = scene.dice.randrange(len(cycle))
    before, today, tomorrow = (cycle[(start + step) % len(cycle)] for step in range(3))
    return scene.say(
        f"<{{A}} knew that after {today} comes {tomorrow}.|Before {today} comes {before}.|"
        f'"It is {today} now, so {tomorrow} is next," said {{A}}.|After {today} comes {tomorrow}.|'
        f"First comes {before}, then {today}, and then {tomorrow}.>"
    )


def gossip(scene: Scene) -> str:
    """A pronoun that stands for the person just named, and a name that comes back."""
    return scene.say(
        "<{A} was {feeling8}, so {he A} told {B} about it.|"
        "{B} asked {A} why {he A} was {feeling8}, but {A} only smiled.|"
        "{A} lost {his A} {gift6}, and {B} helped {him A} to find it.|"
        "When {A} and {C} met, {C} said hello to {A}.|After {B} and {A} came home, {A} listened to {B}.|"
        "While {C} and {B} were waiting, {C} spoke to {B}.|{B} looked at {himself B} in the mirror.>"
    )


def meeting(scene: Scene) -> str:
    """The other one of two again, with nothing given: here anybody may be the one."""
    return scene.say(
        "<When {A} and {B}|After {B} and {A}|While {A} and {B}|As {B} and {A}|As soon as {A} and {B}> "
        "<came to the {place5}|left the {place5}|went to the {place5}|were at the {place5}|saw the {thing5}>, {B} "
        "<talked to|spoke to|waved to|listened to|smiled at|looked at|shouted at|thought of|asked|followed|thanked|"
        "said goodbye to|said hello to|said something to|whispered to|sang to|read a story to|ran to|pointed to> {A}."
    )


def repetition(dice: random.Random) -> str:
    """A sequence of random words, said two or three times: only the text itself tells what comes next."""
    pool = (*NOUNS, *GIFTS, *lex.LOOKS, *lex.NAMES, *NUMBERS, *(_invented(dice) for _ in range(60)))
    said = " ".join(dice.sample(sorted(set(pool)), dice.randint(3, 14)))
    return dice.choice((". ", "; ", " ", " | ", ", ")).join([said] * dice.randint(2, 3)) + "."


def _invented(dice: random.Random) -> str:
    return "".join(dice.choice(_LETTERS) + dice.choice("aeiou") for _ in range(dice.randint(2, 3)))


def _event(scene: Scene) -> str:
    return scene.choose(EVENTS)


_KINDS: tuple[Callable[[random.Random], str], ...] = (narrative, voyage, essay, everyday, exercises, repetition)
_SHARES = (31, 8, 15, 10, 33, 3)
# What may be woven into a story.
_WOVEN: tuple[Exercise, ...] = (
    gift, gift, gift, gift, agreement, agreement, simple, aside, quotation, hiding, gossip, meeting,
    _event, _event, _event,
)  # fmt: skip
# What is said alone: the most sentences at once, and how often.
_EXERCISES: tuple[tuple[Exercise, int, int], ...] = (
    (gift, 4, 32), (agreement, 4, 24), (simple, 4, 6), (aside, 4, 14), (code, 4, 14), (quotation, 3, 3), (hiding, 2, 3),
    (comparison, 3, 7), (counting, 4, 8), (calendar, 3, 4), (gossip, 3, 3), (meeting, 4, 6),
)  # fmt: skip
