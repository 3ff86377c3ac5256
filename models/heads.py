"""What each head attends to: repeated tokens, the token before, the one who receives."""

from __future__ import annotations

__all__ = ["PATTERNS", "Heads", "NameMovers", "induction", "name_movers"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxlens.models.passes import Floats, Ints, batched, padded
from onnxlens.models.tasks import Question
from onnxlens.runtime.runner import Runner

PATTERNS = "blocks.*.attn.hook_pattern"


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

    The induction score is the mean of the attention pattern along the induction stripe, as in TransformerLens's demo,
    over the second half; Olsson et al., "In-context Learning and Induction Heads", call it the prefix-matching score.
    The two others are means along other diagonals.

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


@dataclass(frozen=True)
class NameMovers:
    """Where the last token of a prompt looks; means over questions, summed over the tokens of all mentions.

    Attributes:
        answer: [layers, heads], attention to the answer's mentions.
        others: [layers, heads], attention to the mentions of all other candidates.
        asked: how many questions these are means of.
    """

    answer: Floats
    others: Floats
    asked: int


def name_movers(
    runner: Runner, questions: Sequence[Question], encode: Callable[[str], list[int]], *, rows: int = 32
) -> NameMovers:
    """Where the last token of a prompt looks: at the answer's earlier mention, or at the others'.

    The name movers of Wang et al., "Interpretability in the Wild", look at the answer, and then copy it; whether a head
    copies is not measured here.

    Args:
        runner: the model.
        questions: questions whose answer and others stand in the prompt, with a space before them or at its beginning;
            those whose answer does not are left out.
        encode: turns text into token ids.
        rows: questions in a pass.

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
    for batch in batched(usable, rows):
        ids, mask = padded([row for row, _ in batch])
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
    return NameMovers(answer, others, asked)


def _mentions(ids: list[int], texts: Sequence[str], encode: Callable[[str], list[int]]) -> list[int]:
    """Positions of all tokens of all mentions of the texts, which have a space before them but where `ids` begin."""
    found: set[int] = set()
    for text in texts:
        word, first = encode(text), encode(text.lstrip())
        if ids[: len(first)] == first:
            found.update(range(len(first)))
        for place in range(len(ids) - len(word) + 1):
            if ids[place : place + len(word)] == word:
                found.update(range(place, place + len(word)))
    return sorted(found)


def _patterns(activations: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    return (activations[f"blocks.{layer}.attn.hook_pattern"] for layer in range(len(activations)))
