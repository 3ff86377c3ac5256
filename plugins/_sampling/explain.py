"""Explains why a token was chosen: the effect of each stage of a chain, and where the draw fell."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from html import escape

import numpy as np

from onnxlens.plugins._sampling.candidates import Candidates
from onnxlens.plugins._sampling.sampler import Chain, Context, Sampler, apply, softmax
from onnxlens.runtime._result import Result, plain
from onnxlens.runtime._text.token_text import quoted_token
from onnxlens.runtime.errors import InputError

__all__ = ["STAGE_HEADINGS", "Explanation", "Likely", "Stage", "explain"]

STAGE_HEADINGS = ("sampler", "tokens left", "removed", "their probability", "moved")  # of a table of stages


@dataclass(frozen=True)
class Stage(Result):
    """The effect of one sampler of a chain on the distribution.

    Attributes:
        sampler: the sampler, with its options.
        tokens: the number of tokens that remain.
        removed_tokens: the number of tokens that it ruled out.
        removed: the probability of these before.
        moved: the total variation distance between the distributions before and after: half of the sum of the absolute
            differences.
    """

    sampler: str
    tokens: int
    removed_tokens: int
    removed: float
    moved: float


@dataclass(frozen=True)
class Likely(Result):
    """A token that could have been chosen.

    Attributes:
        id: its id.
        token: its text for a reader, with bytes of a part of a letter as escapes; None where there is no tokenizer.
        model_probability: the model's own probability.
        probability: the probability after all samplers, before the choice.
    """

    id: int
    token: str | None
    model_probability: float
    probability: float


@dataclass(frozen=True)
class Explanation:
    """Why a token was chosen.

    Attributes:
        stages: the effect of each sampler, in order, without the one that chose.
        choice: the sampler that chose, with its options; None where a single token was left.
        tokens: the number of tokens that could have been chosen.
        probabilities: the final distribution, from which the token was chosen, [V] float64.
        logits: those of the model, and those that each of the stages left, [V] each.
        candidates: its most probable tokens, the most probable first.
        chosen: the token that was chosen.
        number: the random number in [0, 1), if the choice was a draw with one.
        interval: the cumulative probability before and after the chosen token, in the order of ids; the number lies
            between the two.
    """

    stages: tuple[Stage, ...]
    choice: str | None
    tokens: int
    probabilities: np.ndarray = field(repr=False, compare=False)
    candidates: tuple[Likely, ...]
    chosen: Likely
    number: float | None
    interval: tuple[float, float]
    logits: tuple[np.ndarray, ...] = field(default=(), repr=False, compare=False)

    @property
    def reason(self) -> str:
        """How the token was chosen from those that were left, as a sentence without its period."""
        how = f"{self.choice} of {self.tokens:,}" if self.choice else "the only token left"
        low, high = self.interval
        fell = f"; {self.number:.4f} fell between {low:.4f} and {high:.4f}" if self.number is not None else ""
        probabilities = f"{self.chosen.probability:.2%}, by the model {self.chosen.model_probability:.2%}"
        return f"{how}{fell}; its probability {probabilities}"

    def _repr_html_(self) -> str:
        from onnxlens.runtime._activations.views import bar, table

        name = quoted_token(self.chosen.token) if self.chosen.token is not None else f"token {self.chosen.id}"
        stages = [
            (s.sampler, f"{s.tokens:,}", f"{s.removed_tokens:,}", f"{s.removed:.2%}", f"{s.moved:.2%}")
            for s in self.stages
        ]
        candidates = [
            (
                quoted_token(one.token) if one.token is not None else "",
                str(one.id),
                f"{one.model_probability:.2%}",
                f"{one.probability:.2%}",
                bar(one.probability) + (" ← chosen" if one.id == self.chosen.id else ""),
            )
            for one in self.candidates
        ]
        return (
            f"<div><b>{escape(name)}</b> {escape(self.reason)}"
            + (table(STAGE_HEADINGS, stages) if stages else "")
            + table(("candidate", "id", "by the model", "in the end", ""), candidates)
            + "</div>"
        )

    def to_dict(self) -> dict[str, object]:
        """The same for JSON, with the most probable candidates in place of all probabilities."""
        return {
            "stages": plain(self.stages),
            "choice": self.choice,
            "tokens": self.tokens,
            "candidates": plain(self.candidates),
            "chosen": plain(self.chosen),
            "number": self.number,
            "interval": list(self.interval),
        }


def explain(sampler: Sampler, logits: np.ndarray, context: Context, *, top: int = 10) -> tuple[np.ndarray, Explanation]:
    """Applies a sampler to one row, and explains the choice.

    Args:
        sampler: a chain, or a single one.
        logits: the model's, [1, V].
        context: the context; it draws the same random numbers as without an explanation.
        top: how many candidates to list.

    Returns:
        The sampler's result, [1, V], and the explanation.

    Raises:
        InputError: there are several rows, or the sampler fails or does not leave one token.
    """
    if len(logits) != 1:
        raise InputError(f"A choice is explained for one row, not for {len(logits)}.")
    stages = list(sampler.stages if isinstance(sampler, Chain) else (sampler,))
    last = stages.pop() if stages and stages[-1].chooses else None
    model = before = softmax(logits)[0]
    done, rows = [], [logits[0]]
    for stage in stages:
        left = apply(stage, logits, context)
        rows.append(left[0])
        after = softmax(left)[0]
        done.append(_stage(stage, logits[0], before, left[0], after))
        logits, before = left, after
    number = None
    if last is not None and last.inverts:
        number = float(copy.deepcopy(context.rng).random(1)[0])  # the number that it will draw
    left = logits if last is None else apply(last, logits, context)
    found = np.flatnonzero(left[0] != -np.inf)
    if len(found) != 1:
        raise InputError(f"A choice is explained where one token is left, and the sampler leaves {len(found)}.")

    def likely(token: int) -> Likely:
        text = None if context.tokenizer is None else context.tokenizer.pieces([token])[0]
        return Likely(token, text, float(model[token]), float(before[token]))

    possible = np.flatnonzero(logits[0] != -np.inf)
    best = possible[np.argsort(-before[possible], kind="stable")[:top]].tolist()
    chosen = int(found[0])
    # Summed in the same way as in `multinomial`, so that the interval is exact.
    listed = Candidates.of(logits)
    sums = np.cumsum(listed.probabilities[0])
    place = int(np.flatnonzero((listed.ids[0] == chosen) & (listed.logits[0] != -np.inf))[0])
    interval = float(sums[place - 1] / sums[-1]) if place else 0.0, float(sums[place] / sums[-1])
    return left, Explanation(
        tuple(done),
        None if last is None else repr(last),
        len(possible),
        before,
        tuple(map(likely, best)),
        likely(chosen),
        number,
        interval,
        tuple(rows),
    )


def _stage(sampler: Sampler, logits: np.ndarray, before: np.ndarray, left: np.ndarray, after: np.ndarray) -> Stage:
    """The effect of a stage, from logits and probabilities before and after, each [V]."""
    there, stays = logits != -np.inf, left != -np.inf
    removed = there & ~stays
    return Stage(
        repr(sampler),
        int(stays.sum()),
        int(removed.sum()),
        float(before[removed].sum()),
        float(np.abs(after - before).sum() / 2),
    )
