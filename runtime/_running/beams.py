"""Beam search: the most probable continuations that a search of limited width finds.

Sources: Lowerre 1976, "The Harpy Speech Recognition System", for the search; Wu et al. 2016, "Google's Neural Machine
Translation System", section 7, for dividing by a power of the length; Vijayakumar et al. 2016, "Diverse Beam Search",
for groups. Which beams are kept, when one has ended, and when the search ends is as in transformers' `generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from onnxlens.runtime._numbers import is_boolean, is_integer, is_number
from onnxlens.runtime._running.continuations import Continuations
from onnxlens.runtime._running.logits import log_softmax
from onnxlens.runtime.errors import InputError

__all__ = ["Adjust", "Beam", "EarlyStopping", "beam_search"]

# From log-probabilities [B, V], the texts so far [B, T] and the number of tokens generated, to adjusted ones [B, V].
Adjust = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
EarlyStopping = bool | Literal["never"]

_MOST = 100  # of a penalty; the power of a length by more overflows


@dataclass(frozen=True)
class Beam:
    """A continuation that has ended.

    Attributes:
        ids: its tokens, without the prompt, with the token that ended it.
        logprob: the sum of its tokens' log-probabilities, in nats, as the model gave them.
        score: the sum of the adjusted log-probabilities, divided by the number of tokens to the power of the length
            penalty.
    """

    ids: tuple[int, ...]
    logprob: float
    score: float


@dataclass
class _Group:
    """One search: the rows that go on, and the best that have ended."""

    width: int
    rows: list[int] = field(default_factory=lambda: [0])
    scores: list[float] = field(default_factory=lambda: [0.0])  # sums of adjusted log-probabilities
    logprobs: list[float] = field(default_factory=lambda: [0.0])  # sums of the model's own
    ended: list[Beam] = field(default_factory=list)
    open: bool = True  # whether a row that goes on could still become better than those that have ended


class _Step(NamedTuple):
    """A row continued by a token, and its sums with that token."""

    row: int
    token: int
    score: float
    logprob: float


def beam_search(
    texts: Continuations,
    *,
    num_beams: int,
    max_new_tokens: int,
    end_tokens: Collection[int] = (),
    adjust: Adjust = lambda logprobs, ids, step: logprobs,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    num_beam_groups: int = 1,
    diversity_penalty: float = 0.0,
) -> list[Beam]:
    """Searches for the most probable continuations.

    Args:
        texts: the prompt on a model, not started yet.
        num_beams: how many continuations are kept at each step.
        max_new_tokens: the most tokens that each may have.
        end_tokens: the tokens that end a text.
        adjust: changes the log-probabilities before they count.
        length_penalty: the power of the length by which a sum of log-probabilities is divided; above 0 favours long
            texts, below 0 short ones.
        early_stopping: True ends when there are `num_beams` texts; False when rows that go on are no better than the
            worst of them, at their present length; `never` when they cannot become better at any length.
        num_beam_groups: how many groups the beams are divided into, which are searched one after the other.
        diversity_penalty: subtracted from a token's log-probability for each beam of an earlier group that has just
            taken it.

    Returns:
        The best of each group, best first, `num_beams` in all, or fewer where the vocabulary is too small.

    Raises:
        InputError: the value of an option cannot be used.
    """
    _check(num_beams, length_penalty, early_stopping, num_beam_groups, diversity_penalty)
    if not isinstance(early_stopping, str):
        early_stopping = bool(early_stopping)
    length_penalty, diversity_penalty = float(length_penalty), float(diversity_penalty)
    # Candidates for each beam: enough that beams remain when many end, as in transformers.
    kept = max(2, 1 + len(end_tokens))
    groups = [_Group(num_beams // num_beam_groups) for _ in range(num_beam_groups)]
    output = texts.start()
    for step in range(max_new_tokens):
        own = log_softmax(output.logits[:, -1])  # [rows, V]
        logprobs = adjust(own, texts.texts, step)  # [rows, V]
        last = step + 1 == max_new_tokens
        taken = np.zeros(logprobs.shape[1])  # how often earlier groups have taken each token
        going: list[tuple[int, int]] = []  # of all groups: row and token
        for group in groups:
            if not group.rows:
                continue
            totals = np.array(group.scores)[:, np.newaxis] + logprobs[group.rows] - diversity_penalty * taken
            chosen: list[_Step] = []
            full = _full(group, early_stopping)
            for rank, (index, token, total) in enumerate(_best(totals, kept * group.width)):
                row = group.rows[index]
                logprob = group.logprobs[index] + float(own[row, token])
                if last or token in end_tokens:
                    if rank < group.width and group.open and not full:
                        ids = (*texts.ids[row].tolist(), token)
                        group.ended.append(Beam(ids, logprob, total / len(ids) ** length_penalty))
                elif len(chosen) < group.width:
                    chosen.append(_Step(row, token, total, logprob))
            group.ended = sorted(group.ended, key=lambda beam: -beam.score)[: group.width]
            length = max_new_tokens if early_stopping == "never" and length_penalty > 0 else step + 1
            if len(group.ended) == group.width and chosen:
                group.open = group.open and chosen[0].score / length**length_penalty > group.ended[-1].score
            if not group.open or _full(group, early_stopping):
                chosen = []
            group.rows = list(range(len(going), len(going) + len(chosen)))
            group.scores = [one.score for one in chosen]
            group.logprobs = [one.logprob for one in chosen]
            going += [(one.row, one.token) for one in chosen]
            np.add.at(taken, [one.token for one in chosen], 1)
        if not going:
            break
        output = texts.advance(*zip(*going, strict=True))
    return sorted((beam for group in groups for beam in group.ended), key=lambda beam: -beam.score)


def _full(group: _Group, early_stopping: EarlyStopping) -> bool:
    return early_stopping is True and len(group.ended) == group.width


def _best(totals: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """Row, token and total of the largest totals [rows, V], largest first."""
    flat = totals.ravel()
    count = min(count, int((flat > -np.inf).sum()))
    largest = np.argpartition(-flat, count - 1)[:count] if count else np.zeros(0, np.int64)
    ordered = largest[np.argsort(-flat[largest], kind="stable")]
    rows, tokens = np.divmod(ordered, totals.shape[1])
    return list(zip(rows.tolist(), tokens.tolist(), flat[ordered].tolist(), strict=True))


def _check(
    num_beams: object, length_penalty: object, early_stopping: object, num_beam_groups: object, diversity: object
) -> None:
    if not is_integer(num_beams) or num_beams < 1:
        raise InputError(f"num_beams must be a whole number of at least 1, not {num_beams!r}.")
    if not is_integer(num_beam_groups) or num_beam_groups < 1 or num_beams % num_beam_groups:
        raise InputError(
            f"num_beam_groups must divide num_beams, {num_beams}, into groups of one size, not {num_beam_groups!r}."
        )
    for name, value, least in (("length_penalty", length_penalty, -_MOST), ("diversity_penalty", diversity, 0)):
        if not is_number(value) or not least <= value <= _MOST:
            raise InputError(f"{name} must be a number from {least} to {_MOST}, not {value!r}.")
    if not is_boolean(early_stopping) and not (isinstance(early_stopping, str) and early_stopping == "never"):
        raise InputError(f"early_stopping must be True, False or 'never', not {early_stopping!r}.")
