"""What a sampler is: from the logits of the next token, and what is known besides, to logits."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from onnxlens.plugins.failures import named_in_errors
from onnxlens.plugins.options import Options
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens.runtime.text.tokenizer import Tokenizer

__all__ = ["Chain", "Context", "Function", "Sampler", "apply", "only", "softmax"]

NO_TOKEN = "The logits hold NaN, or no token is left to choose from."


@dataclass(frozen=True)
class Context:
    """What a sampler may know besides the logits.

    Attributes:
        ids: the text so far, [B, T] int64, the prompt and what was generated.
        step: how many tokens were generated before this one.
        rng: the source of randomness; the only one, so that a seed decides everything.
        eos_token_id: the token that ends a text, the first where there are several; None if the model has none.
        max_new_tokens: how many tokens will be generated at most; None if that is open.
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
        """What was generated so far, [B, step] int64."""
        return self.ids[:, self.ids.shape[1] - self.step :]


class Sampler(Options, ABC):
    """From logits [B, V] to logits [B, V]; a dataclass, whose fields are its options.

    Tokens that it rules out get -inf. What picks the token in the end is a sampler too, which leaves one token in each
    row. Rows are independent of each other. One that remembers something between steps keeps it in attributes that
    `reset` sets.

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


@dataclass(frozen=True, repr=False)
class Function(Sampler, checked=False):
    """A plain function from logits and context to logits, as a sampler."""

    function: Callable[[np.ndarray, Context], np.ndarray]

    def __post_init__(self) -> None:
        """Checks that it can be called."""
        if isinstance(self.function, type) and issubclass(self.function, Sampler):
            name = self.function.__name__
            raise InputError(f"A chain is made of samplers, not of their classes: {name}(...) in place of {name}.")
        if not callable(self.function):
            raise InputError(f"A chain is made of samplers, and {self.function!r} is none.")

    def __repr__(self) -> str:
        return name_of(self.function)

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns what the function returns."""
        return self.function(logits, context)

    def clone(self) -> Self:
        """Returns the same: what a function remembers is its own."""
        return self


@dataclass(frozen=True)
class Chain(Sampler, checked=False):
    """Applies samplers one after the other, and checks what each of them leaves."""

    samplers: Sequence[Sampler | Callable[[np.ndarray, Context], np.ndarray]]

    def __post_init__(self) -> None:
        """Makes samplers of functions."""
        made = (each if isinstance(each, Sampler) else Function(each) for each in self.samplers)
        object.__setattr__(self, "samplers", tuple(made))

    @property
    def stages(self) -> tuple[Sampler, ...]:
        """The samplers, those of chains in the chain in their place."""
        found: list[Sampler] = []
        for sampler in self.samplers:
            assert isinstance(sampler, Sampler)
            found += sampler.stages if isinstance(sampler, Chain) else [sampler]
        return tuple(found)

    @property
    def chooses(self) -> bool:  # type: ignore[override]  # of a chain, its last sampler says so
        """Whether the last sampler always leaves a single token in each row."""
        return bool(self.stages) and self.stages[-1].chooses

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns what the last sampler returns.

        Raises:
            InputError: a sampler leaves no token, or returns what are no logits; the text names it.
            PluginError: a sampler fails; the text names it.
        """
        if not np.isfinite(logits.max(axis=-1)).all():
            raise InputError(NO_TOKEN)
        for sampler in self.stages:
            logits = apply(sampler, logits, context)
        return logits

    def accept(self, ids: np.ndarray, context: Context) -> None:
        """Tells every sampler."""
        for sampler in self.stages:
            with named_in_errors(_who(sampler)):
                sampler.accept(ids, context)

    def reset(self) -> None:
        """Lets every sampler forget."""
        for sampler in self.stages:
            with named_in_errors(_who(sampler)):
                sampler.reset()

    def clone(self) -> Self:
        """Returns a chain of clones."""
        return type(self)([_cloned(sampler) for sampler in self.stages])


def apply(sampler: Sampler, logits: np.ndarray, context: Context) -> np.ndarray:
    """Applies one sampler, and checks what it returns.

    Raises:
        InputError: it returns what are no logits, or leaves no token; the text names it.
        PluginError: it fails; the text names it.
    """
    name = _name(sampler)
    given = logits.view()
    given.flags.writeable = False  # others still need them: the model's own say how probable a token was
    with named_in_errors(_who(sampler)):
        left = sampler(given, context)
    if not isinstance(left, np.ndarray) or left.dtype.kind != "f":
        found = f"an array of {left.dtype}" if isinstance(left, np.ndarray) else type(left).__name__
        raise InputError(f"The sampler {name} must return an array of floating-point logits, not {found}.")
    if left.shape != logits.shape:
        raise InputError(
            f"The sampler {name} must return logits in the shape it is given, {list(logits.shape)}, not "
            f"{list(left.shape)}."
        )
    largest = left.max(axis=-1)
    if np.isneginf(largest).any():
        raise InputError(f"The sampler {name} leaves no token to choose from.")
    if not np.isfinite(largest).all():
        raise InputError(f"The sampler {name} returns logits that are NaN or infinite.")
    if (revived := (left != -np.inf) & (logits == -np.inf)).any():
        row, token = np.argwhere(revived)[0].tolist()
        raise InputError(f"The sampler {name} brings back the token {token}, which was ruled out before (row {row}).")
    return left


def _cloned(sampler: Sampler) -> Sampler:
    with named_in_errors(_who(sampler)):
        twin = sampler.clone()
        if not isinstance(twin, Sampler):
            raise TypeError(f"clone() must return another one, and returned {type(twin).__name__}")
        return twin


def _name(sampler: Sampler) -> str:
    return repr(sampler) if isinstance(sampler, Function) else type(sampler).__name__


def _who(sampler: Sampler) -> str:
    return f"The sampler {_name(sampler)}"


def name_of(function: Callable[..., object]) -> str:
    """The name of a function, without an address, which would differ from run to run."""
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
