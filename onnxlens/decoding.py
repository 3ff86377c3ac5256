"""Searches for continuations: beam search, contrastive search, the best of several samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxlens._sampling import AnySampler, Choice, chain_of, checked_seed, find_sampler
from onnxlens.plugins.samplers import Context, Sampler
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._result import Result
from onnxlens.runtime._running.beams import EarlyStopping
from onnxlens.runtime._running.beams import beam_search as search
from onnxlens.runtime._running.continuations import Continuations
from onnxlens.runtime._running.contrastive import NORMALIZED
from onnxlens.runtime._running.contrastive import contrastive_search as search_contrastively
from onnxlens.runtime._running.logits import log_softmax
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["Hypothesis", "beam_search", "best_of", "contrastive_search"]


@dataclass(frozen=True)
class Hypothesis(Result):
    """A continuation that was found.

    Attributes:
        ids: its tokens, without the prompt; the token that ended the text is the last of them.
        text: its text, without the token that ended it.
        score: the number by which it was ranked.
        logprob: the sum of its tokens' log-probabilities, in nats, as the model gave them.
        finish_reason: `end_of_text`, or `length`.
    """

    ids: tuple[int, ...]
    text: str
    score: float
    logprob: float
    finish_reason: Literal["end_of_text", "length"]


def beam_search(
    lens: Lens,
    text: str | Sequence[int] | np.ndarray,
    *,
    num_beams: int = 4,
    num_return_sequences: int = 1,
    max_new_tokens: int = 40,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    num_beam_groups: int = 1,
    diversity_penalty: float = 0.0,
    sampler: AnySampler | None = None,
) -> list[Hypothesis]:
    """Finds probable continuations by beam search, with several groups by diverse beam search.

    Args:
        lens: the model.
        text: the prompt, or its token ids.
        num_beams: how many continuations are kept at each step.
        num_return_sequences: how many are returned.
        max_new_tokens: the most tokens that each may have.
        length_penalty: the power of the length by which a sum of log-probabilities is divided; above 0 favours long
            texts, below 0 short ones.
        early_stopping: True ends when there are `num_beams` texts; False when rows that go on are no better than the
            worst of them, at their present length; `never` when they cannot become better at any length.
        num_beam_groups: how many groups the beams are divided into, which are searched one after the other.
        diversity_penalty: subtracted from a token's log-probability for each beam of an earlier group that has just
            taken it (Vijayakumar et al. 2016); above 0 where there are groups.
        sampler: applied to the log-probabilities before they count, such as `NoRepeatNGram(3)`, or a chain as text.
            Beams branch and end, so a sampler that remembers chosen tokens, such as mirostat, is an error.

    Returns:
        The continuations, best first; fewer where a sampler leaves no more. `score` is the log-probability, as sampler
        and groups changed it, divided by the power of the length.

    Raises:
        InputError: the text or the value of an option cannot be used.
        ContextLengthError: the text would have more tokens than the model has positions.
    """
    if not is_integer(num_return_sequences) or num_return_sequences < 1:
        raise InputError(f"num_return_sequences must be a whole number of at least 1, not {num_return_sequences!r}.")
    if is_integer(num_beams) and 1 <= num_beams < num_return_sequences:
        raise InputError(f"num_return_sequences can be at most num_beams, {num_beams}, not {num_return_sequences}.")
    if (num_beam_groups == 1) != (diversity_penalty == 0):
        raise InputError("diversity_penalty and num_beam_groups go together: several groups and a penalty above 0.")
    shape = None if sampler is None else chain_of(sampler, lens.plugins).clone()
    if shape is not None:
        for stage in shape.stages:
            if type(stage).accept is not Sampler.accept:
                raise InputError(
                    f"{type(stage).__name__} remembers the tokens that were chosen, and beams branch and end; leave it "
                    "out of a beam search."
                )
        shape.reset()
    rng = np.random.default_rng(0)  # for samplers that draw; constant, since the search itself draws nothing

    def adjust(logprobs: np.ndarray, ids: np.ndarray, step: int) -> np.ndarray:
        return logprobs if shape is None else shape(logprobs, _context(lens, ids, step, rng, max_new_tokens))

    texts = _continuations(lens, text, max_new_tokens)
    found = search(
        texts,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        end_tokens=lens.tokenizer.eos_token_ids,
        adjust=adjust,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        num_beam_groups=num_beam_groups,
        diversity_penalty=diversity_penalty,
    )
    texts.check_reached()
    return [_hypothesis(lens, beam.ids, beam.score, beam.logprob) for beam in found[:num_return_sequences]]


def contrastive_search(
    lens: Lens,
    text: str | Sequence[int] | np.ndarray,
    *,
    top_k: int = 4,
    penalty_alpha: float = 0.6,
    max_new_tokens: int = 40,
) -> Hypothesis:
    """Continues a text by contrastive search (Su et al. 2022): probable tokens with states unlike earlier ones.

    Args:
        lens: the model.
        text: the prompt, or its token ids.
        top_k: how many candidates each token is chosen from.
        penalty_alpha: the weight of likeness against probability, from 0, which is greedy, to 1.
        max_new_tokens: the most tokens to generate.

    Returns:
        The continuation; `score` is the mean log-probability of its tokens.

    Raises:
        InputError: the text or the value of an option cannot be used.
        ContextLengthError: the text would have more tokens than the model has positions.
    """
    texts = _continuations(lens, text, max_new_tokens, NORMALIZED)
    ids, logprob = search_contrastively(
        lens.runner,
        texts,
        top_k=top_k,
        penalty_alpha=penalty_alpha,
        max_new_tokens=max_new_tokens,
        end_tokens=lens.tokenizer.eos_token_ids,
    )
    texts.check_reached()
    return _hypothesis(lens, ids, logprob / len(ids), logprob)


def best_of(
    lens: Lens,
    text: str | Sequence[int] | np.ndarray,
    *,
    count: int = 4,
    max_new_tokens: int = 40,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    sampler: AnySampler | None = None,
    seed: int | None = None,
) -> list[Hypothesis]:
    """Samples several continuations at once, and ranks them by the mean log-probability of their tokens.

    Args:
        lens: the model.
        text: the prompt, or its token ids.
        count: how many continuations.
        max_new_tokens: the most tokens that each may have.
        temperature: divides the logits; 0 always takes the most probable token.
        top_k: choose among the k most probable tokens only.
        top_p: choose among the fewest most probable tokens whose probabilities add up to p.
        sampler: a sampler in place of the three, or a chain of them as text.
        seed: seed of all draws; None draws a seed.

    Returns:
        The continuations, best first; `score` is the mean, of the model's own log-probabilities before any sampler.

    Raises:
        InputError: the text or the value of an option cannot be used.
        ContextLengthError: the text would have more tokens than the model has positions.
    """
    if not is_integer(count) or count < 1:
        raise InputError(f"count must be a whole number of at least 1, not {count!r}.")
    sample = find_sampler(sampler, lens.plugins, temperature=temperature, top_k=top_k, top_p=top_p)
    rng = np.random.default_rng(checked_seed(seed))
    choices = [Choice(sample, lens.tokenizer, rng, max_new_tokens=max_new_tokens) for _ in range(count)]
    texts = _continuations(lens, text, max_new_tokens)
    logits = np.repeat(texts.start().logits[:, -1], count, axis=0)  # [count, V]
    # The texts that go on, and the row of the batch that each of them continues.
    going, parents = list(range(count)), [0] * count
    sums = np.zeros(count)
    found = []
    for step in range(max_new_tokens):
        prompts = texts.texts  # [rows, T]
        chosen = [choices[one](logits[place], prompts[parents[place]], step) for place, one in enumerate(going)]
        sums[going] += log_softmax(logits)[np.arange(len(going)), chosen]
        last = step + 1 == max_new_tokens
        ends = [last or token in lens.tokenizer.eos_token_ids for token in chosen]
        for place in np.flatnonzero(ends):
            own = (*texts.ids[parents[place]].tolist(), chosen[place])
            total = float(sums[going[place]])
            found.append(_hypothesis(lens, own, total / len(own), total))
        stay = np.flatnonzero(np.logical_not(ends))
        if not len(stay):
            break
        logits = texts.advance([parents[place] for place in stay], [chosen[place] for place in stay]).logits[:, -1]
        going, parents = [going[place] for place in stay], list(range(len(stay)))
    texts.check_reached()
    return sorted(found, key=lambda one: -one.score)


def _context(lens: Lens, ids: np.ndarray, step: int, rng: np.random.Generator, max_new_tokens: int) -> Context:
    tokenizer = lens.tokenizer
    return Context(
        ids,
        step,
        rng,
        eos_token_id=tokenizer.eos_token_id,
        eos_token_ids=tokenizer.eos_token_ids,
        max_new_tokens=max_new_tokens,
        tokenizer=tokenizer,
    )


def _continuations(
    lens: Lens, text: str | Sequence[int] | np.ndarray, max_new_tokens: int, names_filter: str | None = None
) -> Continuations:
    ids = lens.to_tokens(text) if isinstance(text, str) else lens.runner.check_ids(np.asarray(text))
    if len(ids) != 1:
        raise InputError(f"A search continues one text at a time, not {len(ids)}.")
    return lens.continuations(ids[0].tolist(), max_new_tokens, names_filter=names_filter)


def _hypothesis(lens: Lens, ids: Sequence[int], score: float, logprob: float) -> Hypothesis:
    ended = ids[-1] in lens.tokenizer.eos_token_ids
    text = lens.tokenizer.decode(list(ids[:-1] if ended else ids))
    return Hypothesis(tuple(ids), text, float(score), logprob, "end_of_text" if ended else "length")
