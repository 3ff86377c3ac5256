"""The base class of samplers: functions from the logits of the next token and a context to logits."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from onnxlens.plugins._failures import named_in_errors
from onnxlens.plugins._options import Options
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens.runtime._text.tokenizer import Tokenizer

__all__ = ["Chain", "Context", "Function", "Sampler", "apply", "only", "softmax"]

NO_TOKEN = "The logits hold NaN, or no token is left to choose from."


@dataclass(frozen=True)
class Context:
    """The information that a sampler gets besides the logits.

    Attributes:
        ids: the text so far, [B, T] int64: the prompt and the generated tokens.
        step: the number of tokens that were generated before this one.
        rng: the random generator, which must be the only source of randomness, so that a seed decides everything.
        eos_token_id: the token that ends a text, the first where there are several; None if the model has none.
        max_new_tokens: the most tokens that will be generated; None if that is not known.
        tokenizer: turns text into ids and back; None outside of a model.
        eos_token_ids: all tokens that end a text; None for `eos_token_id` alone. See `ends`.
    """

    ids: np.ndarray
    step: int
    rng: np.random.Generator
    eos_token_id: int | None = None
    max_new_tokens: int | None = None
    tokenizer: Tokenizer | None = field(default=None, repr=False)
    eos_token_ids: tuple[int, ...] | None = None

    @property
    def ends(self) -> list[int]:
        """The tokens that end a text; they may index logits, `logits[:, context.ends]`."""
        if self.eos_token_id is None:
            return []
        return [self.eos_token_id] if self.eos_token_ids is None else list(self.eos_token_ids)

    @property
    def generated(self) -> np.ndarray:
        """The tokens generated so far, [B, step] int64."""
        return self.ids[:, self.ids.shape[1] - self.step :]


class Sampler(Options, ABC):
    """From logits [B, V] to logits [B, V]; a dataclass, whose fields are its options.

    Tokens that it rules out get -inf. The token is chosen by a sampler, too, which leaves one token in each row. Rows
    are independent of each other. A sampler with state between steps keeps it in attributes that `reset` sets.

    Attributes:
        chooses: whether it always leaves a single token in each row.
        inverts: whether it draws by inverse transform sampling, so that an explanation can say where the draw fell: it
            takes one number for each row, `context.rng.random(B)`, and chooses the first token, in the order of ids, at
            which the cumulative probability exceeds it.
    """

    chooses: ClassVar[bool] = False
    inverts: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the changed logits, [B, V], without changing its argument.

        Args:
            logits: [B, V], -inf where a token is ruled out already.
            context: further information.
        """

    def accept(self, ids: np.ndarray, context: Context) -> None:  # optional
        """Receives the chosen token of each row, [B] int64, with the context of the choice."""

    def reset(self) -> None:  # optional
        """Clears all state, before a new text begins."""

    def clone(self) -> Self:
        """Returns an independent copy in the same state."""
        return copy.deepcopy(self)


@dataclass(frozen=True, repr=False)
class Function(Sampler, checked=False):
    """A plain function from logits and context to logits, as a sampler."""

    function: Callable[[np.ndarray, Context], np.ndarray]

    def __post_init__(self) -> None:
        """Checks that it can be called."""
        if isinstance(self.function, type) and issubclass(self.function, Sampler):
            name = self.function.__name__
            raise InputError(f"A chain is made of samplers, not of their classes: write {name}(...) instead of {name}.")
        if not callable(self.function):
            raise InputError(f"A chain is made of samplers, and {self.function!r} is not one.")

    def __repr__(self) -> str:
        return name_of(self.function)

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Calls the function."""
        return self.function(logits, context)

    def clone(self) -> Self:
        """Returns the same object, since the function's state cannot be copied."""
        return self


@dataclass(frozen=True)
class Chain(Sampler, checked=False):
    """Applies samplers one after the other, and checks each result."""

    samplers: Sequence[Sampler | Callable[[np.ndarray, Context], np.ndarray]]

    def __post_init__(self) -> None:
        """Turns functions into samplers."""
        made = (each if isinstance(each, Sampler) else Function(each) for each in self.samplers)
        object.__setattr__(self, "samplers", tuple(made))

    @property
    def stages(self) -> tuple[Sampler, ...]:
        """The samplers, with nested chains flattened."""
        found: list[Sampler] = []
        for sampler in self.samplers:
            assert isinstance(sampler, Sampler)
            found += sampler.stages if isinstance(sampler, Chain) else [sampler]
        return tuple(found)

    @property
    def chooses(self) -> bool:  # type: ignore[override]  # for a chain, the last sampler decides
        """Whether the last sampler always leaves a single token in each row."""
        return bool(self.stages) and self.stages[-1].chooses

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits of the last sampler.

        Raises:
            InputError: a sampler leaves no token, or returns something that is not logits; the text names it.
            PluginError: a sampler fails; the text names it.
        """
        if not np.isfinite(logits.max(axis=-1)).all():
            raise InputError(NO_TOKEN)
        for sampler in self.stages:
            logits = apply(sampler, logits, context)
        return logits

    def accept(self, ids: np.ndarray, context: Context) -> None:
        """Passes the tokens to every sampler."""
        for sampler in self.stages:
            with named_in_errors(_who(sampler)):
                sampler.accept(ids, context)

    def reset(self) -> None:
        """Resets every sampler."""
        for sampler in self.stages:
            with named_in_errors(_who(sampler)):
                sampler.reset()

    def clone(self) -> Self:
        """Returns a chain of clones."""
        return type(self)([_cloned(sampler) for sampler in self.stages])


def apply(sampler: Sampler, logits: np.ndarray, context: Context) -> np.ndarray:
    """Applies one sampler, and checks its result.

    Raises:
        InputError: it returns something that is not logits, or leaves no token; the text names it.
        PluginError: it fails; the text names it.
    """
    name = _name(sampler)
    readonly = logits.view()
    readonly.flags.writeable = False  # the model's logits are needed later, for log-probabilities
    with named_in_errors(_who(sampler)):
        left = sampler(readonly, context)
    if not isinstance(left, np.ndarray) or left.dtype.kind != "f":
        found = f"an array of {left.dtype}" if isinstance(left, np.ndarray) else type(left).__name__
        raise InputError(f"The sampler {name} must return an array of floating-point logits, not {found}.")
    if left.shape != logits.shape:
        raise InputError(
            f"The sampler {name} must return logits of the same shape, {list(logits.shape)}, not {list(left.shape)}."
        )
    largest = left.max(axis=-1)
    if np.isneginf(largest).any():
        raise InputError(f"The sampler {name} leaves no token to choose from.")
    if not np.isfinite(largest).all():
        raise InputError(f"The sampler {name} returns logits that are NaN or infinite.")
    if (revived := (left != -np.inf) & (logits == -np.inf)).any():
        row, token = np.argwhere(revived)[0].tolist()
        raise InputError(f"The sampler {name} revives the token {token}, which was ruled out before (row {row}).")
    return left


def _cloned(sampler: Sampler) -> Sampler:
    with named_in_errors(_who(sampler)):
        twin = sampler.clone()
        if not isinstance(twin, Sampler):
            raise TypeError(f"clone() must return another sampler, not {type(twin).__name__}")
        return twin


def _name(sampler: Sampler) -> str:
    return repr(sampler) if isinstance(sampler, Function) else type(sampler).__name__


def _who(sampler: Sampler) -> str:
    return f"The sampler {_name(sampler)}"


def name_of(function: Callable[..., object]) -> str:
    """The name of a function, without its address, which would differ between runs."""
    return str(getattr(function, "__name__", type(function).__name__))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64.

    Raises:
        InputError: a row has no finite logit, or holds NaN.
    """
    exponentials = exponentials_of(logits)
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def only(logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The logits of one token in each row, [B] int64, and -inf elsewhere."""
    left = np.full_like(logits, -np.inf)
    rows = np.arange(len(logits))
    left[rows, chosen] = logits[rows, chosen]
    return left


def exponentials_of(logits: np.ndarray) -> np.ndarray:
    """Probabilities of tokens up to a factor for each row, the largest being 1; float64."""
    wide = logits.astype(np.float64)
    largest = wide.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():
        raise InputError(NO_TOKEN)
    wide -= largest
    exponentials: np.ndarray = np.exp(wide, out=wide)
    return exponentials
