"""GPT-2 in NumPy float64 with TransformerLens's weight processing carried out on the weights, the direct way.

Like the oracle, it shares no code with the project. The steps are those of TransformerLens's `ProcessWeights`, in its
order, and the model that then runs has layer normalisations without weight and bias ("LNPre").

Dimensions in shape comments: B batch, P position, D d_model, H heads, d d_head, M d_mlp, V vocabulary.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["named", "processed", "run"]

Weights = dict[str, np.ndarray]


def named(config: Mapping[str, Any], stored: Mapping[str, np.ndarray]) -> Weights:
    """Weights by TransformerLens's names, from Hugging Face's, one head at a time."""
    wide = {name: np.asarray(value, np.float64) for name, value in stored.items()}
    heads, model = config["n_head"], config["n_embd"]
    width = model // heads
    w: Weights = {
        "embed.W_E": wide["wte.weight"],
        "pos_embed.W_pos": wide["wpe.weight"],
        "ln_final.w": wide["ln_f.weight"],
        "ln_final.b": wide["ln_f.bias"],
        "unembed.W_U": wide["wte.weight" if config.get("tie_word_embeddings", True) else "lm_head.weight"].T,
        "unembed.b_U": np.zeros(config["vocab_size"]),
    }
    for n in range(config["n_layer"]):
        h, b = f"h.{n}.", f"blocks.{n}."
        for ours, theirs in (("ln1", "ln_1"), ("ln2", "ln_2")):
            w[f"{b}{ours}.w"], w[f"{b}{ours}.b"] = wide[f"{h}{theirs}.weight"], wide[f"{h}{theirs}.bias"]
        for part, letter in enumerate("QKV"):
            starts = [part * model + head * width for head in range(heads)]
            matrix, bias = wide[h + "attn.c_attn.weight"], wide[h + "attn.c_attn.bias"]
            w[f"{b}attn.W_{letter}"] = np.stack([matrix[:, start : start + width] for start in starts])  # [H, D, d]
            w[f"{b}attn.b_{letter}"] = np.stack([bias[start : start + width] for start in starts])  # [H, d]
        rows = wide[h + "attn.c_proj.weight"]
        w[b + "attn.W_O"] = np.stack([rows[head * width : (head + 1) * width] for head in range(heads)])  # [H, d, D]
        w[b + "attn.b_O"] = wide[h + "attn.c_proj.bias"]
        w[b + "mlp.W_in"], w[b + "mlp.b_in"] = wide[h + "mlp.c_fc.weight"], wide[h + "mlp.c_fc.bias"]
        w[b + "mlp.W_out"], w[b + "mlp.b_out"] = wide[h + "mlp.c_proj.weight"], wide[h + "mlp.c_proj.bias"]
    return w


def processed(
    config: Mapping[str, Any], stored: Mapping[str, np.ndarray], *, fold_value_biases: bool = True
) -> Weights:
    """The weights after fold_ln, center_writing_weights, center_unembed, and fold_value_biases if asked for."""
    w = named(config, stored)
    blocks = range(config["n_layer"])

    # fold_layer_norm: biases first, then weights, then the mean over what is read
    for n in blocks:
        b = f"blocks.{n}."
        norm_w, norm_b = w.pop(b + "ln1.w"), w.pop(b + "ln1.b")
        for letter in "QKV":
            matrix = w[f"{b}attn.W_{letter}"]  # [H, D, d]
            w[f"{b}attn.b_{letter}"] = w[f"{b}attn.b_{letter}"] + (matrix * norm_b[None, :, None]).sum(axis=1)
            matrix = matrix * norm_w[None, :, None]
            w[f"{b}attn.W_{letter}"] = matrix - matrix.mean(axis=1, keepdims=True)
        norm_w, norm_b = w.pop(b + "ln2.w"), w.pop(b + "ln2.b")
        matrix = w[b + "mlp.W_in"]  # [D, M]
        w[b + "mlp.b_in"] = w[b + "mlp.b_in"] + (matrix * norm_b[:, None]).sum(axis=0)
        matrix = matrix * norm_w[:, None]
        w[b + "mlp.W_in"] = matrix - matrix.mean(axis=0, keepdims=True)
    norm_w, norm_b = w.pop("ln_final.w"), w.pop("ln_final.b")
    matrix = w["unembed.W_U"]  # [D, V]
    w["unembed.b_U"] = w["unembed.b_U"] + (matrix * norm_b[:, None]).sum(axis=0)
    matrix = matrix * norm_w[:, None]
    w["unembed.W_U"] = matrix - matrix.mean(axis=0, keepdims=True)

    # center_writing_weights
    writers = ["embed.W_E", "pos_embed.W_pos"]
    for n in blocks:
        writers += [f"blocks.{n}.{name}" for name in ("attn.W_O", "attn.b_O", "mlp.W_out", "mlp.b_out")]
    for name in writers:
        w[name] = w[name] - w[name].mean(axis=-1, keepdims=True)

    # center_unembed
    w["unembed.W_U"] = w["unembed.W_U"] - w["unembed.W_U"].mean(axis=-1, keepdims=True)
    w["unembed.b_U"] = w["unembed.b_U"] - w["unembed.b_U"].mean()

    if fold_value_biases:
        for n in blocks:
            b_v, w_o = w[f"blocks.{n}.attn.b_V"], w[f"blocks.{n}.attn.W_O"]  # [H, d], [H, d, D]
            w[f"blocks.{n}.attn.b_O"] = w[f"blocks.{n}.attn.b_O"] + (b_v[:, :, None] * w_o).sum(axis=(0, 1))
            w[f"blocks.{n}.attn.b_V"] = np.zeros_like(b_v)
    return w


def _norm(x: np.ndarray, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return scale, centred / scale


_ACTIVATIONS = {
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def run(config: Mapping[str, Any], w: Mapping[str, np.ndarray], ids: np.ndarray) -> dict[str, np.ndarray]:
    """Runs processed weights on ids [B, P] without padding; every hook point, and `logits`."""
    length, epsilon = ids.shape[1], config.get("layer_norm_epsilon", 1e-5)
    out: dict[str, np.ndarray] = {"hook_embed": w["embed.W_E"][ids]}  # [B, P, D]
    out["hook_pos_embed"] = np.broadcast_to(w["pos_embed.W_pos"][:length], out["hook_embed"].shape)
    x = out["hook_embed"] + out["hook_pos_embed"]
    visible = np.tril(np.ones((length, length), bool))
    for n in range(config["n_layer"]):
        b = f"blocks.{n}."
        out[b + "hook_resid_pre"] = x
        out[b + "ln1.hook_scale"], out[b + "ln1.hook_normalized"] = _norm(x, epsilon)
        for letter in "QKV":
            read = np.einsum("bpD,hDd->bphd", out[b + "ln1.hook_normalized"], w[f"{b}attn.W_{letter}"])
            out[f"{b}attn.hook_{letter.lower()}"] = read + w[f"{b}attn.b_{letter}"]  # [B, P, H, d]
        scores = np.einsum("bqhd,bkhd->bhqk", out[b + "attn.hook_q"], out[b + "attn.hook_k"])
        if config.get("scale_attn_weights", True):
            scores = scores / math.sqrt(config["n_embd"] // config["n_head"])
        if config.get("scale_attn_by_inverse_layer_idx", False):
            scores = scores / (n + 1)
        out[b + "attn.hook_attn_scores"] = scores = np.where(visible, scores, -np.inf)
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[b + "attn.hook_pattern"] = e / e.sum(axis=-1, keepdims=True)
        out[b + "attn.hook_z"] = np.einsum("bhqk,bkhd->bqhd", out[b + "attn.hook_pattern"], out[b + "attn.hook_v"])
        out[b + "attn.hook_result"] = np.einsum("bphd,hdD->bphD", out[b + "attn.hook_z"], w[b + "attn.W_O"])
        out[b + "hook_attn_out"] = out[b + "attn.hook_result"].sum(axis=2) + w[b + "attn.b_O"]
        out[b + "hook_resid_mid"] = x = x + out[b + "hook_attn_out"]
        out[b + "ln2.hook_scale"], out[b + "ln2.hook_normalized"] = _norm(x, epsilon)
        out[b + "mlp.hook_pre"] = out[b + "ln2.hook_normalized"] @ w[b + "mlp.W_in"] + w[b + "mlp.b_in"]
        out[b + "mlp.hook_post"] = _ACTIVATIONS[config.get("activation_function", "gelu_new")](out[b + "mlp.hook_pre"])
        out[b + "hook_mlp_out"] = out[b + "mlp.hook_post"] @ w[b + "mlp.W_out"] + w[b + "mlp.b_out"]
        out[b + "hook_resid_post"] = x = x + out[b + "hook_mlp_out"]
    out["ln_final.hook_scale"], out["ln_final.hook_normalized"] = _norm(x, epsilon)
    out["logits"] = out["ln_final.hook_normalized"] @ w["unembed.W_U"] + w["unembed.b_U"]
    return out
