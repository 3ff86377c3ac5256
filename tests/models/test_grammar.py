"""The made-up half of the corpus: what its texts promise, and that held-out words stay out of their roles."""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest

from recipe import circuits, essays, everyday, grammar, plots, scene, tasks
from recipe import lexicon as lex

GAVE = (
    "gave|give|handed|hand|offered|offer|passed|pass|sent|send|lent|lend|brought|bring|showed|show|sold|sell|"
    "returned|return"
)


def test_the_stories_are_those_that_the_model_was_trained_on() -> None:
    """A change of the code or of its words must not change what the shipped model learned from."""
    digest = hashlib.sha256("\0".join(grammar.stories(500)).encode()).hexdigest()
    assert digest == "e08437ca993f7b600d506997d19c2e04f1cae1a6d259db9a00535999643fd9d0"


@cache
def texts() -> tuple[str, ...]:
    return tuple(grammar.stories(4000))


@cache
def sentences() -> Counter[str]:
    return Counter(sentence for text in texts() for sentence in re.split(r"(?<=[.!?])\s+|\n+", text))


def scenes(count: int = 300) -> list[scene.Scene]:
    """Many scenes, the same in every run."""
    return [scene.Scene(random.Random(f"scene {number}")) for number in range(count)]


def named(names: tuple[str, ...]) -> str:
    return "|".join(names)


# Texts


def test_a_text_depends_on_its_number_and_seed_alone() -> None:
    assert list(grammar.stories(40)) == list(grammar.stories(80))[:40]
    assert list(grammar.stories(40, seed=1)) != list(grammar.stories(40))


def test_hardly_any_text_comes_twice() -> None:
    assert len(set(texts())) > 0.99 * len(texts())


def test_every_slot_and_choice_is_filled() -> None:
    for template in (template for plot in plots.PLOTS + plots.VOYAGES for step in plot for template in step):
        filled = scene.Scene(random.Random(0)).say(template)
        assert not re.search(r"[{}<>|]|  | [.,]", filled), filled
    for number in range(500):
        for tell in (essays.essay, everyday.everyday):
            text = tell(random.Random(number))
            assert not re.search(r"[{}<>|]|  | [.,]", text), text


@pytest.mark.parametrize("tell", [grammar.narrative, grammar.voyage])
def test_a_story_is_40_to_180_words_long_and_never_repeats_itself(tell: Callable[[random.Random], str]) -> None:
    for number in range(300):
        text = tell(random.Random(number))
        assert 40 <= len(text.split()) <= 180, text
        parts = re.split(r"(?<=[.!?]) +|\n+", text)
        assert len(parts) == len(set(parts)), text


def test_an_essay_has_three_to_seven_sentences() -> None:
    lengths = Counter(len(re.findall(r"[.?](?= |$)", essays.essay(random.Random(number)))) for number in range(500))
    assert set(lengths) >= {3, 4, 5, 6, 7}
    assert max(lengths) <= 9  # some wordings are two short sentences


def test_texts_are_varied() -> None:
    wordings = [template for plot in plots.PLOTS + plots.VOYAGES for step in plot for template in step]
    assert len(set(wordings)) > 150
    assert len(set(re.findall(r"[a-z]+", " ".join(texts())))) > 900


def test_held_out_prompts_never_occur_and_their_words_do() -> None:
    everything = "\n".join(texts()).lower()
    for prompt in lex.HELD_OUT_PROMPTS:
        assert prompt.lower() not in everything
        for word in prompt.lower().split():
            assert f" {word} " in everything, word
    for phrase in ("empowers", "is transforming the", " highlights the ", "they discovered a", "was approaching the"):
        assert phrase in everything, phrase


# Held-out words


def test_who_never_receives_a_gift_plays_every_other_part() -> None:
    everything = "\n".join(texts())
    held_out = named(lex.HELD_OUT_RECEIVERS)
    given = re.findall(rf"\b(?:{GAVE})\b[^.!?\n]{{0,40}} to ({named(lex.NAMES)})\b", everything)
    given += re.findall(rf"\b(?:{GAVE}) ({named(lex.NAMES)}) (?:a|an|the)\b", everything)
    assert len(given) > 800
    assert set(given) == set(grammar.RECEIVERS)  # everybody else does receive
    for role in (
        rf"({held_out}) (?:{GAVE}) (?:a|an|the) ", rf"({held_out}) and [A-Z]\w+ ", rf"[A-Z]\w+ and ({held_out}) ",
        rf"said ({held_out})[.,]", rf"({held_out}) had ", rf"(?:talked|spoke|waved|listened|ran|sang) to ({held_out})",
    ):  # fmt: skip
        assert set(re.findall(role, everything)) == set(lex.HELD_OUT_RECEIVERS), role


def test_no_gift_sentence_has_a_held_out_place_or_gift() -> None:
    gifts = " ".join(grammar.gift(one) for one in scenes(1000))
    everything = " ".join(texts())
    for word in (*lex.HELD_OUT_PLACES, *lex.HELD_OUT_GIFTS):
        assert not re.search(rf"\b{word}\b", gifts)
        assert len(re.findall(rf"\b{word}\b", everything)) > 20, word


def test_held_out_heads_meet_their_verbs_in_simple_sentences_only() -> None:
    distant = [grammar.agreement(one).removeprefix("In the morning ") for one in scenes(1000)]
    simple = " ".join(grammar.simple(one) for one in scenes(2000))
    for noun in lex.HELD_OUT_HEADS:
        assert not {re.findall(r"[Tt]he (\w+)", text)[0] for text in distant} & {noun, lex.plural(noun)}
        assert re.search(rf"\bthe {noun} (?:is|was|looks|seems)", simple, re.I)
        assert re.search(rf"\bthe {lex.plural(noun)} (?:are|were|look|seem)", simple, re.I)


def test_no_text_has_a_distant_verb_of_a_subject_that_is_asked_for() -> None:
    heads = {form for noun in tasks._HEADS for form in (noun, lex.plural(noun))}
    verbs = {verb for pair in circuits.VERBS for verb in pair}
    links = "|".join(circuits._LINKS)
    for sentence in sentences():
        for subject, between in re.findall(rf"^The (\w+) (?:{links}) (.*)", sentence):
            assert subject not in heads or not set(re.findall(r"\w+", between)) & verbs, sentence


def test_held_out_contents_are_never_inside_brackets() -> None:
    held_out = (*lex.HELD_OUT_CONTENTS, *lex.HELD_OUT_IDENTIFIERS)
    for one in scenes(1000):
        assert not set(re.findall(r"\w+", grammar.aside(one) + " " + grammar.code(one))) & set(held_out)
    everything = " ".join(texts())
    assert all(f" {word} " in everything for word in lex.HELD_OUT_CONTENTS)


# Exercises


def test_a_gift_goes_to_the_other_one_of_two() -> None:
    first = 0
    for number in range(600):
        dice = random.Random(number)
        giver, receiver, third = dice.sample(lex.NAMES, 3)
        piece = circuits.gift(dice, giver, receiver, third, "park", "ball", direct=number % 5 == 0)
        pair = re.search(rf"\b({giver}|{receiver}) and ({giver}|{receiver})\b", piece.before)
        assert pair and set(pair.groups()) == {giver, receiver}
        assert len(re.findall(rf"\b{giver}\b", piece.before)) == 2
        assert len(re.findall(rf"\b{receiver}\b", piece.before)) == 1
        assert piece.answer == f" {receiver}"
        assert re.search(rf"\b(?:{GAVE})\b", piece.before)
        first += pair[1] == receiver
    assert 240 < first < 360  # in either order


def test_the_name_that_an_order_asks_for_was_said_and_nobody_receives_anything() -> None:
    for number in range(300):
        dice = random.Random(number)
        names = tuple(dice.sample(lex.NAMES, 3))
        piece = circuits.order(dice, (names[0], names[1], names[2]), "park")
        assert piece.answer[0] == " " and piece.answer[1:] in names
        assert re.search(rf"\b{piece.answer[1:]}\b", piece.before) and "~" not in str(piece)
        assert not re.search(rf"\b(?:{GAVE}|to|for|with)\b {piece.answer[1:]}", str(piece))


def test_the_best_known_gift_sentence_is_among_them() -> None:
    wanted = re.compile(r"When (\w+) and (\w+) went to the \w+, (?:\1|\2) gave an? \w+ to (?:\1|\2)\.")
    assert sum(count for sentence, count in sentences().items() if wanted.fullmatch(sentence)) > 20


def test_distant_verbs_agree_with_their_subject() -> None:
    for number in range(600):
        dice = random.Random(number)
        head, first, second = dice.sample(grammar.NOUNS, 3)
        many, *others = (bool(number & bit) for bit in (1, 2, 4))
        piece = circuits.agreement(dice, head, many, (first, second), (others[0], others[1]))
        assert piece.answer[1:] in {verbs[many] for verbs in circuits.VERBS}
        nouns = [*re.findall(r"[Tt]he (\w+)", piece.before)]
        subject = lex.plural(head) if many else head
        assert subject in nouns and nouns.index(subject) < len(nouns) - 1, piece


def test_brackets_and_quotes_close() -> None:
    for text in texts():
        opened: list[str] = []
        for character in re.sub(r"o'clock", "", text):
            if opened and character == circuits.BRACKETS[opened[-1]]:
                opened.pop()
            elif character in circuits.BRACKETS:
                opened.append(character)
            else:
                assert character not in circuits.BRACKETS.values(), text
        assert not opened, text


def test_every_bracket_and_quote_occurs_about_as_often() -> None:
    closers = Counter(tasks_question.answer for tasks_question in tasks.closings(1200))
    assert set(closers) == set(circuits.BRACKETS.values())
    assert min(closers.values()) > 60


def test_sums_and_comparisons_are_right() -> None:
    numbers = {word: number for number, word in enumerate(lex.NUMBERS)} | {str(number): number for number in range(13)}
    seen = Counter[str]()
    for one in scenes(1000):
        sentence = grammar.counting(one)
        counted = [numbers[word] for word in re.findall(r"\w+", sentence.lower()) if word in numbers]
        if "aloud" in sentence:
            assert {second - first for first, second in pairwise(counted)} in ({1}, {-1}), sentence
        elif "lost" in sentence:
            assert counted[0] - counted[1] == counted[2], sentence
        else:
            assert counted[0] + counted[1] == counted[2], sentence
        sentence = grammar.comparison(one)
        if found := re.match(r"(\w+) had (\w+) \w+ and (\w+) had (\w+) ", sentence):
            who, first, other, second = found.groups()
            more, fewer = (who, other) if numbers[first] > numbers[second] else (other, who)
            asked = re.search(r"so (\w+) had (more|fewer)", sentence)
            told = re.search(r"with (more|fewer) \w+ was (\w+)", sentence)
            how, said = (asked[2], asked[1]) if asked else (told[1], told[2]) if told else ("", "")
            assert said == {"more": more, "fewer": fewer}[how], sentence
            seen[how] += 1
    assert set(seen) == {"more", "fewer"}


def test_what_comes_next_in_the_calendar_is_right() -> None:
    following = {a: b for cycle in lex.CALENDARS for a, b in pairwise((*cycle, cycle[0]))}
    for one in scenes():
        sentence = grammar.calendar(one)
        named_days = [word for word in re.findall(r"\w+", sentence) if word in following]
        if "Before" in sentence:
            named_days.reverse()
        assert all(following[a] == b for a, b in pairwise(named_days)), sentence


def test_a_repetition_repeats() -> None:
    for number in range(50):
        words = re.findall(r"\w+", grammar.repetition(random.Random(number)))
        assert any(words == words[: len(words) // times] * times for times in (2, 3)), words


# Tasks


@pytest.mark.parametrize("ask", [tasks.indirect_objects, tasks.agreements, tasks.closings, tasks.comparisons])
def test_questions_are_different_and_the_same_in_every_run(ask: Callable[[int, int], list[tasks.Question]]) -> None:
    questions = ask(400, 0)
    assert questions == ask(400, 0) != ask(400, 1)
    assert len({question.prompt for question in questions}) == 400
    everything = "\n".join(texts())
    for question in questions:
        assert question.others and question.answer not in question.others
        assert not question.prompt.endswith(" ")
        assert question.prompt not in everything


def test_what_is_asked_is_never_said_in_training() -> None:
    """By words, since 4,000 texts are not all: no made-up text counts these things or has these identifiers."""
    for things, ask in ((lex.HELD_OUT_COUNTED, tasks.comparisons), (lex.HELD_OUT_IDENTIFIERS, tasks.closings)):
        plurals = map(lex.plural, things) if ask is tasks.comparisons else ()
        words = {*things, *plurals}
        asked = [set(re.findall(r"\w+", question.prompt)) for question in ask(400, 0)]
        held_out = (*words, *lex.HELD_OUT_CONTENTS)
        assert all(found & set(held_out) for found in asked)
        assert not set(re.findall(r"\w+", " ".join(texts()))) & words


def test_too_few_different_questions_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 different questions about names were asked for; only 1 were found"):
        tasks._distinct(lambda dice, number: tasks.Question("a", " b", (" c",)), "names", 2, 0)


def test_half_of_the_receivers_are_named_first() -> None:
    first = 0
    for question in tasks.indirect_objects(400):
        receiver, giver = question.answer.strip(), question.others[0].strip()
        assert receiver in lex.HELD_OUT_RECEIVERS
        assert question.prompt.endswith(" to")
        named = {f" {name}" for name in re.findall(r"\w+", question.prompt) if name in lex.NAMES}
        assert {question.answer, *question.others} == named
        first += re.findall(rf"\b(?:{giver}|{receiver})\b", question.prompt)[0] == receiver
    assert first == 200


def test_half_of_the_subjects_are_many_and_what_stands_between_is_not() -> None:
    questions = tasks.agreements(400)
    assert sum(question.answer in (" are", " were", " have", " look", " seem") for question in questions) == 200
    heads = {form: noun for noun in lex.HELD_OUT_HEADS for form in (noun, lex.plural(noun))}
    assert {heads[word] for q in questions for word in re.findall(r"\w+", q.prompt) if word in heads} == {
        *lex.HELD_OUT_HEADS
    }


def test_closers_are_compared_with_all_others() -> None:
    for question in tasks.closings(400):
        assert {question.answer, *question.others} == set(circuits.BRACKETS.values())
