"""How many bits a model needs for held-out text."""

from __future__ import annotations

__all__ = ["HeldOut", "held_out", "token_bits", "windows"]

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxlens._lens import Lens
from recipe.corpus import END_OF_TEXT, part, token_ids
from recipe.passes import Floats, Ints, batched
from onnxlens.runtime._running.logits import log_softmax
from onnxlens.runtime._running.runner import Runner


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
    ids = token_ids(work, kind, "heldout").astype(np.int64)
    text = part(work, kind, "heldout", ".txt").read_bytes().decode()
    if ids.max() >= lens.config.d_vocab or lens.to_string(ids) != text:
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
    length = min(runner.config.n_ctx, len(ids))
    bits = np.full(len(ids), np.nan)
    for batch in batched(windows(len(ids), length, stride), rows):
        logits = runner.run(
            np.stack([stream[begin : begin + length] for begin, _ in batch])
        ).logits  # [rows, length, V]
        for row, (begin, first) in zip(logits, batch, strict=True):
            answers = ids[first : begin + length]
            likely = log_softmax(row[first - begin :])  # [scored, V]
            bits[first : begin + length] = -likely[np.arange(len(answers)), answers] / math.log(2)
    return bits
