"""The base class of visualizers: they name hook points, and turn the activations into a rendering."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.plugins._drawing.labels import visible
from onnxlens.plugins._options import Options
from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens
    from onnxlens.plugins._drawing.rendering import Rendering
    from onnxlens.runtime._text.tokenizer import Tokenizer

__all__ = ["LOGITS", "View", "Visualizer"]

LOGITS = "logits"  # the name by which a visualizer asks for logits


@dataclass(frozen=True, eq=False)
class View:
    """One text, and the activations of a run over it.

    Attributes:
        model: the model's name.
        config: its shape and kind.
        ids: the text's token ids, [P] int64.
        str_tokens: the text of each token, not escaped: escape it for HTML, a terminal or any other format.
        cache: activations of the hook points that the visualizer named, without a batch axis: a pattern is [H, Q, K].
        logits: [P, V] float32, where "logits" was among the names; None otherwise.
        tokenizer: turns text into ids and back; None outside of a model.
        lens: the open model, for weights, further runs and `onnxlens.analysis`. Further runs compute everything again.
            None outside of a model.
    """

    model: str
    config: ModelConfig
    ids: np.ndarray
    str_tokens: tuple[str, ...]
    cache: ActivationCache
    logits: np.ndarray | None = None
    tokenizer: Tokenizer | None = field(default=None, repr=False)
    lens: Lens | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The text of all tokens."""
        return "".join(self.str_tokens) if self.tokenizer is None else self.tokenizer.decode(self.ids.tolist())

    @property
    def pieces(self) -> list[str]:
        """The texts of the tokens; for one that is only a part of a letter, its bytes as escapes."""
        return [self._piece(token, text) for token, text in zip(self.ids.tolist(), self.str_tokens, strict=True)]

    @property
    def labels(self) -> list[str]:
        """The tokens as labels: spaces as `␣`, invisible characters as escapes."""
        return [visible(token) for token in self.pieces]

    @property
    def model_lens(self) -> Lens:
        """The open model.

        Raises:
            InputError: the view has no model.
        """
        if self.lens is None:
            raise InputError("This visualizer runs the model again, but its view has no model; use lens.view.")
        return self.lens

    @property
    def description(self) -> ModelDescription:
        """The model's description: hook points, normalisations, weights.

        Raises:
            InputError: it is not known which model the activations come from.
        """
        if self.cache.facts is None:
            raise InputError("This visualizer needs to know the model; attach it with cache.with_model(lens).")
        return self.cache.facts.model

    def piece(self, token: int) -> str:
        """The text of a token id; if it is only a part of a letter, its bytes as escapes."""
        return str(token) if self.tokenizer is None else self.tokenizer.pieces([token])[0]

    def shown(self, token: int) -> str:
        """The text of a token id as a label."""
        return visible(self.piece(token))

    def _piece(self, token: int, text: str) -> str:
        return text if self.tokenizer is None else self.tokenizer.piece(token, text)


class Visualizer(Options, ABC):
    """Shows what happens inside; a dataclass, whose fields are its options."""

    @abstractmethod
    def hook_points(self, config: ModelConfig) -> Sequence[str]:
        """Names the hook points that it needs, by name or glob, and "logits"; nothing else is computed.

        They may depend on the options. For an empty list, the model does not run.

        Args:
            config: the model's shape, such as `config.n_layers`.
        """

    @abstractmethod
    def draw(self, view: View) -> Rendering:
        """Returns the rendering of one text, without changing the view.

        Put slow work and large libraries into the rendering's methods, so that users pay for a picture only if they ask
        for one.

        Args:
            view: the text and its activations.
        """

    def index_option(self, option: str, count: int) -> int:
        """The index of a layer or head that an option names; negative values count from the end.

        Args:
            option: its name, such as `layer`.
            count: their number, such as `config.n_layers`.

        Raises:
            InputError: the model has no such layer or head.
        """
        return self._counted(option, count, "this model's")

    def position_option(self, option: str, count: int) -> int:
        """The position that an option names; negative values count from the end.

        Args:
            option: its name, such as `position`.
            count: the number of tokens in the text.

        Raises:
            InputError: the text has no such position.
        """
        return self._counted(option, count, f"the text's {count}")

    def _counted(self, option: str, count: int, whose: str) -> int:
        value: int = getattr(self, option)
        if not -count <= value < count:
            raise InputError(f"{option} must be one of {whose}, {-count} to {count - 1}, not {value}.")
        return value % count
