"""Llama in NumPy float64, written from the papers' formulas: the truth that the other tests compare with.

Like `oracle`, which is GPT-2, it shares no code with the project and keeps every intermediate value under its hook
name.

Sources:
    - Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models": the architecture.
    - Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".
    - Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding".
    - Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation".
    - Dubey et al. 2024, "The Llama 3 Herd of Models", and its released code: frequencies by parts.
    - Ainslie et al. 2023, "GQA: Training Generalized Multi-Query Transformer Models".
    - Shazeer 2020, "GLU Variants Improve Transformer".

Dimensions in shape comments: B batch, P position, D d_model, H heads, G groups of heads, d d_head, M d_mlp,
V vocabulary, Q query position, K key position.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from formulas import ACTIVATIONS, Array, default_positions, softmax, visible_keys

__all__ = ["frequencies", "run"]


def frequencies(width: int, rope: Mapping[str, Any]) -> Array:
    """The angle of each pair of coordinates from one position to the next, [d / 2].

    Su et al. 2021, equation 15: theta_i = base^(-2 i / d). Rounded to float32, since the models are trained with that.
    """
    base, kind = rope.get("rope_theta", 10_000.0), rope.get("rope_type", "default")
    found = np.array([base ** (-2 * i / width) for i in range(width // 2)])
    if kind == "linear":  # Chen et al. 2023, section 2.3: positions are divided by the factor
        found = found / rope["factor"]
    if kind == "llama3":
        for i, theta in enumerate(found):
            wavelength = 2 * math.pi / theta
            longest = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
            shortest = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
            if wavelength > longest:
                found[i] = theta / rope["factor"]
            elif wavelength > shortest:
                turns = rope["original_max_position_embeddings"] / wavelength
                share = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
                found[i] = (1 - share) * theta / rope["factor"] + share * theta
    return found.astype(np.float32).astype(np.float64)


def _rotate(x: Array, angles: Array) -> Array:
    """Turns coordinates i and i + d / 2 of each head by an angle, as complex numbers: [B, P, heads, d]."""
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)  # [B, P, heads, d / 2]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def run(
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    input_ids: np.ndarray,
    attention_mask: np.ndarray | None = None,
    position_ids: np.ndarray | None = None,
    change: Callable[[str, Array], Array] = lambda name, value: value,
) -> dict[str, np.ndarray]:
    """Runs Llama and returns every hook point.

    Args:
        config: The content of a Hugging Face config.json of model_type llama; the shape must be stated.
        weights: Hugging Face's names without the `model.` prefix, matrices as [out, in], in any float type.
        input_ids: Token ids, [B, P].
        attention_mask: 1 for a token, 0 for padding, [B, P]; all 1 if not given.
        position_ids: Positions, [B, P]; if not given, how many tokens come before, padding not counted.
        change: As for `oracle.run`.

    Returns:
        Hook name -> float64 array, and `logits`, [B, P, V].
    """
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]  # number of blocks, H
    groups = config.get("num_key_value_heads") or heads  # G
    width = config.get("head_dim") or config["hidden_size"] // heads  # d
    activation = ACTIVATIONS[config.get("hidden_act", "silu")]
    epsilon = config.get("rms_norm_eps", 1e-6)

    def linear(name: str, x: Array) -> Array:
        y = x @ np.asarray(weights[f"{name}.weight"], np.float64).T
        return y + np.asarray(weights[f"{name}.bias"], np.float64) if f"{name}.bias" in weights else y

    if attention_mask is None:
        attention_mask = np.ones_like(input_ids)
    if position_ids is None:
        position_ids = default_positions(attention_mask)
    batch, length = input_ids.shape
    angles = position_ids[:, :, None, None] * frequencies(width, config.get("rope_parameters") or {})  # [B, P, 1, d/2]
    visible = visible_keys(attention_mask)  # [B, 1, Q, K]
    out: dict[str, np.ndarray] = {}

    def hook(name: str, value: Array) -> Array:
        out[name] = change(name, value)
        return out[name]

    def normalise(name: str, stored: str, x: Array) -> Array:
        # RMSNorm(x) = x / sqrt(mean(x^2) + eps) * weight  (Zhang and Sennrich 2019, equation 4)
        scale = hook(f"{name}.hook_scale", np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon))  # [B, P, 1]
        return hook(f"{name}.hook_normalized", x / scale) * np.asarray(weights[stored], np.float64)

    x = hook("hook_embed", np.asarray(weights["embed_tokens.weight"], np.float64)[input_ids])  # [B, P, D]
    for n in range(layers):
        hf, block = f"layers.{n}", f"blocks.{n}"
        x = hook(f"{block}.hook_resid_pre", x)
        normed = normalise(f"{block}.ln1", f"{hf}.input_layernorm.weight", x)
        q, k, v = (
            hook(
                f"{block}.attn.hook_{letter}",
                linear(f"{hf}.self_attn.{letter}_proj", normed).reshape(batch, length, -1, width),
            )
            for letter in "qkv"
        )  # [B, P, H, d], [B, P, G, d] twice
        q = hook(f"{block}.attn.hook_rot_q", _rotate(q, angles))
        k = hook(f"{block}.attn.hook_rot_k", _rotate(k, angles))
        # Ainslie et al. 2023: each key and value serves H / G heads in turn.
        k, v = (np.repeat(one, heads // groups, axis=2) for one in (k, v))  # [B, P, H, d]
        scores = q.transpose(0, 2, 1, 3) @ k.transpose(0, 2, 3, 1) / math.sqrt(width)  # [B, H, Q, K]
        scores = hook(f"{block}.attn.hook_attn_scores", np.where(visible, scores, -np.inf))
        pattern = hook(f"{block}.attn.hook_pattern", softmax(scores))
        z = hook(f"{block}.attn.hook_z", (pattern @ v.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3))  # [B, P, H, d]
        w_o = np.asarray(weights[f"{hf}.self_attn.o_proj.weight"], np.float64).T.reshape(heads, width, -1)  # [H, d, D]
        result = hook(f"{block}.attn.hook_result", (z[..., None, :] @ w_o)[..., 0, :])  # [B, P, H, D]
        attn_out = result.sum(axis=2)
        if f"{hf}.self_attn.o_proj.bias" in weights:
            attn_out = attn_out + np.asarray(weights[f"{hf}.self_attn.o_proj.bias"], np.float64)
        x = hook(f"{block}.hook_resid_mid", x + hook(f"{block}.hook_attn_out", attn_out))
        # SwiGLU(x) = (act(x W_gate) * x W_in) W_out  (Shazeer 2020, equation 6)
        normed = normalise(f"{block}.ln2", f"{hf}.post_attention_layernorm.weight", x)
        pre = hook(f"{block}.mlp.hook_pre", linear(f"{hf}.mlp.gate_proj", normed))  # [B, P, M]
        up = hook(f"{block}.mlp.hook_pre_linear", linear(f"{hf}.mlp.up_proj", normed))
        post = hook(f"{block}.mlp.hook_post", activation(pre) * up)
        x = hook(f"{block}.hook_resid_post", x + hook(f"{block}.hook_mlp_out", linear(f"{hf}.mlp.down_proj", post)))
    x = normalise("ln_final", "norm.weight", x)
    tied = config.get("tie_word_embeddings", False)
    out["logits"] = x @ np.asarray(weights["embed_tokens.weight" if tied else "lm_head.weight"], np.float64).T
    return out
