"""What an activation cache knows of its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._text.token_text import quoted_token
from onnxlens.runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from onnxlens.runtime._text.tokenizer import Tokenizer

__all__ = ["ModelFacts", "facts_of"]

_SHOWN = 5  # tokens listed in a sentence


@dataclass(frozen=True)
class ModelFacts:
    """What it takes to explain a model's activations without running it.

    Pickled facts have their bundle's path in place of its weights. Where they are read, they have weights and tokenizer
    if the same bundle is there, and none otherwise, like those of a trace.

    Attributes:
        name: the bundle's name.
        hash: what identifies its weights and graph; see `Bundle.model_hash`.
        model: what the bundle says of it.
        weights: by TransformerLens's names; None where they are not available, as for a trace that was opened alone.
        tokenizer: makes the tokenizer, for tokens given as text.
        folded: whether weights, and activations with them, are a folded view; see `ActivationCache.folded`.
        source: makes the same facts in another process; it can be pickled, and raises BundleError if it cannot.
    """

    name: str
    hash: str
    model: ModelDescription
    weights: Mapping[str, np.ndarray] | None = None
    tokenizer: Callable[[], Tokenizer] | None = None
    folded: bool = False
    source: Callable[[], ModelFacts] | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.name, self.hash, replace(self.model, weights={}), self.folded, self.source)

    def __deepcopy__(self, memo: object) -> ModelFacts:
        return self  # nothing in it changes

    @property
    def config(self) -> ModelConfig:
        """The model's shape and kind."""
        return self.model.cfg

    def token(self, text: str) -> int:
        """The id of a text that is one token.

        Raises:
            InputError: it is not exactly one token, or there is no tokenizer.
        """
        if not isinstance(text, str):
            raise InputError(f"Expected the text of one token, not {text!r:.100}.")
        if self.tokenizer is None:
            raise InputError(f"This cache has no tokenizer for {text!r}; give the token's id.")
        tokenizer = self.tokenizer()
        ids = tokenizer.encode_word(text)
        if len(ids) != 1:
            shown = ", ".join(map(quoted_token, tokenizer.pieces(ids[:_SHOWN]))) + ", …" * (len(ids) > _SHOWN)
            parts = f" ({shown})" if ids else ""
            raise InputError(
                f"{text!r} is {len(ids)} tokens{parts}, and must be one; a leading space often makes the difference."
            )
        return ids[0]


def _restored(
    name: str, model_hash: str, model: ModelDescription, folded: bool, source: Callable[[], ModelFacts] | None
) -> ModelFacts:
    try:
        found = source() if source is not None else None
    except BundleError:
        found = None
    return found or ModelFacts(name, model_hash, model, folded=folded, source=source)


def facts_of(model: object) -> ModelFacts:
    """The facts of a `Lens`, `Runner`, `Bundle`, or facts themselves.

    Raises:
        InputError: it is of another type.
    """
    for step in ("runner", "bundle", "facts"):
        model = getattr(model, step, model)
    if not isinstance(model, ModelFacts):
        raise InputError(f"Expected a Lens, Runner or Bundle, not {type(model).__name__}.")
    return model
