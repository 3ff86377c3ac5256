"""Short stories that a small grammar makes up: names, objects and places that recur, and rules that hold.

Each kind of sentence exercises something one can look for inside a trained model: who receives the gift
(indirect objects), which noun a distant verb agrees with, which bracket or quote is open, which of two
numbers is larger, what comes next in a sequence that was said before. In each of them the answer is certain.
"""

__all__ = ["stories", "story"]

import random
from collections.abc import Callable, Iterator


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WOMEN = _words(
    "Mary Anna Emma Lucy Sarah Alice Julia Laura Helen Clara Rose Nina Eva Kate Jane Grace Ruth Lily Amy Susan"
)
MEN = _words(
    "John Tom Peter David Paul James Mark Simon Adam Daniel Henry Jack George Max Leo Sam Ben Martin Oscar Hugo"
)
PLACES = _words("shop park school garden library kitchen market station museum beach farm office harbour hospital")
GIFTS = _words("drink book ball key letter ring lamp cake map coat flower basket hat bottle knife pen cup coin toy")
BOXES = _words("box drawer bag basket cupboard chest bucket suitcase")
ADJECTIVES = _words("old new small big red blue green heavy broken clean empty long white quiet strange warm")
NOUNS = _words(
    "key cabinet dog boy girl teacher farmer picture road house tree bird cat window door chair boat "
    "horse doctor painter soldier neighbour river stone cloud table"
)
THINGS = _words("apple pear nut egg stone shell coin stamp button card")
FEELINGS = _words("happy tired hungry glad proud sad surprised curious calm cheerful")
LETTERS = _words("b d f g k l m n p r s t v z")
NUMBERS = _words("zero one two three four five six seven eight nine ten eleven twelve")
CALENDARS = (
    _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    _words("January February March April May June July August September October November December"),
    _words("spring summer autumn winter"),
)

Sentence = Callable[["Scene"], str]


class Scene:
    """The people and the place of one story, and the dice that decide what happens to them."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.cast = dice.sample(WOMEN + MEN, 3)
        self.place = dice.choice(PLACES)

    def pick(self, *choices: str) -> str:
        """One of several wordings."""
        return self.dice.choice(choices)

    def two(self) -> list[str]:
        """Two different people of the story, in either order."""
        return self.dice.sample(self.cast, 2)


def stories(count: int, seed: int = 0) -> Iterator[str]:
    """Makes up stories.

    Args:
        count: How many.
        seed: Another seed tells other stories; story number i of a seed is the same whatever the count.

    Yields:
        One story at a time.
    """
    return (story(random.Random(f"{seed}:{number}")) for number in range(count))


def story(dice: random.Random) -> str:
    """Tells one story: mostly a few sentences about three people, now and then a sequence that repeats."""
    if dice.random() < 0.12:
        return "\n".join(repetition(dice) for _ in range(dice.randint(1, 3)))
    scene = Scene(dice)
    middle = [dice.choice(EVENTS)(scene) for _ in range(dice.randint(2, 6))]
    parts = [opening(scene), *middle, ending(scene)] if dice.random() < 0.7 else middle
    return dice.choice((" ", " ", "\n\n")).join(parts)


def opening(scene: Scene) -> str:
    """Introduces the three people and the place."""
    first, second, third = scene.cast
    hero = pronoun(first).capitalize()
    day = scene.pick("One day", "One morning", "Last summer", "On a cold evening", "Once upon a time", "Yesterday")
    return scene.pick(
        f"{day}, {first}, {second} and {third} met at the {scene.place}.",
        f"{day} there was a {pronoun(first, 'girl', 'boy')} called {first}. "
        f"{hero} had two friends, {second} and {third}, and they often played together "
        f"near the {scene.place}.",
        f"{day}, {first} was on the way to the {scene.place} with {second} and {third}.",
    )


def ending(scene: Scene) -> str:
    """Closes the story with one of its people."""
    name = scene.dice.choice(scene.cast)
    feeling = scene.dice.choice(FEELINGS)
    return scene.pick(
        f"In the end {name} was {feeling}, and everybody went home.",
        f"{name} felt {feeling} because {pronoun(name)} had learned something new.",
        "They all went home and slept well.",
        f"That was a good day at the {scene.place}.",
    )


def gift(scene: Scene) -> str:
    """An indirect object: two people are named, one acts, so the other one receives."""
    giver, receiver = scene.two()
    pair = scene.pick(f"{giver} and {receiver}", f"{receiver} and {giver}")
    place, thing = scene.dice.choice(PLACES), scene.dice.choice(GIFTS)
    setting = scene.pick(
        f"When {pair} went to the {place}",
        f"After {pair} came to the {place}",
        f"While {pair} were working at the {place}",
        f"Then {pair} had a long argument at the {place}, and afterwards",
        f"{pair} had lunch at the {place}, and then",
    )
    comma = "" if setting.endswith(("afterwards", "then")) else ","
    gave = scene.pick("gave", "gave", "handed", "offered", "showed", "passed")
    return f"{setting}{comma} {giver} {gave} {article(thing)} to {receiver}."


def agreement(scene: Scene) -> str:
    """A verb that agrees with its subject and not with the noun that stands between them."""
    head, between = scene.dice.sample(NOUNS, 2)
    many, others = scene.dice.random() < 0.5, scene.dice.random() < 0.5
    subject = plural(head) if many else head
    attractor = plural(between) if others else between
    link = scene.pick("near", "behind", "next to", "in front of", "beside", "that belonged to")
    if link == "that belonged to":
        verb = "were" if many else "was"
    else:
        verb = scene.pick("are", "were", "have been") if many else scene.pick("is", "was", "has been")
    return f"The {subject} {link} the {attractor} {verb} {scene.dice.choice(ADJECTIVES)}."


def relative_clause(scene: Scene) -> str:
    """Agreement across a clause with a verb of its own."""
    who, whom = scene.dice.sample(("boy", "girl", "teacher", "farmer", "doctor", "painter", "soldier"), 2)
    many, others = scene.dice.random() < 0.5, scene.dice.random() < 0.5
    subject = plural(who) if many else who
    clause = scene.pick(
        f"who {'know' if many else 'knows'} the {plural(whom) if others else whom}",
        f"that the {plural(whom) if others else whom} {'like' if others else 'likes'}",
    )
    verb = scene.pick("walk", "sing", "work", "write", "live", "play")
    return f"The {subject} {clause} {verb if many else verb + 's'} near the {scene.place}."


def quotation(scene: Scene) -> str:
    """A short dialogue in which every quote closes."""
    asker, answerer = scene.two()
    thing, box = scene.dice.choice(GIFTS), scene.dice.choice(BOXES)
    return scene.pick(
        f'"Where is the {thing}?" asked {asker}. "It is in the {box}," said {answerer}.',
        f'"Is this your {thing}?" asked {asker}. "{scene.pick("Yes, it is mine", "No, it is not mine")}," '
        f"said {answerer}.",
        f'{asker} said, "I saw a {scene.dice.choice(NOUNS)} at the {scene.place}." "So did I," {answerer} answered.',
    )


def aside(scene: Scene) -> str:
    """Brackets that close, sometimes inside other brackets."""
    name, thing = scene.dice.choice(scene.cast), scene.dice.choice(GIFTS)
    first, second = scene.dice.sample(ADJECTIVES, 2)
    inner = scene.pick("", f" [which was {second}]", f" [not the {second} one]", f' [the "{second}" one]')
    return scene.pick(
        f"{name} took the {thing} (the {first} one{inner}) and put it on the table.",
        f"The {thing} ({name} had found it near the {scene.place}{inner}) was {first}.",
    )


def hiding(scene: Scene) -> str:
    """Something is put somewhere, something else happens, and it is found where it was."""
    hider, finder = scene.two()
    thing, other = scene.dice.sample(GIFTS, 2)
    box, elsewhere = scene.dice.sample(BOXES, 2)
    return (
        f"{hider} put the {thing} in the {box} and the {other} in the {elsewhere}. "
        f"{scene.pick('Later', 'After a while', 'The next day')} {finder} looked for the {thing} "
        f"and found it in the {box}."
    )


def comparison(scene: Scene) -> str:
    """Which of two is more, stated once as numbers and once in words."""
    low, high = sorted(scene.dice.sample(range(1, 13), 2))
    one, other = scene.two()
    if scene.dice.random() < 0.4:
        third = next(name for name in scene.cast if name not in (one, other))
        word = scene.pick("taller", "older", "faster", "stronger")
        known = f"{one} is {word} than {other}, and {other} is {word} than {third}"
        return f"{known}, so {one} is {word} than {third}."
    numbers = scene.dice.sample((low, high), 2)
    more, less = (one, other) if numbers[0] == high else (other, one)
    things = plural(scene.dice.choice(THINGS))
    had = f"{one} had {NUMBERS[numbers[0]]} {things} and {other} had {NUMBERS[numbers[1]]} {things}"
    return scene.pick(f"{had}, so {more} had more {things}.", f"{had}, so {less} had fewer {things}.")


def counting(scene: Scene) -> str:
    """Small sums, and counting aloud."""
    if scene.dice.random() < 0.3:
        start = scene.dice.randint(1, 6)
        numbers = ", ".join(NUMBERS[start : start + scene.dice.randint(4, 6)])
        return f'{scene.dice.choice(scene.cast)} counted aloud: "{numbers}."'
    had, got = scene.dice.randint(1, 6), scene.dice.randint(1, 6)
    one, other = scene.two()
    thing = scene.dice.choice(THINGS)
    return (
        f"{one} had {amount(had, thing)}. {other} gave {pronoun(one, 'her', 'him')} {NUMBERS[got]} more, "
        f"so {pronoun(one)} had {amount(had + got, thing)}."
    )


def calendar(scene: Scene) -> str:
    """Days, months and seasons in their order."""
    cycle = scene.dice.choice(CALENDARS)
    start = scene.dice.randrange(len(cycle))
    today, tomorrow = cycle[start], cycle[(start + 1) % len(cycle)]
    name = scene.dice.choice(scene.cast)
    return scene.pick(
        f"{name} knew that after {today} comes {tomorrow}.",
        f'"It is {today} now, so {tomorrow} is next," said {name}.',
    )


def gossip(scene: Scene) -> str:
    """A pronoun that stands for the person just named, and a name that comes back."""
    one, other = scene.two()
    feeling = scene.dice.choice(FEELINGS)
    return scene.pick(
        f"{one} was {feeling}, so {pronoun(one)} told {other} about it.",
        f"{other} asked {one} why {pronoun(one)} was {feeling}, but {one} only smiled.",
        f"{one} lost {pronoun(one, 'her', 'his')} {scene.dice.choice(GIFTS)}, and {other} helped "
        f"{pronoun(one, 'her', 'him')} to find it.",
    )


def repetition(dice: random.Random) -> str:
    """A sequence of random words, said two or three times: only the text itself tells what comes next."""
    pool = (*NOUNS, *GIFTS, *ADJECTIVES, *WOMEN, *MEN, *NUMBERS, *(invented(dice) for _ in range(60)))
    words = " ".join(dice.sample(pool, dice.randint(3, 14)))
    return dice.choice((". ", "; ", " ", " | ")).join([words] * dice.randint(2, 3)) + "."


def invented(dice: random.Random) -> str:
    """A word that no language has."""
    return "".join(dice.choice(LETTERS) + dice.choice("aeiou") for _ in range(dice.randint(2, 3)))


def pronoun(name: str, woman: str = "she", man: str = "he") -> str:
    """The word that fits the person."""
    return woman if name in WOMEN else man


def plural(noun: str) -> str:
    """The plural of a noun of this grammar."""
    return noun + "s"


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def amount(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{NUMBERS[number]} {noun if number == 1 else plural(noun)}"


EVENTS: tuple[Sentence, ...] = (
    gift, gift, gift, agreement, agreement, relative_clause, quotation, aside, hiding, comparison, counting,
    calendar, gossip, gossip,
)  # fmt: skip
