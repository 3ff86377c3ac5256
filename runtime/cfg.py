"""A model's shape and kind in TransformerLens's terms."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from onnxlens.runtime.config import ModelConfig

__all__ = ["TransformerLensConfig"]


@dataclass(frozen=True, kw_only=True)
class TransformerLensConfig:
    """A model's shape and kind, under the names of TransformerLens's `cfg`.

    Attributes:
        model_name: the bundle's name.
        n_layers: number of blocks.
        d_model: width of the residual stream.
        n_heads: attention heads in each block.
        d_head: width of an attention head.
        d_mlp: width of the MLP's hidden layer.
        d_vocab: number of tokens that go in.
        d_vocab_out: number of tokens that can come out.
        n_ctx: the context limit, in tokens.
        act_fn: the MLP's activation function, by Hugging Face's name.
        eps: what each layer normalisation adds to the variance.
        n_params: entries of the weight matrices in the blocks, without biases and embeddings, as TransformerLens
            counts them.
        use_attn_scale: whether attention scores are divided by the square root of `d_head`.
        scale_attn_by_inverse_layer_idx: whether they are divided by the block's number, counted from one, too.
        tie_word_embeddings: whether `W_U` is `W_E`, transposed.
        n_key_value_heads: heads for keys and values, where there are fewer than for queries; else None.
        normalization_type: `LN`, layer normalisation with weight and bias.
        positional_embedding_type: `standard`, learned and added to the token embedding.
        attn_only: whether blocks are without an MLP.
        gated_mlp: whether the MLP has a gate.
        default_prepend_bos: whether a beginning-of-text token is put in front of a text when nothing is said.
        dtype: the data type of computation.
        device: the execution provider, `cpu` or `cuda`; None for a bundle that is not running.
    """

    model_name: str
    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    d_vocab_out: int
    n_ctx: int
    act_fn: str
    eps: float
    n_params: int
    use_attn_scale: bool
    scale_attn_by_inverse_layer_idx: bool
    tie_word_embeddings: bool
    n_key_value_heads: int | None = None
    normalization_type: str = "LN"
    positional_embedding_type: str = "standard"
    attn_only: bool = False
    gated_mlp: bool = False
    default_prepend_bos: bool = False
    dtype: str = "float32"
    device: str | None = None

    @classmethod
    def of(cls, config: ModelConfig, name: str, device: str | None = None) -> TransformerLensConfig:
        """Translates a configuration with Hugging Face's names."""
        in_block = 2 * config.n_embd * config.d_mlp + 4 * config.n_embd * config.n_head * config.d_head
        return cls(
            model_name=name,
            n_layers=config.n_layer,
            d_model=config.n_embd,
            n_heads=config.n_head,
            d_head=config.d_head,
            d_mlp=config.d_mlp,
            d_vocab=config.vocab_size,
            d_vocab_out=config.vocab_size,
            n_ctx=config.n_positions,
            act_fn=config.activation_function,
            eps=config.layer_norm_epsilon,
            n_params=config.n_layer * in_block,
            use_attn_scale=config.scale_attn_weights,
            scale_attn_by_inverse_layer_idx=config.scale_attn_by_inverse_layer_idx,
            tie_word_embeddings=config.tie_word_embeddings,
            device=device,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns all entries by name."""
        return asdict(self)
