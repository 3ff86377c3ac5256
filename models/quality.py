"""How good a small GPT-2 is: held-out text, questions with one answer, repeated random tokens, loops.

Everything is read from a bundle on ONNX Runtime, without PyTorch; `benchmarks/model.py` makes the model card's table
of it. Logarithms are of float32 logits, taken in float64.
"""

from __future__ import annotations

__all__ = [
    "Answers",
    "Heads",
    "HeldOut",
    "NextTokens",
    "Vocabulary",
    "answers",
    "greedy",
    "held_out",
    "induction",
    "log_softmax",
    "loop",
    "name_movers",
    "next_tokens",
    "parameters",
    "token_bits",
    "windows",
]

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from onnxlens.lens import Lens
from onnxlens.models.corpus import END_OF_TEXT, part
from onnxlens.models.tasks import Question
from onnxlens.runtime.bundle import TOKENIZER, Bundle, parameter_shapes
from onnxlens.runtime.generation import generate_ids
from onnxlens.runtime.runner import Runner

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
NextTokens = Callable[[Sequence[Sequence[int]]], Floats]  # rows of token ids -> log-probabilities [rows, V]

T = TypeVar("T")

PATTERNS = "blocks.*.attn.hook_pattern"


def _batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Natural logarithms of the probabilities over the last axis, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    found: Floats = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return found


def parameters(bundle: Bundle) -> int:
    """How many parameters a model has; tied embeddings count once."""
    return sum(math.prod(shape) for shape in parameter_shapes(bundle.config).values())


# Held-out text


@dataclass(frozen=True)
class HeldOut:
    """Held-out documents: their token ids, each document with `<|endoftext|>` last, and the bytes of their text."""

    ids: Ints
    size: int

    def bits_per_byte(self, bits: Floats) -> float:
        """Bits of all tokens, by the UTF-8 bytes of the text.

        The end of a text has no bytes; its bits count nevertheless, since a model has to say where a text ends.

        Args:
            bits: -log2 of each token's probability, [N].
        """
        return float(bits.sum()) / self.size


def held_out(lens: Lens, work: Path, kind: str) -> HeldOut:
    """Reads the held-out text of one kind, `docstrings` or `stories`.

    Raises:
        FileNotFoundError: the corpus step has not been run.
        ValueError: the token ids are not those of the text in the bundle's vocabulary.
    """
    ids = np.load(part(work, kind, "heldout", ".npy")).astype(np.int64)
    text = part(work, kind, "heldout", ".txt").read_bytes().decode()
    if ids.max() >= lens.config.vocab_size or lens.to_string(ids) != text:
        raise ValueError(
            f"The held-out {kind} in {work} are not in the vocabulary of {lens.runner.bundle.name}: give the corpus "
            "folder that it was trained on."
        )
    return HeldOut(ids, len(text.replace(END_OF_TEXT, "").encode()))


def windows(count: int, context: int, stride: int) -> list[tuple[int, int]]:
    """Windows that slide over a text such that each token is scored once.

    The first window scores all of its tokens; each later one begins `stride` tokens further on and scores those that
    no earlier one has, so each after at least `context - stride` tokens of context. The last is moved back to end with
    the text.

    Args:
        count: tokens in the text.
        context: tokens in a window, fewer only where the text is shorter.
        stride: how far windows move; `context` for windows that do not overlap.

    Returns:
        For each window, where it begins and the first token it scores.

    Raises:
        ValueError: the stride is not between 1 and `context`.
    """
    if not 1 <= stride <= context:
        raise ValueError(f"The stride must be between 1 and the context, {context}; it is {stride}.")
    length = min(context, count)
    found: list[tuple[int, int]] = []
    scored = 0
    while scored < count:
        start = min(len(found) * stride, count - length)
        found.append((start, scored))
        scored = start + length
    return found


def token_bits(runner: Runner, ids: Ints, start: int, stride: int, *, rows: int = 8) -> Floats:
    """Bits of each token given the tokens before it, as `windows` gives them.

    The documents are one packed stream, as in training: a document begins after the `<|endoftext|>` of the one
    before, which stays in sight as far as the window goes. The first document begins after `start`.

    Args:
        runner: the model.
        ids: token ids, [N].
        start: the id of `<|endoftext|>`.
        stride: see `windows`.
        rows: windows in a pass.

    Returns:
        -log2 of each token's probability, [N].
    """
    stream = np.concatenate([[start], ids])
    length = min(runner.config.n_positions, len(ids))
    bits = np.full(len(ids), np.nan)
    for batch in _batches(windows(len(ids), length, stride), rows):
        logits = runner.run(
            np.stack([stream[begin : begin + length] for begin, _ in batch])
        ).logits  # [rows, length, V]
        for row, (begin, first) in zip(logits, batch, strict=True):
            answers = ids[first : begin + length]
            likely = log_softmax(row[first - begin :])  # [scored, V]
            bits[first : begin + length] = -likely[np.arange(len(answers)), answers] / math.log(2)
    return bits


# Questions


class Vocabulary:
    """The tokens of a byte-level vocabulary by how they begin.

    Args:
        tokenizer: the tokenizer.

    Attributes:
        ordinary: ids of all tokens that are text, so without `<|endoftext|>`, ascending.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        special = tokenizer.get_added_tokens_decoder()
        self._texts = {token: text for text, token in tokenizer.get_vocab().items() if token not in special}
        self.ordinary: Ints = np.array(sorted(self._texts))
        self._beginning: dict[int, Ints] = {}

    @classmethod
    def of(cls, bundle: Bundle) -> Vocabulary:
        """The vocabulary of a bundle."""
        return cls(Tokenizer.from_file(str(bundle.path / TOKENIZER)))

    def beginning(self, token: int) -> Ints:
        """Ids of all tokens whose bytes begin with those of a token, which is one of them."""
        if token not in self._beginning:
            text = self._texts[token]  # byte-level: one character for each byte
            self._beginning[token] = np.array([one for one, other in self._texts.items() if other.startswith(text)])
        return self._beginning[token]


@dataclass(frozen=True)
class Answers:
    """How questions were answered.

    Attributes:
        right: for each question, whether the answer is likelier than every other, [N].
        greedy: for each, whether greedy decoding says it, [N].
        margins: for each, by how many nats the answer is likelier than the likeliest other, [N].
    """

    right: NDArray[np.bool_]
    greedy: NDArray[np.bool_]
    margins: Floats

    @property
    def share(self) -> float:
        """The share of right answers."""
        return float(self.right.mean())


def next_tokens(runner: Runner, *, rows: int = 32) -> NextTokens:
    """A model as a function from rows of token ids, of any lengths, to log-probabilities of the next token."""

    def predict(texts: Sequence[Sequence[int]]) -> Floats:
        found = np.empty((len(texts), runner.config.vocab_size))
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for batch in _batches(order, rows):
            ids, mask = _padded([texts[index] for index in batch])
            found[list(batch)] = log_softmax(runner.run(ids, mask, logits="last").logits[:, 0])
        return found

    return predict


def answers(
    questions: Sequence[Question],
    encode: Callable[[str], list[int]],
    vocabulary: Vocabulary,
    predict: NextTokens,
    *,
    chunk: int = 64,
) -> Answers:
    """Asks questions, as `onnxlens predict` would: the prompt is read as it stands.

    The probability that the text goes on with a candidate is the product over its tokens, of which the last stands for
    all tokens whose text begins with its own, so that `).` counts for `)`. Where a candidate begins with another
    (` looks` and ` look`), what goes on with the longer one does not count for the shorter. A question is answered
    rightly if the answer is likelier than every other candidate. Greedy decoding says a candidate if each of its
    tokens is the likeliest, and the likeliest in place of the last begins with its text.

    Args:
        questions: the questions.
        encode: turns text into token ids.
        vocabulary: the tokens.
        predict: the model.
        chunk: questions asked at once.

    Raises:
        ValueError: two candidates are the same, or the tokens of one are others in the prompt's company, so that its
            score would be of something the model never saw.
    """
    right, greedy, margins = [], [], []
    for some in _batches(questions, chunk):
        asked = [_candidates(question, encode) for question in some]
        places: dict[tuple[int, ...], int] = {}
        for prompt, candidates in asked:
            for candidate in candidates:
                for size in range(len(candidate)):
                    places.setdefault((*prompt, *candidate[:size]), len(places))
        likely = predict(list(places))
        for question, (prompt, candidates) in zip(some, asked, strict=True):
            scores, said = [], []
            for candidate in candidates:
                rows = [likely[places[*prompt, *candidate[:size]]] for size in range(len(candidate))]
                last = vocabulary.beginning(candidate[-1])
                before = sum(float(row[token]) for row, token in zip(rows, candidate[:-1], strict=False))
                scores.append(before + float(np.logaddexp.reduce(rows[-1][last])))
                best = [int(row.argmax()) for row in rows]
                said.append(best[:-1] == candidate[:-1] and best[-1] in last)
            scores, said = _apart([question.answer, *question.others], scores, said)
            margins.append(scores[0] - max(scores[1:]))
            right.append(margins[-1] > 0)
            greedy.append(said[0])
    return Answers(np.array(right), np.array(greedy), np.array(margins))


def _candidates(question: Question, encode: Callable[[str], list[int]]) -> tuple[list[int], list[list[int]]]:
    texts = [question.answer, *question.others]
    if len(set(texts)) < len(texts):
        raise ValueError(f"Two candidates after {question.prompt!r} are the same: {texts}.")
    prompt, found = encode(question.prompt), [encode(text) for text in texts]
    for text, candidate in zip(texts, found, strict=True):
        if encode(question.prompt + text) != [*prompt, *candidate]:
            raise ValueError(f"The tokens of {text!r} are others after {question.prompt!r} than alone.")
    return prompt, found


def _apart(texts: list[str], scores: list[float], said: list[bool]) -> tuple[list[float], list[bool]]:
    """Takes from each candidate what belongs to longer ones that begin with it, the longest first."""
    scores, said = list(scores), list(said)
    for one in sorted(range(len(texts)), key=lambda index: -len(texts[index])):
        for other, text in enumerate(texts):
            if other != one and text.startswith(texts[one]):
                left = -math.expm1(scores[other] - scores[one])
                scores[one] = scores[one] + math.log(left) if left > 0 else -math.inf
                said[one] = said[one] and not said[other]
    return scores, said


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Rows padded on the left, and the mask of what is real, both [rows, longest]."""
    longest = max(map(len, rows))
    ids = np.array([[0] * (longest - len(row)) + list(row) for row in rows])
    mask = np.array([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


# Heads


@dataclass(frozen=True)
class Heads:
    """What a model does with random tokens said twice.

    Attributes:
        accuracy: share of the tokens of the second half, from its second token on, that are the model's likeliest.
        induction: [layers, heads], mean attention from each token of the second half to the token after its earlier
            occurrence.
        previous: the same to the token just before, from all tokens but the first.
        duplicate: the same from each token of the second half to its earlier occurrence.
    """

    accuracy: float
    induction: Floats
    previous: Floats
    duplicate: Floats


def induction(
    runner: Runner, tokens: Ints, start: int, *, length: int, count: int = 64, seed: int = 0, rows: int = 8
) -> Heads:
    """Lets a model read random tokens that are said twice, after `<|endoftext|>`.

    The scores are those of TransformerLens's `head_detector` and of Olsson et al., "In-context Learning and Induction
    Heads": means of the attention pattern along a diagonal.

    Args:
        runner: the model.
        tokens: ids to draw from, uniformly and each for itself.
        start: the id of `<|endoftext|>`.
        length: tokens before they repeat.
        count: sequences.
        seed: another one draws others.
        rows: sequences in a pass.
    """
    half = np.random.default_rng(seed).choice(tokens, size=(count, length))
    ids = np.concatenate([np.full((count, 1), start), half, half], axis=1)  # [count, 1 + 2 * length]
    second = np.arange(length + 1, 2 * length + 1)
    every = np.arange(1, 2 * length + 1)
    correct, sums = 0, np.zeros((3, runner.config.n_layer, runner.config.n_head))
    for batch in np.array_split(ids, range(rows, count, rows)):
        output = runner.run(batch, names_filter=PATTERNS)
        guesses = output.logits[:, second[:-1]].argmax(-1)  # [rows, length - 1]
        correct += int((guesses == batch[:, second[1:]]).sum())
        for layer, pattern in enumerate(_patterns(output.activations)):  # [rows, H, Q, K]
            for kind, (queries, back) in enumerate([(second, length - 1), (every, 1), (second, length)]):
                sums[kind, layer] += pattern[:, :, queries, queries - back].mean(-1).sum(0)
    return Heads(correct / (count * (length - 1)), *(sums / count))


def name_movers(
    runner: Runner, questions: Sequence[Question], encode: Callable[[str], list[int]], *, rows: int = 32
) -> tuple[Floats, Floats]:
    """Where the last token of a prompt looks: at the answer's earlier mention, or at the others'.

    Heads that look at the answer and copy it are the name movers of Wang et al., "Interpretability in the Wild".

    Args:
        runner: the model.
        questions: questions whose answer and others stand in the prompt, with a space before them.
        encode: turns text into token ids.
        rows: questions in a pass.

    Returns:
        Mean attention, summed over the tokens of all mentions, from the last token to the answer and to the others,
        each [layers, heads].

    Raises:
        ValueError: no answer stands in its prompt.
    """
    sums, asked = np.zeros((2, runner.config.n_layer, runner.config.n_head)), 0
    prompts = [(encode(question.prompt), question) for question in questions]
    found = [
        (ids, [_mentions(ids, [question.answer], encode), _mentions(ids, question.others, encode)])
        for ids, question in prompts
    ]
    usable = sorted((entry for entry in found if entry[1][0]), key=lambda entry: len(entry[0]))
    for batch in _batches(usable, rows):
        ids, mask = _padded([row for row, _ in batch])
        output = runner.run(ids, mask, names_filter=PATTERNS, logits="last")
        for layer, pattern in enumerate(_patterns(output.activations)):  # [rows, H, Q, K]
            for row, (real, mentions) in enumerate(batch):
                padding = ids.shape[1] - len(real)
                for kind, positions in enumerate(mentions):
                    sums[kind, layer] += pattern[row, :, -1, [padding + place for place in positions]].sum(0)
        asked += len(batch)
    if not asked:
        raise ValueError("No question's answer stands in its prompt.")
    answer, others = sums / asked
    return answer, others


def _mentions(ids: list[int], texts: Sequence[str], encode: Callable[[str], list[int]]) -> list[int]:
    """Positions of all tokens of all mentions of the texts."""
    found: set[int] = set()
    for text in texts:
        word = encode(text)
        for place in range(len(ids) - len(word) + 1):
            if ids[place : place + len(word)] == word:
                found.update(range(place, place + len(word)))
    return sorted(found)


def _patterns(activations: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    return (activations[f"blocks.{layer}.attn.hook_pattern"] for layer in range(len(activations)))


# Continuations


def greedy(runner: Runner, prompt: list[int], count: int) -> list[int]:
    """Continues a prompt by the likeliest token always; `<|endoftext|>` is a token like the others."""
    steps = generate_ids(
        runner, prompt, lambda logits, ids, step: int(logits.argmax()), max_new_tokens=count, overflow="slide"
    )
    return [step.token for step in steps]


def loop(ids: Sequence[int], *, shorter_than: int = 15) -> tuple[int, int] | None:
    """Whether a continuation falls into a loop.

    It does, with period p, if the same p tokens stand three times in a row anywhere in it; or if it ends within such
    a loop for which there was no more room: with the same p tokens twice in a row, in a stretch of period p that is
    at least `shorter_than` tokens long.

    Args:
        ids: the continuation's token ids.
        shorter_than: periods from this on are no loops.

    Returns:
        The smallest period and where its stretch begins; None for no loop.
    """
    for period in range(1, shorter_than):
        same = [one == other for one, other in zip(ids, ids[period:], strict=False)]  # a run of n: n + period tokens
        place = 0
        for equal, run in groupby(same):
            size = len(list(run))
            at_end = place + size == len(same) and size >= period and size + period >= shorter_than
            if equal and (size >= 2 * period or at_end):
                return period, place
            place += size
    return None
