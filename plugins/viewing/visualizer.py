"""What a visualizer is: it names hook points, and turns what was read there into a rendering."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.plugins.drawing.labels import visible
from onnxlens.plugins.options import Options
from onnxlens.runtime.activations.cache import ActivationCache
from onnxlens.runtime.bundle.config import ModelConfig
from onnxlens.runtime.bundle.description import ModelDescription
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens.lens import Lens
    from onnxlens.plugins.drawing.rendering import Rendering
    from onnxlens.runtime.text.tokenizer import Tokenizer

__all__ = ["LOGITS", "View", "Visualizer"]

LOGITS = "logits"  # what a visualizer that needs them names among its hook points


@dataclass(frozen=True, eq=False)
class View:
    """One text, and what was read while the model ran over it.

    Attributes:
        model: the model's name.
        config: its shape and switches.
        ids: the text's token ids, [P] int64.
        str_tokens: the text of each token, not escaped: escape it for HTML, a terminal or any other format.
        cache: what was read at the hook points that the visualizer named, without a batch axis: a pattern is [H, Q, K].
        logits: [P, V] float32, where "logits" was among the names; None otherwise.
        tokenizer: turns text into ids and back; None outside of a model.
        lens: the open model, for what one pass over the text does not say: weights, other runs, `onnxlens.analysis`.
            What it is asked for besides is computed again. None outside of a model.
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
        """The whole text, as far as the tokens are one."""
        return "".join(self.str_tokens) if self.tokenizer is None else self.tokenizer.decode(self.ids.tolist())

    @property
    def pieces(self) -> list[str]:
        """The texts of the tokens; where one is a part of a letter only, its bytes, written as escapes."""
        return [self._piece(token, text) for token, text in zip(self.ids.tolist(), self.str_tokens, strict=True)]

    @property
    def labels(self) -> list[str]:
        """The tokens as labels: spaces as `␣`, what cannot be seen as its escape."""
        return [visible(token) for token in self.pieces]

    @property
    def model_lens(self) -> Lens:
        """The open model.

        Raises:
            InputError: the view is of none.
        """
        if self.lens is None:
            raise InputError("This visualizer runs the model again, and the view is of none; use lens.view.")
        return self.lens

    @property
    def description(self) -> ModelDescription:
        """What the model is made of: hook points, normalisations, weights.

        Raises:
            InputError: the activations do not say which model they are of.
        """
        if self.cache.facts is None:
            raise InputError("This visualizer needs to know the model; attach it with cache.with_model(lens).")
        return self.cache.facts.model

    def piece(self, token: int) -> str:
        """The text of a token id; where it is a part of a letter only, its bytes, written as escapes."""
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
        """Names what it needs, and nothing else is computed: hook points by name or glob, and "logits".

        They may depend on the options. None at all are fine: then the model does not run.

        Args:
            config: the model's shape, such as `config.n_layers`.
        """

    @abstractmethod
    def draw(self, view: View) -> Rendering:
        """Returns the rendering of one text, and changes nothing of what it is given.

        Put whatever takes long, or needs a large library, into the rendering's methods: you pay for a picture only if
        you ask for one.

        Args:
            view: the text, and what was read.
        """

    def index_option(self, option: str, count: int) -> int:
        """The value of an option that numbers one of the model's layers or heads, negative ones from the end.

        Args:
            option: its name, such as `layer`.
            count: how many there are, such as `config.n_layers`.

        Raises:
            InputError: the model has no such one.
        """
        return self._counted(option, count, "this model's")

    def position_option(self, option: str, count: int) -> int:
        """The value of an option that is a position of the text, negative ones from the end.

        Args:
            option: its name, such as `position`.
            count: how many tokens the text has.

        Raises:
            InputError: the text has no such position.
        """
        return self._counted(option, count, f"the text's {count}")

    def _counted(self, option: str, count: int, whose: str) -> int:
        value: int = getattr(self, option)
        if not -count <= value < count:
            raise InputError(f"{option} must be one of {whose}, {-count} to {count - 1}, not {value}.")
        return value % count
