"""A model's shape and kind as TransformerLens's `cfg` has them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from onnxlens.runtime._bundle.config import ModelConfig

__all__ = ["TransformerLensConfig"]


@dataclass(frozen=True, kw_only=True)
class TransformerLensConfig(ModelConfig):
    """A model's shape and kind, its name, and where it runs, under the names of TransformerLens's `cfg`.

    Attributes:
        model_name: the bundle's name.
        device: the execution provider, `cpu` or `cuda`; None for a bundle that is not running.
        attn_only: whether blocks are without an MLP.
    """

    model_name: str
    device: str | None = None
    attn_only: bool = False

    @property
    def d_vocab_out(self) -> int:
        """Number of tokens that can come out."""
        return self.d_vocab

    @property
    def n_params(self) -> int:
        """Entries of the weight matrices in the blocks, without biases and embeddings, as TransformerLens counts."""
        heads = 2 * self.n_heads + 2 * self.key_value_heads
        return self.n_layers * self.d_model * ((3 if self.gated_mlp else 2) * self.d_mlp + heads * self.d_head)

    @classmethod
    def of(cls, config: ModelConfig, name: str, device: str | None = None) -> TransformerLensConfig:
        """Adds a name and a device to a configuration."""
        return cls(
            **{field.name: getattr(config, field.name) for field in fields(ModelConfig)}, model_name=name, device=device
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns all entries by name."""
        return {**asdict(self), "d_vocab_out": self.d_vocab_out, "n_params": self.n_params}
