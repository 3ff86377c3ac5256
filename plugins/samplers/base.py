"""What a sampler is: from the logits of the next token, and what is known besides, to logits."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from onnxlens.plugins.options import Options
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens.runtime.tokenizer import Tokenizer

__all__ = ["Chain", "Context", "Sampler", "only", "softmax"]


@dataclass(frozen=True)
class Context:
    """What a sampler may know besides the logits.

    Attributes:
        ids: the text so far, [B, T] int64, the prompt and what was generated.
        step: how many tokens were generated before this one.
        rng: the source of randomness; the only one, so that a seed decides everything.
        eos_token_id: the token that ends a text; None if the model has none.
        max_new_tokens: how many tokens will be generated at most; None if that is open.
        tokenizer: turns text into ids and back; None outside of a model.
    """

    ids: np.ndarray
    step: int
    rng: np.random.Generator
    eos_token_id: int | None = None
    max_new_tokens: int | None = None
    tokenizer: Tokenizer | None = field(default=None, repr=False)

    @property
    def generated(self) -> np.ndarray:
        """What was generated so far, [B, step] int64."""
        return self.ids[:, self.ids.shape[1] - self.step :]


class Sampler(Options, ABC):
    """From logits [B, V] to logits [B, V]; a dataclass, whose fields are its options.

    Tokens that it rules out get -inf. What picks the token in the end is a sampler too, which leaves one token in each
    row. Rows are independent of each other. One that remembers something between steps keeps it in attributes that
    `reset` sets.
    """

    @abstractmethod
    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the changed logits, [B, V], and leaves those given as they are.

        Args:
            logits: [B, V], -inf where a token is ruled out already.
            context: what else is known.
        """

    def accept(self, ids: np.ndarray, context: Context) -> None:  # optional
        """Is told the token of each row that was chosen in the end, [B] int64, with the context of the choice."""

    def reset(self) -> None:  # optional
        """Forgets all texts, before a new one begins."""

    def clone(self) -> Self:
        """Returns another one in the same state, which goes its own way from here."""
        return copy.deepcopy(self)


@dataclass(frozen=True)
class Chain(Sampler):
    """Applies samplers one after the other."""

    samplers: Sequence[Sampler]

    def __post_init__(self) -> None:
        """Checks that they are samplers."""
        object.__setattr__(self, "samplers", tuple(self.samplers))
        for sampler in self.samplers:
            if not callable(sampler):
                raise InputError(f"A chain is made of samplers, and {sampler!r} is none.")

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns what the last sampler returns."""
        for sampler in self.samplers:
            logits = sampler(logits, context)
        return logits

    def accept(self, ids: np.ndarray, context: Context) -> None:
        """Tells every sampler."""
        for sampler in self.samplers:
            sampler.accept(ids, context)

    def reset(self) -> None:
        """Lets every sampler forget."""
        for sampler in self.samplers:
            sampler.reset()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64.

    Raises:
        InputError: a row has no finite logit, or holds NaN.
    """
    wide = logits.astype(np.float64)
    largest = wide.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():
        raise InputError("The logits hold NaN, or no token is left to choose from.")
    exponentials = np.exp(wide - largest)
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def only(logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The logits of one token in each row, [B] int64, and -inf elsewhere."""
    left = np.full_like(logits, -np.inf)
    rows = np.arange(len(logits))
    left[rows, chosen] = logits[rows, chosen]
    return left
