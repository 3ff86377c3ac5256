"""Sentences in which one word is certain: what one can look for inside a trained model.

Who receives the gift, which noun a distant verb agrees with, which bracket or quote is open, which of two numbers
is larger, what comes next in a sequence that was said before.
"""

__all__ = ["BRACKETS", "VERBS", "Certain", "agreement", "aside", "code", "gift", "order"]

import random
import re
from dataclasses import dataclass

from recipe.lexicon import LOOKS, PERSONS, article, plural


@dataclass(frozen=True)
class Certain:
    """A text, cut where the next word is certain."""

    before: str
    answer: str
    after: str

    def __str__(self) -> str:
        """The whole text."""
        return self.before + self.answer + self.after


# Indirect objects: two people are named, one of them acts, so the other one receives.
_OPENINGS = (
    "When {pair} went to the {place},", "When {pair} went to the {place},", "When {pair} went to the {place},",
    "After {pair} came to the {place},", "While {pair} were working at the {place},",
    "As {pair} were walking to the {place},", "Before {pair} left the {place},", "When {pair} met at the {place},",
    "After {pair} had lunch near the {place},", "Because {pair} were old friends,", "Since {pair} liked the {place},",
    "While {pair} were waiting in front of the {place},", "On the day {pair} visited the {place},",
    "As soon as {pair} arrived at the {place},", "Then, {pair} went to the {place}, and",
    "Then, {pair} had a long argument at the {place}, and afterwards", "{pair} had fun at the {place}, and then",
    "{pair} were playing near the {place}, and", "{pair} spent the day at the {place}, where",
    "Yesterday {pair} worked together at the {place}, and later", "Two friends, {pair}, went to the {place}, and",
    "At the {place}, where {pair} had met,", "After {pair}, who knew each other well, came to the {place},",
    "When {pair} heard that {third} was at the {place},", "While {third} was asleep, {pair} went to the {place}, and",
    "{pair} went to the {place}.", "{pair} went to the {place}.", "{pair} were at the {place}.",
    "{pair} met near the {place}.", "One day {pair} came to the {place}.", "{pair} had known each other for years.",
    "{third} had left the {place} early. {pair} stayed.", "There were only two people at the {place}: {pair}.",
    "{third} was at home. {pair} were at the {place}.",
)  # fmt: skip
_MIDDLES = (
    "", "", "", "The weather was cold.", "It was getting late.", "The place was full of people.", "It was very quiet.",
    "They were both tired.", "The sun was shining.", "They talked about the {look} house.", "They sat down together.",
    "{third} was not there.", "They had seen {third} on the way.", "Nobody else was there.", "They looked around.",
    "They talked about {third} for a while.", "A {look} dog ran past them.", "The way home was long.",
)  # fmt: skip
_ACTS = (
    "{giver} {gave} {a_gift} to", "{giver} {gave} {a_gift} to", "{giver} {gave} {a_gift} to",
    "{giver} {gave} the {gift} to", "{giver} {gave} a {look} {gift} to", "{giver} wanted to {give} {a_gift} to",
    "{giver} decided to {give} the {gift} to", "{giver} bought {a_gift} and {gave} it to",
    "{giver} found {a_gift} and {gave} it to", "{giver} took the {gift} and {gave} it to",
    "{giver} opened the box and {gave} the {gift} to", "{giver} smiled and {gave} {a_gift} to",
    "{giver} was happy to {give} {a_gift} to", "{giver} had {a_gift} and {gave} it to",
    "{giver}, who had {a_gift}, {gave} it to", "{giver} quickly {gave} the {look} {gift} to",
)  # fmt: skip
_DIRECT = ("{giver} {gave}", "{giver} wanted to {give}", "{giver} decided to {give}", "{giver} {gave}")
_GIVING = (
    ("give", "gave"), ("give", "gave"), ("give", "gave"), ("hand", "handed"), ("offer", "offered"), ("pass", "passed"),
    ("send", "sent"), ("lend", "lent"), ("bring", "brought"), ("show", "showed"), ("sell", "sold"),
    ("return", "returned"),
)  # fmt: skip
_THANKS = (".", ".", ".", ".", " at once.", " with a smile.", " as a present.", ", who said thank you.", " again.")


def gift(
    dice: random.Random, giver: str, receiver: str, third: str, place: str, thing: str, direct: bool = False
) -> Certain:
    """Somebody gives something to the other one of two.

    Args:
        dice: Chooses the words.
        giver: One of the two.
        receiver: The other one, who is the certain word.
        third: Somebody who is not one of the two.
        place: Where it happens.
        thing: What is given.
        direct: Whether the receiver comes before the thing.
    """
    pair = [giver, receiver]
    dice.shuffle(pair)
    give, gave = dice.choice(_GIVING)
    if direct and gave == "returned":
        give, gave = "give", "gave"
    opening = dice.choice(_OPENINGS)
    parts = [opening, dice.choice(_MIDDLES) if opening.endswith(".") else "", dice.choice(_DIRECT if direct else _ACTS)]
    if not direct and dice.random() < 0.2:  # the sentence by which the circuit is known
        parts, gave = [_OPENINGS[0], _ACTS[0]], "gave"
    look = dice.choice([word for word in LOOKS if word[0] not in "aeiou"])
    before = " ".join(filter(None, parts)).format(
        pair=" and ".join(pair), place=place, third=third, giver=giver, give=give, gave=gave, gift=thing,
        a_gift=article(thing), look=look,
    )  # fmt: skip
    return Certain(before, f" {receiver}", f" {article(thing)}." if direct else dice.choice(_THANKS))


# Agreement: the verb agrees with its subject and not with a noun that stands between them.
_LINKS = (
    "near", "behind", "next to", "in front of", "beside", "under", "above", "from", "with", "by", "to the left of",
    "to", "opposite", "on the other side of", "of",
)  # fmt: skip
VERBS = (
    ("is", "are"), ("is", "are"), ("is", "are"), ("was", "were"), ("was", "were"), ("has", "have"), ("looks", "look"),
    ("seems", "seem"),
)  # fmt: skip
_LEADS = (
    "The", "The", "The", "The", "The", "Today the", "In the morning the", "As always, the", "We know that the",
    "It is true that the", "Everybody says that the", "In this town the", "Sometimes the",
)  # fmt: skip
_MOODS = ("tired", "happy", "busy", "late", "young", "old", "kind", "clever", "quiet", "famous", "strong", "nervous")


def agreement(
    dice: random.Random, head: str, many: bool, between: tuple[str, str], numbers: tuple[bool, bool]
) -> Certain:
    """Says how something is, across one or two nouns of either number.

    Args:
        dice: Chooses the words.
        head: The subject, in the singular.
        many: Whether it is many.
        between: Nouns, in the singular, of which one or two may stand between subject and verb.
        numbers: Which of them are many.
    """
    subject = plural(head) if many else head
    alive = head in PERSONS
    first, second = (plural(word) if number else word for word, number in zip(between, numbers, strict=True))
    lead = f"{dice.choice(_LEADS)} {subject}"
    shape = dice.random()
    if shape < 0.4:
        before = f"{lead} {dice.choice(_LINKS)} the {first}"
    elif shape < 0.6:
        before = f"{lead} {dice.choice(_LINKS)} the {first} {dice.choice(_LINKS)} the {second}"
    elif shape < 0.72:
        person = dice.choice([word for word in PERSONS if word not in (head, *between)])
        person = plural(person) if numbers[1] else person
        link = dice.choice(("", f" near the {first}", f" {dice.choice(_LINKS)} the {first}"))
        before = f"{lead} that the {person}{link} {dice.choice(('saw', 'found', 'liked', 'knew', 'remembered'))}"
    elif shape < 0.86:
        verb = dice.choice(("stand", "come") if not alive else ("know", "like", "see", "remember", "help"))
        verb = verb if many else verb + "s"
        near = "" if alive else " near" if verb.startswith("stand") else " from"
        before = f"{lead} {'who' if alive else 'that'} {verb}{near} the {first}"
    else:
        before = f"{lead} {dice.choice(('which', 'that')) if not alive else 'who'} " + dice.choice(
            (
                f"stood near the {first}",
                f"came with the {first}",
                f"came from the {first} {dice.choice(_LINKS)} the {second}",
            )
        )
    forms = dice.choice(VERBS)
    been = "been " if forms[0] == "has" else ""
    return Certain(before, f" {forms[many]}", f" {been}{dice.choice(_MOODS if alive else LOOKS)}.")


# Names: who comes when, or is called what. A `~` stands before each name that is certain.
_ORDERS = (
    "{a}, {b} and {c} stood in line at the {place}. First came~ {a}, then~ {b}, and last~ {c}.",
    "{a} and {b} wrote their names on the wall of the {place}, first~ {a}, then~ {b}.",
    "{a} was at the {place} before {b}. So the first one there was~ {a}, and the second was~ {b}.",
    "{a} came to the {place} after {b}. So the second one there was~ {a}, and the first was~ {b}.",
    '{a} met {b} near the {place}, smiled and said, "My name is~ {a}."',
    "{a} had a small {place}. It was called the {place} of~ {a}.",
    "{a} and {b} live near the {place}. Yes,~ {a} and~ {b}.",
    "{a}, {b}, {c}. Who?~ {a},~ {b},~ {c}.",
)  # fmt: skip


def order(dice: random.Random, names: tuple[str, str, str], place: str) -> Certain:
    """People come one after another, or say what they are called; the cut is before a name that follows from that.

    Args:
        dice: Chooses the words.
        names: Three people.
        place: Where it happens.
    """
    a, b, c = names
    return _cut(dice, dice.choice(_ORDERS).format(a=a, b=b, c=c, place=place), r" \w+")


# Brackets and quotes.
BRACKETS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`"}
_PLACED = (
    "{name} took the {thing}{aside} and put it on the table.", "The {thing}{aside} was on the table.",
    "{name} had lost the {thing}{aside} near the {place}.", "There was only one {thing}{aside} at the {place}.",
    "{name} asked for the {thing}{aside} at the {place}.", "We saw the {thing}{aside} in the {place}.",
    "They called the {thing}{aside} a treasure.", "At the {place} the {thing}{aside} was for sale.",
)  # fmt: skip
_TAILS = ("of the two", "of the three", "of course", "as always", "I think", "for once", "as before")


def aside(dice: random.Random, name: str, place: str, thing: str, looks: list[str]) -> Certain:
    """An aside in brackets or quotes, up to three deep; the cut is before one of its closers.

    Args:
        dice: Chooses the words and the brackets.
        name: Somebody.
        place: Some place.
        thing: What the aside is about.
        looks: Adjectives, one for each depth.
    """
    kinds = dice.sample(sorted(BRACKETS), len(looks))
    text, closers = "", []
    for depth, (kind, look) in enumerate(zip(kinds, looks, strict=True)):
        text += f" {kind}{dice.choice(('not', 'like', 'unlike')) + ' ' if depth else ''}the {look} one"
    for depth, kind in enumerate(reversed(kinds)):
        if depth:
            text += f" {dice.choice(_TAILS)}"
        closers.append((len(text), BRACKETS[kind]))
        text += BRACKETS[kind]
    before, after = dice.choice(_PLACED).format(name=name, thing=thing, place=place, aside="\0").split("\0")
    cut, closer = dice.choice(closers)
    return Certain(before + text[:cut], closer, text[cut + 1 :] + after)


# A `~` stands before each closer whose place is certain and that no other punctuation follows.
_CODE = (
    "{f}({a}, {b}~)", "{f}({g}({a}, {b}~) + {n}~)", "{a} = {f}({b}~)", "{a} = {b}[{c}~]", "{a}[{c}~] = {n}",
    "{a} = {f}({b}[{c}~] + {n}~)", "{a} = [{n}, {m}, {n}~]", "{a} = ({n}, {m}~)", "{a} = {{{n}, {m}~}}",
    "{a} = {{{b}: {n}, {c}: {m}~}}", '{{"{a}": {n}, "{b}": {m}~}}', "{a} = {f}({b}) + {g}({c}~)",
    "{a}[{f}({b}~) - {n}~] = {c}", "return {f}({a}[{b}~] - {c}~)", "if {f}({a}~) > {n}", "while {a}[{b}~] < {n}",
    '{a} = "{b} {c}~"', "{a} = '{b} {c}~'", '{a} = "the {b}~" + {c}', "{a} = '{b}~' + {c}", "{f}({{{a}, {b}~}} | {c}~)",
    "Call `{f} {a}~` first.",
    "Set `{a}~` to {n}.", "The value of `{a}~` is {n}.", "{a} = {f}({b} + [{c}, {n}~] + {g}~)",
    "The {a} ({n} or {m}~) is in `{b}~` and not in `{c}~` here.", "{a} = {{{b}: [{n}, {m}~] * {n}~}}",
    "{a} = [{f}({b}~) for {b} in {c}~]",
)  # fmt: skip


def code(dice: random.Random, identifiers: tuple[str, ...], functions: tuple[str, ...]) -> Certain:
    """A line that looks like code; the cut is before one of its closers."""
    a, b, c = dice.sample(identifiers, 3)
    f, g = dice.sample(functions, 2)
    n, m = dice.sample(range(1, 13), 2)
    line = dice.choice(_CODE).format(a=a, b=b, c=c, f=f, g=g, n=n, m=m)
    return _cut(dice, line, ".")


def _cut(dice: random.Random, line: str, answer: str) -> Certain:
    """Cuts a line at one of its `~`, before what matches the answer's pattern."""
    mark = dice.choice([*re.finditer(f"~({answer})", line)])
    return Certain(line[: mark.start()].replace("~", ""), mark[1], line[mark.end() :].replace("~", ""))
