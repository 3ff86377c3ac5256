"""Greedy continuations, and whether they fall into a loop."""

from __future__ import annotations

__all__ = ["greedy", "loop"]

from collections.abc import Sequence
from itertools import groupby

from onnxlens.runtime._running.generation import generate_ids
from onnxlens.runtime._running.runner import Runner


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
