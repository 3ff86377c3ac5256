"""Samplers that make repetitions less probable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins._options import Option
from onnxlens.plugins._sampling.sampler import Context, Sampler
from onnxlens.plugins._sampling.tokens import text_of
from onnxlens.runtime.errors import InputError

__all__ = ["DRY", "FrequencyPenalty", "NoRepeatNGram", "PresencePenalty", "RepetitionPenalty"]

_WINDOW = Option("How many of the last tokens count, including the prompt's; 0 for all.", ge=0)
_LARGEST_LOGARITHM = 69.0  # of a power: 1e30 rules out a token, and more would overflow


@dataclass(frozen=True)
class RepetitionPenalty(Sampler):
    """Divides positive logits of tokens that occurred by a penalty, and multiplies negative ones by it.

    Once for each token, however often it occurred. Keskar et al. 2019, CTRL, arXiv:1909.05858, which only divides;
    transformers and llama.cpp multiply negative logits, too.
    """

    penalty: Annotated[float, Option("Above 1 discourages repetition, below 1 encourages it.", ge=1e-4, le=1e4)]
    window: Annotated[int, _WINDOW] = 0

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, changed where a token occurred."""
        (rows, tokens), _ = _occurred(context, self.window, logits.shape[-1])
        left = logits.copy()
        there = left[rows, tokens]
        with np.errstate(over="ignore"):  # tokens that improbable are then ruled out
            left[rows, tokens] = np.where(there < 0, there * self.penalty, there / self.penalty)
        return left


@dataclass(frozen=True)
class PresencePenalty(Sampler):
    """Subtracts a penalty from the logits of tokens that occurred, once for each token.

    Like `presence_penalty` of OpenAI's API, and of llama.cpp, which has the same window.
    """

    penalty: Annotated[float, Option("Above 0 discourages repetition, below 0 encourages it.", ge=-1e4, le=1e4)]
    window: Annotated[int, _WINDOW] = 0

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, lower where a token occurred."""
        place, _ = _occurred(context, self.window, logits.shape[-1])
        left = logits.copy()
        left[place] -= self.penalty
        return left


@dataclass(frozen=True)
class FrequencyPenalty(Sampler):
    """Subtracts a penalty from the logits of tokens for each of their occurrences.

    Like `frequency_penalty` of OpenAI's API, and of llama.cpp, which has the same window.
    """

    penalty: Annotated[float, Option("Above 0 discourages repetition, below 0 encourages it.", ge=-1e4, le=1e4)]
    window: Annotated[int, _WINDOW] = 0

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, lower where a token occurred."""
        place, counts = _occurred(context, self.window, logits.shape[-1])
        left = logits.copy()
        left[place] -= (self.penalty * counts).astype(left.dtype)
        return left


@dataclass(frozen=True)
class NoRepeatNGram(Sampler):
    """Rules out every token that would complete a sequence of n tokens which occurred before.

    Paulus, Xiong and Socher 2017, A Deep Reinforced Model for Abstractive Summarization, arXiv:1705.04304, for n = 3;
    like `no_repeat_ngram_size` in transformers, which also counts the prompt.
    """

    size: Annotated[int, Option("n, the number of tokens in a sequence.", ge=1)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token would repeat."""
        ids, before = context.ids, self.size - 1
        if ids.shape[-1] < self.size:
            return logits
        windows = np.lib.stride_tricks.sliding_window_view(ids, self.size, axis=-1)  # [B, T - n + 1, n]
        last = ids[:, np.newaxis, ids.shape[-1] - before :]  # [B, 1, n - 1]
        repeats = (windows[:, :, :-1] == last).all(axis=-1) & (windows[:, :, -1] < logits.shape[-1])
        rows, places = np.nonzero(repeats)
        left = logits.copy()
        left[rows, windows[rows, places, -1]] = -np.inf
        return left


@dataclass(frozen=True)
class DRY(Sampler):
    """Subtracts a penalty from tokens that would extend a repetition, larger for longer ones (don't repeat yourself).

    A token that followed the last n tokens where they occurred before loses multiplier * base^(n - allowed_length),
    with the largest such n, where that is at least the allowed length. Repetitions are not followed back beyond the
    last sequence breaker, and a token that contains one is not penalised. p-e-w 2024,
    https://github.com/oobabooga/text-generation-webui/pull/5677; as in llama.cpp.
    """

    multiplier: Annotated[float, Option("The penalty of the shortest repetitions.", ge=0, le=1e4)] = 0.8
    base: Annotated[float, Option("The factor for each further repeated token.", ge=1, le=1e4)] = 1.75
    allowed_length: Annotated[int, Option("The least number of repeated tokens that is penalised.", ge=1)] = 2
    window: Annotated[int, _WINDOW] = 0
    breakers: Annotated[
        tuple[int | str, ...], Option("Token ids, or texts anywhere in tokens, that interrupt repetitions.")
    ] = ("\n", ":", '"', "*")

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, lower where a token would extend a repetition."""
        ids = context.ids[:, -self.window :] if self.window else context.ids
        if ids.shape[-1] <= self.allowed_length or self.multiplier == 0:
            return logits
        if self._texts() and context.tokenizer is None:
            raise InputError("DRY: its breakers are texts, and there is no tokenizer to read tokens; give token ids.")
        limits = np.array([self._limit(row, context) for row in ids.tolist()])  # [B]
        lengths = np.minimum(_repeated(ids), limits[:, np.newaxis])  # [B, T - 1]
        longest = np.zeros((len(ids), logits.shape[-1]), np.int64)
        rows, places = np.nonzero((lengths >= self.allowed_length) & (ids[:, 1:] < logits.shape[-1]))
        np.maximum.at(longest, (rows, ids[rows, places + 1]), lengths[rows, places])
        rows, tokens = np.nonzero(longest)
        kept = np.array([not self._breaks(token, context) for token in tokens.tolist()], dtype=bool)
        rows, tokens = rows[kept], tokens[kept]
        more = longest[rows, tokens] - self.allowed_length
        powers = np.exp(np.minimum(more * math.log(self.base), _LARGEST_LOGARITHM))
        left = logits.copy()
        left[rows, tokens] -= (self.multiplier * powers).astype(left.dtype)
        return left

    def _breaks(self, token: int, context: Context) -> bool:
        """Whether a token is a sequence breaker, or contains one."""
        texts = self._texts()
        if token in self.breakers:
            return True
        return bool(texts) and any(text in text_of(token, context, "DRY") for text in texts)

    def _limit(self, ids: list[int], context: Context) -> int:
        """The number of tokens after the last sequence breaker, which may span several tokens."""
        texts, after = self._texts(), ""
        longest = max(map(len, texts), default=0)
        for count, token in enumerate(reversed(ids)):
            if token in self.breakers:
                return count
            if texts:
                # A breaker that begins here may continue in the following tokens.
                here = text_of(token, context, "DRY")
                text = here + after
                ends = [text.rfind(breaker) + len(breaker) for breaker in texts if breaker in text]
                if ends:
                    return self._tokens_after(ids[len(ids) - count - 1 :], max(ends), context)
                after = text[: max(longest - 1, 0)]
        return len(ids)

    def _tokens_after(self, ids: list[int], characters: int, context: Context) -> int:
        """How many tokens begin at or after a number of characters."""
        for count, token in enumerate(ids):
            if characters <= 0:
                return len(ids) - count
            characters -= len(text_of(token, context, "DRY"))
        return 0

    def _texts(self) -> list[str]:
        return [breaker for breaker in self.breakers if isinstance(breaker, str) and breaker]


def _occurred(context: Context, window: int, vocabulary: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Rows and ids of the tokens of each row's text, each once, and how often they occurred."""
    ids = context.ids[:, -window:] if window else context.ids
    rows = np.broadcast_to(np.arange(len(ids))[:, np.newaxis], ids.shape)
    known = ids < vocabulary  # some tokenizers have ids that the model does not have
    flat, counts = np.unique(rows[known] * vocabulary + ids[known], return_counts=True)
    row, token = np.divmod(flat, vocabulary)
    return (row, token), counts


def _repeated(ids: np.ndarray) -> np.ndarray:
    """For each position but the last, how many tokens up to it are those at the end of the text, [B, T - 1]."""
    length = ids.shape[-1]
    found = np.zeros((len(ids), length - 1), np.int64)
    alive = np.ones_like(found, dtype=bool)
    for back in range(length - 1):
        # Position p still matches if the token `back` before it is the one `back` before the end.
        alive[:, :back] = False
        alive[:, back:] &= ids[:, : length - 1 - back] == ids[:, length - 1 - back, np.newaxis]
        if not alive.any():
            break
        found += alive
    return found
