"""What the export has to know of a model family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from onnxlens.export.families.hook_table import describe
from onnxlens.export.families.parts import Decoder
from onnxlens.runtime.bundle.config import ModelConfig
from onnxlens.runtime.bundle.description import ModelDescription
from onnxlens.runtime.bundle.generation_config import listed_ids
from onnxlens.runtime.bundle.weight_view import WeightView
from onnxlens.runtime.errors import BundleError, CheckpointError

__all__ = ["Family", "check_division", "check_entries"]


class Family(ABC):
    """One model of a family: its shape, its parameters and its PyTorch module, from the entries of its config.json.

    A family is a class of this kind, in one file. `MODEL_TYPE` says which checkpoints are its own.

    Args:
        entries: those of config.json, with all that `DEFAULTS` names.
        origin: what to call them in an error.

    Attributes:
        cfg: the model's shape and kind.

    Raises:
        CheckpointError: an entry has a value that the family cannot have or honour; the text names it and `origin`.
    """

    MODEL_TYPE: ClassVar[str]
    """Hugging Face's `model_type`."""
    DEFAULTS: ClassVar[Mapping[str, Any]]
    """The entries of config.json that decide what the model computes, with Hugging Face's defaults."""
    LAYERS: ClassVar[str] = "num_hidden_layers"
    """The entry that counts the blocks."""
    TOKENIZER_CLASS: ClassVar[str] = "PreTrainedTokenizerFast"
    """The class of tokenizer that is written where a checkpoint names none."""
    OTHER_NAMES: ClassVar[tuple[str, ...]] = ()
    """Further entries that `CONFIG` takes these from."""
    CONFIG: ClassVar[type[PretrainedConfig]]
    """transformers' configuration, which resolves other names of the same entries."""
    REFERENCE: ClassVar[type[PreTrainedModel]]
    """transformers' model, which the export is compared with."""
    PREFIX: ClassVar[str]
    """What checkpoints put before the names of parameters, all but the unembedding's."""
    EMBEDDING: ClassVar[str]
    """The parameter with the token embedding, without the prefix."""
    UNEMBEDDING: ClassVar[str] = "lm_head.weight"
    """The parameter with the unembedding; not stored where the embedding serves for both."""

    cfg: ModelConfig

    def __init__(self, entries: Mapping[str, Any], origin: str) -> None:
        known = {name: entries.get(name, default) for name, default in self.DEFAULTS.items()}
        self.check(known, origin)
        self.entries = known
        self.cfg = self.config(known)

    @abstractmethod
    def check(self, entries: Mapping[str, Any], origin: str) -> None:
        """Refuses what the family cannot have or honour.

        Raises:
            CheckpointError: an entry is refused.
        """

    @abstractmethod
    def config(self, entries: Mapping[str, Any]) -> ModelConfig:
        """Translates entries that were checked."""

    @abstractmethod
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter as it is stored in a bundle, by Hugging Face's names without the prefix."""

    @abstractmethod
    def weights(self) -> dict[str, WeightView]:
        """Where each weight lies in the parameters, by TransformerLens's names."""

    @abstractmethod
    def module(self) -> Decoder:
        """The PyTorch model, whose parameters have the names and shapes of `parameter_shapes`."""

    def stored(self, name: str, tensor: Tensor) -> Tensor:
        """A checkpoint's tensor as it is stored in a bundle."""
        return tensor

    def checkpoint_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a parameter has in a checkpoint, for the one in which it is stored in a bundle."""
        return tuple(self.stored(name, torch.empty(shape, device="meta")).shape)

    def constants(self) -> dict[str, Tensor]:
        """What is stored with the parameters and is none, such as frequencies of a rotation: [n] float32 each."""
        return {}

    def is_buffer(self, name: str) -> bool:
        """Whether a tensor of a checkpoint is no parameter and not needed, such as a causal mask."""
        return False

    @property
    def tied(self) -> bool:
        """Whether the unembedding is the embedding."""
        return self.cfg.tie_word_embeddings

    @property
    def head(self) -> str:
        """The parameter that the unembedding reads."""
        return self.EMBEDDING if self.tied else self.UNEMBEDDING

    def description(self) -> ModelDescription:
        """All that a bundle says of the model."""
        return describe(self.cfg, self.weights())


def check_entries(
    entries: Mapping[str, Any],
    origin: str,
    *,
    counts: tuple[str, ...] = (),
    switches: tuple[str, ...] = (),
    epsilon: str = "",
    activation: str = "",
    activations: Mapping[str, Any] | None = None,
) -> None:
    """Checks entries of common kinds.

    Args:
        entries: those of config.json.
        origin: what to call them in an error.
        counts: names of whole numbers of at least 1.
        switches: names of what is true or false.
        epsilon: name of a number between 0 and 1.
        activation: name of the activation function.
        activations: those that can be computed.

    Raises:
        CheckpointError: one of them is something else; the text names it. Also if a token id that begins or ends texts
            is none.
    """
    for name in counts:
        if type(entries[name]) is not int or entries[name] < 1:
            raise CheckpointError(f"{origin}: '{name}' must be a whole number of at least 1, not {entries[name]!r}.")
    for name in switches:
        if type(entries[name]) is not bool:
            raise CheckpointError(f"{origin}: '{name}' must be true or false, not {entries[name]!r}.")
    if epsilon and (not isinstance(entries[epsilon], int | float) or not 0 < entries[epsilon] < 1):
        raise CheckpointError(f"{origin}: '{epsilon}' must be a number between 0 and 1, not {entries[epsilon]!r}.")
    if activation and entries[activation] not in (activations or {}):
        raise CheckpointError(
            f"{origin}: '{activation}' {entries[activation]!r} is not one that onnxlens computes; "
            f"it must be one of {', '.join(activations or {})}."
        )
    try:
        for name in ("bos_token_id", "eos_token_id"):
            listed_ids(entries[name], origin, name)
    except BundleError as error:
        raise CheckpointError(str(error)) from error
    if isinstance(entries["bos_token_id"], list | tuple):
        raise CheckpointError(
            f"{origin}: 'bos_token_id' must be a token id or null, not {list(entries['bos_token_id'])!r:.100}."
        )


def check_division(entries: Mapping[str, Any], origin: str, what: str, among: str) -> None:
    """Checks that one entry can be divided by another.

    Raises:
        CheckpointError: it cannot.
    """
    if entries[what] % entries[among]:
        raise CheckpointError(
            f"{origin}: '{what}' {entries[what]} cannot be divided among '{among}' {entries[among]} heads."
        )
