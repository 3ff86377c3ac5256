"""A sampler that asks a function which tokens are allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from onnxlens.plugins._sampling.sampler import Context, Sampler, name_of
from onnxlens.plugins._sampling.tokens import sequence
from onnxlens.runtime.errors import InputError

__all__ = ["Allowed"]


@dataclass(frozen=True, repr=False)
class Allowed(Sampler, checked=False):
    """Keeps the tokens that a function of the row's number and its text so far allows.

    The function, of a row's number and the ids of its text so far, [T] int64, prompt included, returns the ids of the
    tokens that may come next. Like `prefix_allowed_tokens_fn` in transformers, but tokens that were ruled out before
    stay ruled out.
    """

    function: Callable[[int, np.ndarray], Iterable[int]]

    def __post_init__(self) -> None:
        """Checks that it can be called."""
        if not callable(self.function):
            raise InputError(f"Allowed takes a function of row and ids, not {self.function!r}.")

    def __repr__(self) -> str:
        return f"Allowed({name_of(self.function)})"

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token is not allowed.

        Raises:
            InputError: the function allows no token, or one that is not in the vocabulary.
        """
        left = np.full_like(logits, -np.inf)
        for row, ids in enumerate(context.ids):
            returned = self.function(row, ids)
            try:
                tokens = [int(token) for token in returned]
            except (TypeError, ValueError) as error:
                raise InputError(f"Allowed: the function must return token ids, not {returned!r}.") from error
            if not tokens:
                raise InputError(f"Allowed: the function allows no token in row {row}.")
            allowed = list(sequence(tokens, context, logits.shape[-1], "Allowed"))
            left[row, allowed] = logits[row, allowed]
        return left

    def clone(self) -> Self:
        """Returns the same object, since the function's state cannot be copied."""
        return self
