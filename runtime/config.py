"""A GPT-2's shape and switches, as its config.json states them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from onnxlens.runtime.errors import BundleError
from onnxlens.runtime.generation_config import listed_ids

__all__ = ["ACTIVATION_FUNCTIONS", "ModelConfig"]

ACTIVATION_FUNCTIONS = ("gelu_new", "gelu", "relu", "silu")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The entries of a GPT-2 config.json that decide what the model computes; names and defaults are Hugging Face's.

    Attributes:
        n_layer: number of blocks.
        n_head: attention heads in each block.
        n_embd: width of the residual stream (d_model).
        n_positions: the context limit, in tokens.
        vocab_size: number of tokens.
        n_inner: width of the MLP (d_mlp); None for four times `n_embd`.
        activation_function: one of `ACTIVATION_FUNCTIONS`.
        layer_norm_epsilon: added to the variance in each layer normalisation.
        scale_attn_weights: divide attention scores by the square root of the head's width.
        scale_attn_by_inverse_layer_idx: divide them by the block's number, counted from one, too.
        tie_word_embeddings: the token embedding is also the output projection.
        bos_token_id: the token that begins a text, for `prepend_bos`; one outside of the vocabulary is never used.
        eos_token_id: the token that ends a text, or several, where generation_config.json does not say it; see
            `Bundle.end_tokens`.
    """

    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    n_positions: int = 1024
    vocab_size: int = 50257
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | tuple[int, ...] | None = 50256

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def d_mlp(self) -> int:
        """Width of the MLP's hidden layer."""
        return self.n_inner if self.n_inner is not None else 4 * self.n_embd

    def attn_divisor(self, layer: int) -> float:
        """What the products of queries and keys are divided by in a block."""
        by_width = math.sqrt(self.d_head) if self.scale_attn_weights else 1.0
        return by_width * (layer + 1) if self.scale_attn_by_inverse_layer_idx else by_width

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any], origin: str = "config.json") -> ModelConfig:
        """Reads the entries of a config.json, ignoring those that do not change what the model computes.

        Raises:
            BundleError: an entry has a value that no GPT-2 can have; the text names the entry and `origin`.
        """
        known: dict[str, Any] = {f.name: entries[f.name] for f in fields(cls) if f.name in entries}
        known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        config = cls(**known)
        config._check(origin)
        return config

    def _check(self, origin: str) -> None:
        counts = ["n_layer", "n_head", "n_embd", "n_positions", "vocab_size"]
        counts += ["n_inner"] if self.n_inner is not None else []
        for name in counts:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise BundleError(f"{origin}: '{name}' must be a whole number of at least 1, not {value!r}.")
        for name in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings"):
            if type(getattr(self, name)) is not bool:
                raise BundleError(f"{origin}: '{name}' must be true or false, not {getattr(self, name)!r}.")
        if self.n_embd % self.n_head:
            raise BundleError(f"{origin}: 'n_embd' {self.n_embd} cannot be divided among 'n_head' {self.n_head} heads.")
        epsilon = self.layer_norm_epsilon
        if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
            raise BundleError(f"{origin}: 'layer_norm_epsilon' must be a number between 0 and 1, not {epsilon!r}.")
        if self.activation_function not in ACTIVATION_FUNCTIONS:
            raise BundleError(
                f"{origin}: 'activation_function' {self.activation_function!r} is not one that onnxlens computes; "
                f"it must be one of {', '.join(ACTIVATION_FUNCTIONS)}."
            )
        for name in ("bos_token_id", "eos_token_id"):
            token = getattr(self, name)
            listed_ids(token, origin, name)
        if isinstance(self.bos_token_id, tuple):
            raise BundleError(
                f"{origin}: 'bos_token_id' must be a token id or null, not {list(self.bos_token_id)!r:.100}."
            )
