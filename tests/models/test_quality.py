"""The measures of the model card, each against numbers that are made in another way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
from checkpoints import config_entries, random_weights, tokenizer
from tokenizers import Tokenizer, models
from yardstick import close

from onnxlens._lens import Lens
from onnxlens.analysis import head_scores
from onnxlens.runtime._running.runner import Runner
from recipe.answers import Answers, Vocabulary, answers
from recipe.heads import PATTERNS, name_movers
from recipe.heldout import held_out, token_bits, windows
from recipe.loops import loop
from recipe.passes import next_tokens
from recipe.tasks import Question

Runners = Callable[[str], Runner]
END, CONTEXT = 0, 48


def likely(ids: Sequence[int]) -> np.ndarray:
    """Log-probabilities [P, V] of the base model, by the float64 oracle."""
    config = config_entries("base")
    logits = oracle.run(config, random_weights(config), np.array([ids]))["logits"][0]
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


# Held-out text


@pytest.mark.parametrize("count", [1, 5, 48, 49, 71, 96, 200])
@pytest.mark.parametrize("stride", [1, 7, 24, 48])
def test_windows_score_each_token_once_and_with_enough_before_it(count: int, stride: int) -> None:
    found = windows(count, CONTEXT, stride)
    length = min(CONTEXT, count)
    scored = [token for start, first in found for token in range(first, start + length)]
    assert scored == list(range(count))
    assert found[0] == (0, 0)
    assert all(first - start >= CONTEXT - stride for start, first in found[1:])
    assert found[-1][0] + length == count


@pytest.mark.parametrize("stride", [0, 49])
def test_a_stride_that_would_leave_tokens_out_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and the context, 48; it is {stride}"):
        windows(100, CONTEXT, stride)


@pytest.mark.parametrize("stride", [16, 48])
def test_bits_of_tokens_are_those_of_the_oracle(runner: Runners, stride: int) -> None:
    ids = np.random.default_rng(0).integers(1, 290, 130)
    ids[[20, 77, -1]] = END
    found = token_bits(runner("base"), ids, END, stride, rows=3)
    stream, expected = [END, *ids], []
    for place, token in enumerate(
        ids
    ):  # the window that scores it begins at a multiple of the stride, or ends the text
        past = max(0, place - CONTEXT + 1)
        start = min(math.ceil(past / stride) * stride, len(ids) - CONTEXT)
        expected.append(-likely(stream[start : place + 1])[-1, token] / math.log(2))
    close(found, expected)


def write_held_out(work: Path, documents: list[str]) -> list[int]:
    text = "".join(f"{document}<|endoftext|>" for document in documents)
    ids = tokenizer().encode(text).ids
    (work / "stories-heldout.txt").write_text(text)
    np.save(work / "stories-heldout.npy", np.array(ids, np.uint16))
    return ids


def test_bits_are_counted_by_the_bytes_of_the_text_alone(runner: Runners, tmp_path: Path) -> None:
    ids = write_held_out(tmp_path, ["the cat", "où est le chat ?"])
    read = held_out(Lens(runner("base")), tmp_path, "stories")
    assert read.ids.tolist() == ids
    assert read.size == 7 + 17
    assert read.bits_per_byte(np.full(len(ids), 2.0)) == 2 * len(ids) / 24  # both ends are counted


def test_text_of_another_vocabulary_is_refused(runner: Runners, tmp_path: Path) -> None:
    ids = write_held_out(tmp_path, ["the cat", "the dog"])
    for wrong in (ids[::-1], [*ids[:-1], 5000]):
        np.save(tmp_path / "stories-heldout.npy", np.array(wrong, np.uint16))
        with pytest.raises(ValueError, match=r"The held-out stories in .* are not in the vocabulary of base"):
            held_out(Lens(runner("base")), tmp_path, "stories")


def test_where_there_is_no_corpus_it_says_what_to_run(runner: Runners, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        held_out(Lens(runner("base")), tmp_path, "stories")
    assert str(caught.value) == f"No corpus in {tmp_path}: run `python -m recipe.corpus`."


# Questions


def made_of(*tokens: str) -> Tokenizer:
    """A byte-level tokenizer with these tokens; the first is special."""
    made = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[]))
    made.add_special_tokens([tokens[0]])
    return made


@pytest.mark.parametrize(
    ("token", "completing"),
    [
        ("Ġis", {"Ġis", "Ġis,", 'Ġis"', "ĠisĠ", "ĠisâĢľ"}),  # not " island", " isé", " is2"
        ("Ġisland", {"Ġisland"}),
        ("Ġ1", {"Ġ1", "Ġ1)"}),  # not " 12"
        (")", {")", ").", "))", ")s"}),
        ("'", {"'", "',", "')", "'5"}),  # not "'s"
        ("<", {"<", "<a"}),  # <|endoftext|> is no text
    ],
)
def test_tokens_that_complete_a_word_leave_it_what_it_is(token: str, completing: set[str]) -> None:
    rest = ["Ġis", "Ġis,", 'Ġis"', "ĠisĠ", "ĠisâĢľ", "Ġisland", "ĠisÃ©", "Ġis2", "Ġ1", "Ġ12", "Ġ1)"]
    rest += [")", ").", "))", ")s", "'", "',", "')", "'s", "'5", "<", "<a", "is"]
    made = made_of("<|endoftext|>", *rest)
    vocabulary = Vocabulary(made)
    assert vocabulary.ordinary.tolist() == list(range(1, len(rest) + 1))
    assert {made.id_to_token(one) for one in vocabulary.completing(made.token_to_id(token))} == completing


class Hand:
    """A model made by hand: after any text, the tokens given have these probabilities, the rest share what is left."""

    def __init__(self, chances: dict[str, dict[str, float]]) -> None:
        self.made = tokenizer()
        self.chances = chances
        self.asked = 0

    def encode(self, text: str) -> list[int]:
        return self.made.encode(text).ids

    def __call__(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        found = []
        for row in rows:
            self.asked += 1
            chances = self.chances[self.made.decode(list(row))]
            left = (1 - sum(chances.values())) / (290 - len(chances))
            probabilities = np.full(290, left)
            for token, chance in chances.items():
                probabilities[self.made.token_to_id(token)] = chance
            found.append(np.log(probabilities))
        return np.array(found)

    def ask(self, *questions: Question, chunk: int = 64) -> Answers:
        return answers(questions, self.encode, Vocabulary(self.made), self, chunk=chunk)


def test_a_token_that_only_begins_with_the_answer_does_not_count_for_it() -> None:
    question = Question("on", " s", (" cat",))
    found = Hand({"on": {"Ġs": 0.2, "Ġsat": 0.5, "Ġcat": 0.1}}).ask(question)
    assert math.exp(found.margins[0]) == pytest.approx(0.2 / 0.1)
    assert found.right.tolist() == [True] and found.greedy.tolist() == [False]  # it would say " sat"


def test_an_answer_of_several_tokens_has_the_product_of_their_probabilities() -> None:
    assert tokenizer().encode(" dog").tokens == ["Ġdo", "g"]
    question = Question("on", " dog", (" cat",))
    model = Hand({"on": {"Ġdo": 0.5, "Ġcat": 0.2}, "on do": {"g": 0.6}})
    found = model.ask(question)
    assert math.exp(found.margins[0]) == pytest.approx(0.5 * 0.6 / 0.2)
    assert found.greedy.tolist() == [True] and found.right.tolist() == [True]
    assert model.asked == 2  # the prompt is read once
    model.chances["on do"] = {"g": 0.3, "e": 0.6}
    found = model.ask(question)
    assert math.exp(found.margins[0]) == pytest.approx(0.5 * 0.3 / 0.2)
    assert found.right.tolist() == [False] and found.greedy.tolist() == [False]


def test_the_answer_must_be_likelier_than_every_other() -> None:
    model = Hand({"on": {"Ġcat": 0.4, "Ġhat": 0.3, "Ġmat": 0.2}, "in": {"Ġcat": 0.2, "Ġhat": 0.3, "Ġmat": 0.4}})
    questions = [
        Question("on", " hat", (" mat", " cat")),
        Question("on", " cat", (" mat", " hat")),
        Question("in", " cat", (" hat",)),
    ]
    for chunk in (1, 64):
        found = model.ask(*questions, chunk=chunk)
        assert found.right.tolist() == [False, True, False]
        assert found.share == pytest.approx(1 / 3)


@pytest.mark.parametrize("answer", [" s", " sat"])
def test_a_candidate_that_begins_with_another_keeps_its_own(answer: str) -> None:
    question = Question("on", answer, (" s" if answer == " sat" else " sat",))
    for short, long in ((0.3, 0.25), (0.25, 0.3)):
        found = Hand({"on": {"Ġs": short, "Ġsat": long}}).ask(question)
        wanted, other = (short, long) if answer == " s" else (long, short)
        assert math.exp(found.margins[0]) == pytest.approx(wanted / other)
        assert found.right.tolist() == found.greedy.tolist() == [wanted > other]


@pytest.mark.parametrize("answer", [" do", " dog"])
def test_a_candidate_whose_tokens_go_on_to_another_keeps_its_own(answer: str) -> None:
    question = Question("on", answer, (" do" if answer == " dog" else " dog",))
    for on in (0.3, 0.6):
        found = Hand({"on": {"Ġdo": 0.5}, "on do": {"g": on}}).ask(question)
        wanted, other = (1 - on, on) if answer == " do" else (on, 1 - on)
        assert math.exp(found.margins[0]) == pytest.approx(wanted / other)
        assert found.right.tolist() == [wanted > other]
        assert found.greedy.tolist() == [answer == " dog"]  # "g" is the likeliest single token


def test_questions_that_cannot_be_scored_are_refused() -> None:
    model = Hand({})
    with pytest.raises(ValueError, match="Two candidates after 'on' are the same"):
        model.ask(Question("on", " sat", (" s", " sat")))
    with pytest.raises(ValueError, match="The tokens of 'e' are others after ' th' than alone"):
        model.ask(Question(" th", "e", ("q",)))


def test_the_next_tokens_of_rows_do_not_depend_on_their_company(runner: Runners) -> None:
    rows = [[5], [7, 8, 9], [100, 3], [1, 2, 3, 4, 5, 6, 7]]
    found = next_tokens(runner("base"), rows=3)(rows)
    for row, values in zip(rows, found, strict=True):
        close(values, likely(row)[-1])


# Heads


def test_scores_of_heads_are_means_of_the_pattern(runner: Runners) -> None:
    model, length, count = runner("base"), 7, 5
    tokens = np.arange(1, 290)
    found = head_scores(Lens(model), length=length, count=count, seed=3, tokens=tokens, rows=2)
    half = np.random.default_rng(3).choice(tokens, size=(count, length))
    scores, correct = np.zeros((3, 2, 4)), 0
    for row in half.tolist():
        ids = np.array([[END, *row, *row]])
        output = model.run(ids, names_filter=PATTERNS)
        for layer in range(2):
            pattern = output.activations[f"blocks.{layer}.attn.hook_pattern"][0]
            for head in range(4):
                again = range(length + 1, 2 * length + 1)
                scores[0, layer, head] += np.mean([pattern[head, k, k - length + 1] for k in again])
                scores[1, layer, head] += np.mean([pattern[head, k, k - 1] for k in range(1, 2 * length + 1)])
                scores[2, layer, head] += np.mean([pattern[head, k, k - length] for k in again])
        guesses = output.logits[0].argmax(-1)
        correct += sum(guesses[k] == ids[0, k + 1] for k in range(length + 1, 2 * length))
    close([found.induction, found.previous, found.duplicate], scores / count)
    assert found.accuracy == correct / (count * (length - 1))
    assert found.induction.shape == (2, 4)


class Copier:
    """Stands in for a lens whose one head attends to the token after the earlier occurrence, and copies it."""

    config = SimpleNamespace(n_layers=1, n_heads=1, n_ctx=20, d_vocab=300)
    tokenizer = SimpleNamespace(eos_token_ids=(END,))

    def run(self, ids: np.ndarray, names_filter: str, keep_cache: bool) -> SimpleNamespace:
        rows, size = ids.shape
        logits, pattern = np.zeros((rows, size, 300)), np.zeros((rows, 1, size, size))
        for row in range(rows):
            for place in range(size):
                earlier = np.flatnonzero(ids[row, :place] == ids[row, place])
                target = earlier[-1] + 1 if len(earlier) else 0
                pattern[row, 0, place, target] = 1
                logits[row, place, ids[row, target]] = 1
        return SimpleNamespace(logits=logits, activations={"blocks.0.attn.hook_pattern": pattern})


def test_a_perfect_copier_has_all_points() -> None:
    found = head_scores(Copier(), length=3, count=4, seed=1)  # type: ignore[arg-type]
    half = np.random.default_rng(1).choice(np.arange(1, 300), size=(4, 3))
    assert all(len(set(row)) == 3 for row in half.tolist())  # else what comes next would not be certain
    assert found.accuracy == 1 and found.induction[0, 0] == 1
    assert found.duplicate[0, 0] == 0
    assert found.previous[0, 0] == pytest.approx(1 / 6)  # the first token has nothing else to look at


def test_the_last_token_looks_at_names(runner: Runners) -> None:
    model, encode = runner("base"), Lens(runner("base")).tokenizer.encode
    questions = [
        Question("when the dog and the cat sat the cat saw the", " dog", (" cat",)),
        Question("the rain and the dog", " rain", (" dog",)),
        Question("there is no such word", " mat", (" hat",)),
        Question("the cat and the dog", " dog", (" the",)),  # one of the others begins the prompt
    ]
    movers = name_movers(model, questions, encode)
    expected = np.zeros((2, 2, 4))
    for question in (*questions[:2], questions[3]):
        ids = encode(question.prompt)
        pieces = [tokenizer().decode([token]) for token in ids]
        assert "".join(pieces) == question.prompt
        ends = np.cumsum([len(piece) for piece in pieces])
        output = model.run(ids, names_filter=PATTERNS)
        for kind, word in enumerate([question.answer, question.others[0]]):
            padded = f" {question.prompt}"  # so that what begins it has a space before it, too
            for begin in range(len(padded)):
                if padded.startswith(word, begin):
                    inside = [i for i, end in enumerate(ends) if begin <= end - 1 < begin + len(word) - 1]
                    for layer in range(2):
                        pattern = output.activations[f"blocks.{layer}.attn.hook_pattern"][0]
                        expected[kind, layer] += pattern[:, -1, inside].sum(-1)
    close([movers.answer, movers.others], expected / 3)
    assert movers.asked == 3
    with pytest.raises(ValueError, match="No question's answer stands in its prompt"):
        name_movers(model, questions[2:3], encode)


# Loops

FRESH = list(range(100, 200))


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (FRESH, None),
        ([], None),
        ([*FRESH[:50], *[1] * 3, *FRESH[50:]], (1, 50)),
        ([*FRESH[:50], *[1] * 2, *FRESH[50:]], None),
        ([*FRESH[:40], *[1, 2, 3] * 3, *FRESH[60:]], (3, 40)),
        ([*FRESH[:40], *[1, 2, 3] * 2, 1, 2, *FRESH[60:]], None),
        ([*FRESH[:58], *range(14), *range(14), *range(14)], (14, 58)),
        ([*FRESH[:72], *range(14), *range(14)], (14, 72)),  # the end leaves no room for a third time
        ([*FRESH[:72], *range(14), *range(14), 5], None),  # but it went on otherwise
        ([*FRESH[:73], *range(14), *range(13)], None),
        ([*FRESH[:40], *range(15), *range(15), *range(15), *range(15)], None),  # not shorter than 15
        ([*FRESH[:85], *[1, 2, 3, 4, 5, 6] * 2, 1, 2, 3], (6, 85)),
        ([*FRESH[:88], *[1, 2, 3, 4, 5, 6] * 2], None),  # twice six tokens may be a list
        ([n for item in range(25) for n in (1, 100 + item, 2, 3)], None),  # a list: "- item: a\n- other: a\n"
        ([n for item in range(20) for n in (1, 100 + item // 4, 2, 3, 4)], (5, 0)),
    ],
)
def test_loops(ids: list[int], found: tuple[int, int] | None) -> None:
    assert loop(ids) == found
