"""What each head attends to at the end of a question: the one who receives, or the others."""

from __future__ import annotations

__all__ = ["PATTERNS", "NameMovers", "name_movers"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recipe.passes import Floats, batched, padded
from recipe.tasks import Question
from onnxlens.runtime._running.runner import Runner

PATTERNS = "blocks.*.attn.hook_pattern"


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
    sums, asked = np.zeros((2, runner.config.n_layers, runner.config.n_heads)), 0
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
