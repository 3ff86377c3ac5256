"""A model's shape and kind, as the manifest of its bundle states them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from onnxlens.runtime._escape import quoted
from onnxlens.runtime.errors import BundleError

__all__ = ["ModelConfig"]

_MOST_LAYERS = 10_000  # the runtime goes through all of them
_COUNTS = ("n_layers", "n_heads", "n_key_value_heads", "d_model", "d_head", "d_mlp", "d_vocab", "n_ctx")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model's shape and kind, under the names of TransformerLens's `cfg`.

    Attributes:
        n_layers: number of blocks.
        n_heads: attention heads in each block.
        d_model: width of the residual stream.
        d_head: width of an attention head.
        d_mlp: width of the MLP's hidden layer.
        d_vocab: number of tokens.
        n_ctx: the context limit, in tokens.
        act_fn: the MLP's activation function, by Hugging Face's name.
        eps: what each normalisation adds to the variance.
        use_attn_scale: whether attention scores are divided by the square root of `d_head`.
        scale_attn_by_inverse_layer_idx: whether they are divided by the block's number, counted from one, too.
        tie_word_embeddings: whether `W_U` is `W_E`, transposed.
        n_key_value_heads: heads for keys and values; None for as many as for queries.
        normalization_type: `LN`, layer normalisation with weight and bias, or `RMS`.
        positional_embedding_type: `standard`, learned and added to the token embedding, or `rotary`.
        gated_mlp: whether the MLP has a gate.
        rotary_dim: the coordinates of a head that are rotated, where positions are.
        rotary_base: the base of the rotation's frequencies.
        rotary_scaling_factor: what all frequencies are divided by.
        use_NTK_by_parts_rope: whether slow frequencies are divided by another factor, as in Llama 3.1.
        NTK_by_parts_factor: that factor.
        NTK_by_parts_low_freq_factor: frequencies of fewer turns within the original context are divided by it.
        NTK_by_parts_high_freq_factor: frequencies of more turns stay as they are.
        NTK_original_ctx_len: the original context, in tokens.
        default_prepend_bos: whether a beginning-of-text token is put in front of a text when nothing is said.
        bos_token_id: the token that begins a text, for `prepend_bos`; an id outside of the vocabulary is never used.
        dtype: the data type of computation.
    """

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    act_fn: str
    eps: float
    use_attn_scale: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    n_key_value_heads: int | None = None
    normalization_type: str = "LN"
    positional_embedding_type: str = "standard"
    gated_mlp: bool = False
    rotary_dim: int | None = None
    rotary_base: float | None = None
    rotary_scaling_factor: float = 1.0
    use_NTK_by_parts_rope: bool = False  # noqa: N815
    NTK_by_parts_factor: float = 8.0
    NTK_by_parts_low_freq_factor: float = 1.0
    NTK_by_parts_high_freq_factor: float = 4.0
    NTK_original_ctx_len: int = 8192
    default_prepend_bos: bool = False
    bos_token_id: int | None = None
    dtype: str = "float32"

    @property
    def key_value_heads(self) -> int:
        """Heads for keys and values: `n_key_value_heads`, or as many as for queries."""
        return self.n_key_value_heads or self.n_heads

    def attn_divisor(self, layer: int) -> float:
        """What the products of queries and keys are divided by in a block."""
        by_width = math.sqrt(self.d_head) if self.use_attn_scale else 1.0
        return by_width * (layer + 1) if self.scale_attn_by_inverse_layer_idx else by_width

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any], origin: str) -> ModelConfig:
        """Reads entries that `to_dict` returned.

        Args:
            entries: by name.
            origin: what to call them in an error.

        Raises:
            BundleError: an entry is missing, or has a value that no model can have; the text names it and `origin`.
        """
        unknown = sorted(set(entries) - {field.name for field in fields(cls)})
        if unknown:
            raise BundleError(f"{origin} has an entry {quoted(unknown[0])} that this onnxlens does not know.")
        try:
            config = cls(**entries)
        except TypeError as error:
            raise BundleError(f"{origin} is incomplete: {error}.") from error
        config._check(origin)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Returns all entries by name."""
        return asdict(self)

    def _check(self, origin: str) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if (type(value) is not int or value < 1) and not (name == "n_key_value_heads" and value is None):
                raise BundleError(f"{origin}: '{name}' must be a whole number of at least 1, not {quoted(value)}.")
        if self.n_layers > _MOST_LAYERS:
            raise BundleError(
                f"{origin} has {quoted(self.n_layers)} blocks, and no model has more than {_MOST_LAYERS:,}."
            )
        if self.normalization_type not in ("LN", "RMS"):
            raise BundleError(
                f"{origin}: 'normalization_type' must be 'LN' or 'RMS', not {quoted(self.normalization_type)}."
            )
        if self.n_key_value_heads and self.n_heads % self.n_key_value_heads:
            raise BundleError(
                f"{origin}: 'n_heads' {self.n_heads} cannot be divided among 'n_key_value_heads' "
                f"{self.n_key_value_heads}."
            )
        if type(self.eps) not in (int, float) or not 0 < self.eps < 1:
            raise BundleError(f"{origin}: 'eps' must be a number between 0 and 1, not {quoted(self.eps)}.")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool" and type(value) is not bool:
                raise BundleError(f"{origin}: '{field.name}' must be true or false, not {quoted(value)}.")
            if field.type == "str" and not isinstance(value, str):
                raise BundleError(f"{origin}: '{field.name}' must be a text, not {quoted(value)}.")
        if self.bos_token_id is not None and type(self.bos_token_id) is not int:
            raise BundleError(f"{origin}: 'bos_token_id' must be a token id or null, not {quoted(self.bos_token_id)}.")
