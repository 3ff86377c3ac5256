"""Samplers that shift logits, or rule out or force given tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins._options import Option
from onnxlens.plugins._sampling.sampler import Context, Sampler, only, softmax
from onnxlens.plugins._sampling.tokens import ends_of_text, sequence, single
from onnxlens.plugins.samplers.truncation import entropy
from onnxlens.runtime.errors import InputError

__all__ = [
    "BadWords",
    "DynamicTemperature",
    "ExponentialLength",
    "ForcedFirst",
    "ForcedLast",
    "LogitBias",
    "MinLength",
    "MinNewTokens",
    "SuppressTokens",
    "Temperature",
]

_COLDEST = 1e-6  # logits divided by less would overflow
_LARGEST_BIAS = 1e30
_LARGEST_GAIN = 1e20  # of an exponential, which would overflow, too


@dataclass(frozen=True)
class Temperature(Sampler):
    """Divides the logits by a temperature: below 1 sharpens the distribution, above 1 flattens it.

    Ackley, Hinton and Sejnowski 1985, A Learning Algorithm for Boltzmann Machines.
    """

    temperature: Annotated[float, Option("The divisor of the logits, at least 1e-06.", ge=0, le=1e6)]

    def __post_init__(self) -> None:
        """Checks the value."""
        if self.temperature < _COLDEST:  # the schema accepts 0, so that this error can say what to do instead
            raise InputError(
                f"temperature must be at least {_COLDEST}, not {self.temperature:g}; the sampler greedy always takes "
                "the most probable token."
            )

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits divided."""
        with np.errstate(over="ignore"):  # tokens that improbable are then ruled out
            divided: np.ndarray = logits / logits.dtype.type(self.temperature)
        return divided


@dataclass(frozen=True)
class DynamicTemperature(Sampler):
    """Divides the logits by a temperature that grows with the entropy of the prediction.

    Between temperature - range (at least 0) and temperature + range: T = low + (high - low) (H / ln n)^exponent, with
    the entropy H and the number n of tokens that are not ruled out; below 1e-6, the most probable token only. By
    kalomaze; as in llama.cpp, https://github.com/ggml-org/llama.cpp/pull/4972.
    """

    range: Annotated[float, Option("The largest distance from the temperature.", ge=0, le=1e6)]
    temperature: Annotated[float, Option("The middle of the temperatures.", ge=0, le=1e6)] = 1.0
    exponent: Annotated[float, Option("Above 1, only a high entropy gives a high temperature.", gt=0, le=1e6)] = 1.0

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits divided."""
        low, high = max(0.0, self.temperature - self.range), self.temperature + self.range
        tokens = (logits != -np.inf).sum(axis=-1)  # [B]
        unsure = entropy(softmax(logits)) / np.log(np.maximum(tokens, 2))
        temperatures = low + (high - low) * np.minimum(unsure, 1) ** self.exponent
        temperatures[tokens < 2] = 1  # for one token, any temperature gives the same
        cold = temperatures < _COLDEST
        divided = logits / np.where(cold, 1, temperatures)[:, np.newaxis].astype(logits.dtype)
        return np.where(cold[:, np.newaxis], only(divided, np.argmax(logits, axis=-1)), divided)


@dataclass(frozen=True)
class LogitBias(Sampler):
    """Adds a number to the logits of given tokens; -inf forbids one.

    A text of several tokens biases its last token where the text so far ends with the others. Like `sequence_bias` in
    transformers and `logit_bias` in APIs.
    """

    bias: Annotated[dict[int | str, float], Option("The number to add, by token id or text.", min_length=1)]

    def __post_init__(self) -> None:
        """Checks the values."""
        for tokens, bias in self.bias.items():
            if bias != -math.inf and not abs(bias) <= _LARGEST_BIAS:
                raise InputError(
                    f"LogitBias: the bias of {tokens!r} must be -inf, or from {-_LARGEST_BIAS} to {_LARGEST_BIAS}, not "
                    f"{bias}."
                )

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits with the biases added."""
        left, vocabulary = logits.copy(), logits.shape[-1]
        for tokens, bias in self.bias.items():
            ids = sequence(tokens, context, vocabulary, "LogitBias")
            left[_continues(context.ids, ids), ids[-1]] += bias
        return left


@dataclass(frozen=True)
class BadWords(Sampler):
    """Forbids words, each a token id, several of them, or a text as it stands: `" cat"` is not `"cat"`.

    For several tokens, the last is ruled out where the text so far ends with the others. The end-of-text token by
    itself is not forbidden, as in transformers (`bad_words_ids`); `suppress_tokens` can do that.
    """

    words: Annotated[tuple[int | str | tuple[int, ...], ...], Option("The words to forbid.", min_length=1)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token would complete a word."""
        left, vocabulary = logits.copy(), logits.shape[-1]
        for word in self.words:
            ids = sequence(word, context, vocabulary, "BadWords")
            if len(ids) > 1 or ids[0] not in context.ends:
                left[_continues(context.ids, ids), ids[-1]] = -np.inf
        return left


@dataclass(frozen=True)
class SuppressTokens(Sampler):
    """Rules out given tokens at every step.

    Like `suppress_tokens` in transformers.
    """

    tokens: Annotated[tuple[int | str, ...], Option("Token ids, or texts that are one token each.", min_length=1)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf for the tokens."""
        left = logits.copy()
        left[:, [single(token, context, logits.shape[-1], "SuppressTokens") for token in self.tokens]] = -np.inf
        return left


@dataclass(frozen=True)
class MinLength(Sampler):
    """Rules out the end of the text until prompt and generated text have a number of tokens.

    Like `min_length` in transformers. In a model without an end-of-text token it has no effect.
    """

    length: Annotated[int, Option("The least number of tokens in the text, including the prompt.", ge=0)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf for the end-of-text token while the text is too short."""
        return _without_end(logits, context) if context.ids.shape[-1] < self.length else logits


@dataclass(frozen=True)
class MinNewTokens(Sampler):
    """Rules out the end of the text until a number of tokens is generated.

    Like `min_new_tokens` in transformers. In a model without an end-of-text token it has no effect.
    """

    tokens: Annotated[int, Option("The least number of tokens to generate.", ge=0)]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf for the end-of-text token while the text is too short."""
        return _without_end(logits, context) if context.step < self.tokens else logits


@dataclass(frozen=True)
class ForcedFirst(Sampler):
    """Keeps only one given token when the first token is generated.

    Like `forced_bos_token_id` in transformers, which forces it only after a prompt of one token; here, a token that was
    ruled out before stays ruled out.
    """

    token: Annotated[int | str, Option("The token's id, or its text.")]

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, at the first step -inf except for the token."""
        if context.step > 0:
            return logits
        return _forced(logits, single(self.token, context, logits.shape[-1], "ForcedFirst"))


@dataclass(frozen=True)
class ForcedLast(Sampler):
    """Keeps only one given token when the last allowed token is generated.

    Like `forced_eos_token_id` in transformers, but a token that was ruled out before stays ruled out.
    """

    token: Annotated[int | str | None, Option("The token's id, or its text; the end-of-text token if left out.")] = None

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, at the last step -inf except for the token."""
        if context.max_new_tokens is None or context.step != context.max_new_tokens - 1:
            return logits
        if self.token is None:
            return _forced(logits, *ends_of_text(context, "ForcedLast"))
        return _forced(logits, single(self.token, context, logits.shape[-1], "ForcedLast"))


@dataclass(frozen=True)
class ExponentialLength(Sampler):
    """Makes the end of the text more probable, exponentially with the number of tokens beyond a start.

    To the logit l of the end-of-text token, |l| (factor^(n - start) - 1) is added, where n, the number of generated
    tokens, is above the start. Like `exponential_decay_length_penalty` in transformers.
    """

    start: Annotated[int, Option("The number of generated tokens before it has an effect.", ge=0)]
    factor: Annotated[float, Option("The base of the exponential; above 1 makes texts shorter.", gt=0)] = 1.01

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, with that of the end-of-text token increased."""
        beyond = context.step - self.start
        if beyond <= 0:
            return logits
        left = logits.copy()
        gain = math.exp(min(beyond * math.log(self.factor), math.log(_LARGEST_GAIN))) - 1
        for end in ends_of_text(context, "ExponentialLength"):
            there = left[:, end] != -np.inf
            left[there, end] += np.abs(left[there, end]) * gain
        return left


def _continues(ids: np.ndarray, tokens: tuple[int, ...]) -> np.ndarray:
    """Which rows of the text so far, [B, T], end with all of these tokens but the last; [B] bool."""
    before = len(tokens) - 1
    if before > ids.shape[-1]:
        return np.zeros(len(ids), dtype=bool)
    found: np.ndarray = (ids[:, ids.shape[-1] - before :] == tokens[:-1]).all(axis=-1)
    return found


def _without_end(logits: np.ndarray, context: Context) -> np.ndarray:
    left = logits.copy()
    left[:, context.ends] = -np.inf
    return left


def _forced(logits: np.ndarray, *tokens: int) -> np.ndarray:
    left = np.full_like(logits, -np.inf)
    left[:, tokens] = logits[:, tokens]
    return left
