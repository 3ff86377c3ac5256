"""The description of a model family for the export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from onnxlens.export.families.hook_table import describe
from onnxlens.export.families.parts import Decoder
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._bundle.generation_config import listed_ids
from onnxlens.runtime._bundle.weight_view import WeightView
from onnxlens.runtime.errors import BundleError, CheckpointError

__all__ = ["Family", "check_division", "check_entries"]


class Family(ABC):
    """One model of a family: its shape, its parameters and its PyTorch module, from the entries of its config.json.

    A family is a subclass, in one file. `MODEL_TYPE` says to which checkpoints it applies.

    Args:
        entries: the entries of config.json, including all that `DEFAULTS` names.
        origin: what to call them in an error.

    Attributes:
        cfg: the model's shape and kind.

    Raises:
        CheckpointError: an entry has a value that is invalid or that the family cannot honour; the text names it and
            `origin`.
    """

    MODEL_TYPE: ClassVar[str]
    """Hugging Face's `model_type`."""
    DEFAULTS: ClassVar[Mapping[str, Any]]
    """The entries of config.json that decide what the model computes, with Hugging Face's defaults."""
    LAYERS: ClassVar[str] = "num_hidden_layers"
    """The entry that counts the blocks."""
    TOKENIZER_CLASS: ClassVar[str] = "PreTrainedTokenizerFast"
    """The class of tokenizer to write if the checkpoint names none."""
    OTHER_NAMES: ClassVar[tuple[str, ...]] = ()
    """Further entries that `CONFIG` takes these from."""
    CONFIG: ClassVar[type[PretrainedConfig]]
    """transformers' configuration, which resolves other names of the same entries."""
    REFERENCE: ClassVar[type[PreTrainedModel]]
    """transformers' model, with which the export is compared."""
    PREFIX: ClassVar[str]
    """The prefix of parameter names in checkpoints, which all but the unembedding have."""
    EMBEDDING: ClassVar[str]
    """The parameter with the token embedding, without the prefix."""
    UNEMBEDDING: ClassVar[str] = "lm_head.weight"
    """The parameter with the unembedding; not stored where it is tied to the embedding."""

    cfg: ModelConfig

    def __init__(self, entries: Mapping[str, Any], origin: str) -> None:
        known = {name: entries.get(name, default) for name, default in self.DEFAULTS.items()}
        self.check(known, origin)
        self.entries = known
        self.cfg = self.config(known)

    @abstractmethod
    def check(self, entries: Mapping[str, Any], origin: str) -> None:
        """Refuses entries that are invalid or that the family cannot honour.

        Raises:
            CheckpointError: an entry is refused.
        """

    @abstractmethod
    def config(self, entries: Mapping[str, Any]) -> ModelConfig:
        """Translates checked entries."""

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
        """Returns a checkpoint's tensor in the form in which a bundle stores it."""
        return tensor

    def checkpoint_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a parameter has in a checkpoint, for the one in which it is stored in a bundle."""
        return tuple(self.stored(name, torch.empty(shape, device="meta")).shape)

    def constants(self) -> dict[str, Tensor]:
        """Constants stored with the parameters, such as frequencies of a rotation: [n] float32 each."""
        return {}

    def is_buffer(self, name: str) -> bool:
        """Whether a tensor of a checkpoint is not a parameter and not needed, such as a causal mask."""
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
        """The description of the model for its bundle."""
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
        counts: names of entries that are whole numbers of at least 1.
        switches: names of entries that are true or false.
        epsilon: name of an entry that is a number between 0 and 1.
        activation: name of the entry with the activation function.
        activations: those that can be computed.

    Raises:
        CheckpointError: one of them has another value, or a token id that begins or ends texts is not an id; the text
            names it.
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
