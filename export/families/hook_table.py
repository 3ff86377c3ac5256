"""The hook table of a decoder, from its shape and kind.

Every family whose blocks are attention, then MLP, has these hook points. Names, axes and meanings are
TransformerLens's.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.description import ModelDescription, Normalization, ResidualStream
from onnxlens.runtime._bundle.hooks import HeadProduct, HookPoint
from onnxlens.runtime._bundle.weight_view import WeightView

__all__ = ["describe", "key_axis"]

_RESIDUAL = ("batch", "pos", "d_model")
_NEURONS = ("batch", "pos", "d_mlp")
_HEADS = ("batch", "pos", "head", "d_head")
_ATTENTION = ("batch", "head", "query_pos", "key_pos")

_NORM_MEANINGS = {
    "LN": ("layer norm", "the divisor sqrt(variance + epsilon)", "(x - mean) / scale, before weight and bias"),
    "RMS": ("RMS norm", "the divisor sqrt(mean square + epsilon)", "x / scale, before the weight"),
}


def describe(cfg: ModelConfig, weights: Mapping[str, WeightView]) -> ModelDescription:
    """Describes a decoder with one normalisation before attention, one before the MLP, and a final one.

    Args:
        cfg: its shape and kind.
        weights: where each weight lies, by TransformerLens's names.
    """
    embeddings = [HookPoint("hook_embed", _RESIDUAL, "token embedding")]
    if cfg.positional_embedding_type == "standard":
        embeddings.append(HookPoint("hook_pos_embed", _RESIDUAL, "position embedding"))
    points, parts, states = [*embeddings], [point.name for point in embeddings], []
    norms = {}
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}"
        points += _block(cfg, block)
        parts += [f"{block}.hook_attn_out", f"{block}.hook_mlp_out"]
        states += [f"{block}.hook_resid_{state}" for state in ("pre", "mid", "post")]
        norms[f"{block}.ln1"] = _norm(cfg, f"{block}.hook_resid_pre")
        norms[f"{block}.ln2"] = _norm(cfg, f"{block}.hook_resid_mid")
    points += _norm_points(cfg, "ln_final", "final")
    norms["ln_final"] = _norm(cfg, states[-1])
    return ModelDescription(cfg, tuple(points), ResidualStream(tuple(parts), tuple(states)), norms, weights)


def key_axis(cfg: ModelConfig) -> str:
    """The name of the axis of heads of keys and values: `kv_head` where there are fewer than for queries."""
    return "head" if cfg.key_value_heads == cfg.n_heads else "kv_head"


def _norm(cfg: ModelConfig, reads: str) -> Normalization:
    return Normalization(reads, "RMS" if cfg.normalization_type == "RMS" else "LN", float(cfg.eps))


def _norm_points(cfg: ModelConfig, name: str, which: str, where: str = "") -> list[HookPoint]:
    kind, divisor, normalized = _NORM_MEANINGS[cfg.normalization_type]
    of = f"{which} {kind}" if not where else f"{kind} {where}"
    return [
        HookPoint(f"{name}.hook_scale", ("batch", "pos", "one"), f"{of}: {divisor}"),
        HookPoint(f"{name}.hook_normalized", _RESIDUAL, f"{of}: {normalized}"),
    ]


def _block(cfg: ModelConfig, block: str) -> list[HookPoint]:
    """The hook points of a block, in the order of computation."""
    keys = ("batch", "pos", key_axis(cfg), "d_head")
    rotary = cfg.positional_embedding_type == "rotary"
    unrotated = ", before the rotation" if rotary else ", unscaled"
    new = "before the rotation; the new positions only" if rotary else "the new positions only"
    product = HeadProduct(f"{block}.attn.hook_z", f"{block}.attn.W_O", f"{block}.hook_attn_out")
    q = "rot_q @ rot_k" if rotary else "q @ k"
    return [
        HookPoint(f"{block}.hook_resid_pre", _RESIDUAL, "residual stream at the block's input"),
        *_norm_points(cfg, f"{block}.ln1", "", "before attention"),
        HookPoint(f"{block}.attn.hook_q", _HEADS, f"queries, after the bias{unrotated}"),
        HookPoint(f"{block}.attn.hook_k", keys, f"keys, after the bias; {new}"),
        HookPoint(f"{block}.attn.hook_v", keys, "values, after the bias; the new positions only"),
        *(
            [
                HookPoint(f"{block}.attn.hook_rot_q", _HEADS, "queries, rotated by their position, unscaled"),
                HookPoint(f"{block}.attn.hook_rot_k", keys, "keys, rotated by their position; the new positions only"),
            ]
            if rotary
            else []
        ),
        HookPoint(f"{block}.attn.hook_attn_scores", _ATTENTION, f"{q} / sqrt(d_head), -inf where masked"),
        HookPoint(
            f"{block}.attn.hook_pattern", _ATTENTION, "softmax of the scores: how much each query attends to each key"
        ),
        HookPoint(f"{block}.attn.hook_z", _HEADS, "pattern @ v"),
        HookPoint(
            f"{block}.attn.hook_result",
            ("batch", "pos", "head", "d_model"),
            "z @ W_O of each head, without the bias",
            product,
        ),
        HookPoint(f"{block}.hook_attn_out", _RESIDUAL, "attention's output with bias, as added to the residual stream"),
        HookPoint(f"{block}.hook_resid_mid", _RESIDUAL, "residual stream after attention is added"),
        *_norm_points(cfg, f"{block}.ln2", "", "before the MLP"),
        *_mlp(cfg, f"{block}.mlp"),
        HookPoint(f"{block}.hook_mlp_out", _RESIDUAL, "the MLP's output with bias, as added to the residual stream"),
        HookPoint(f"{block}.hook_resid_post", _RESIDUAL, "residual stream after the MLP is added"),
    ]


def _mlp(cfg: ModelConfig, mlp: str) -> list[HookPoint]:
    pre = HookPoint(f"{mlp}.hook_pre", _NEURONS, "MLP neurons before the activation function")
    if not cfg.gated_mlp:
        return [pre, HookPoint(f"{mlp}.hook_post", _NEURONS, "MLP neurons after the activation function")]
    return [
        HookPoint(f"{mlp}.hook_pre", _NEURONS, "MLP neurons' gates before the activation function"),
        HookPoint(f"{mlp}.hook_pre_linear", _NEURONS, "the factor of the gates"),
        HookPoint(f"{mlp}.hook_post", _NEURONS, "MLP neurons: act(pre) * pre_linear"),
    ]
