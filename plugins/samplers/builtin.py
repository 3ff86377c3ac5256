"""The built-in samplers, as the plugin that they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins.hookspecs import hookimpl
from onnxlens.plugins.options import Option
from onnxlens.plugins.samplers.base import Context, Sampler, only, softmax

__all__ = ["register_samplers"]

ONNXLENS_PLUGIN_API = 1


@dataclass
class Temperature(Sampler):
    """Divides the logits: below 1 sharpens the distribution, above flattens it (Ackley et al. 1985)."""

    temperature: Annotated[float, Option("what the logits are divided by", ge=1e-6)] = 1.0

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits divided, [B, V] float64."""
        return logits / np.float64(self.temperature)


@dataclass
class TopK(Sampler):
    """Keeps the k most probable tokens, and any that tie with the last of them (Fan et al. 2018)."""

    k: Annotated[int, Option("how many tokens to keep", ge=1)] = 40

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is not among the k best."""
        vocabulary = logits.shape[-1]
        if self.k >= vocabulary:
            return logits
        least = np.partition(logits, vocabulary - self.k, axis=-1)[:, vocabulary - self.k, np.newaxis]  # [B, 1]
        return np.where(logits < least, -np.inf, logits)


@dataclass
class TopP(Sampler):
    """Keeps the fewest tokens whose probabilities sum to at least p: nucleus sampling (Holtzman et al. 2020)."""

    p: Annotated[float, Option("the probability to keep", gt=0, le=1)] = 0.95

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf outside the nucleus."""
        order = np.argsort(-logits, axis=-1, kind="stable")  # [B, V], most probable first
        probabilities = np.take_along_axis(softmax(logits), order, axis=-1)
        before = np.cumsum(probabilities, axis=-1) - probabilities
        # A token stays if those before it do not reach p yet; so the first always stays.
        removed = np.empty(logits.shape, dtype=bool)
        np.put_along_axis(removed, order, before >= self.p, axis=-1)
        return np.where(removed, -np.inf, logits)


@dataclass
class Greedy(Sampler):
    """Takes the most probable token, the first of several equals."""

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf but for the chosen token."""
        return only(logits, np.argmax(logits, axis=-1))


@dataclass
class Multinomial(Sampler):
    """Draws one token from the distribution, by inverting its cumulative sum over the full vocabulary."""

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf but for the chosen token."""
        cumulative = np.cumsum(softmax(logits), axis=-1)  # [B, V]
        draws = context.rng.random(len(logits)) * cumulative[:, -1]
        return only(logits, np.argmax(cumulative > draws[:, np.newaxis], axis=-1))


@hookimpl
def register_samplers(register: Callable[[str, type[Sampler]], None]) -> None:
    """Registers them."""
    register("temperature", Temperature)
    register("top_k", TopK)
    register("top_p", TopP)
    register("greedy", Greedy)
    register("multinomial", Multinomial)
