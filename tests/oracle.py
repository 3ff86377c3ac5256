"""GPT-2 in NumPy float64, written from the papers' formulas: the truth that the other tests compare with.

It shares no code with the project, so that an error in one is not repeated in the other, and it is written to
be read: no cache, no fusion, every intermediate value kept under its hook name.

Sources:
    - Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2): the architecture.
    - Vaswani et al. 2017, "Attention Is All You Need": attention, the feed-forward layer, tied embeddings.
    - Ba, Kiros and Hinton 2016, "Layer Normalization".

Dimensions in shape comments: B batch, P position, D d_model, H heads, d d_head, M d_mlp, V vocabulary,
Q query position, K key position.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import llama_oracle
import numpy as np
from formulas import ACTIVATIONS, Array, default_positions, softmax, visible_keys

__all__ = ["greedy", "run", "run_bundle"]


def _layer_norm(x: Array, epsilon: float) -> tuple[Array, Array]:
    """Layer normalisation before weight and bias (Ba et al. 2016, equation 3).

    Args:
        x: The values, [B, P, D].
        epsilon: What is added to the variance, against division by zero.

    Returns:
        x - mean, [B, P, D], and the scale sqrt(var + eps), [B, P, 1], by which it is to be divided.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred, np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)  # [B, P, D], [B, P, 1]


def run(
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    input_ids: np.ndarray,
    attention_mask: np.ndarray | None = None,
    position_ids: np.ndarray | None = None,
    change: Callable[[str, Array], Array] = lambda name, value: value,
) -> dict[str, np.ndarray]:
    """Runs GPT-2 and returns every hook point.

    Args:
        config: The content of a Hugging Face config.json of model_type gpt2; missing keys have its defaults.
        weights: Hugging Face's names without the `transformer.` prefix, in any float type; `lm_head.weight`
            is read only where `tie_word_embeddings` is false. Further names are ignored.
        input_ids: Token ids, [B, P].
        attention_mask: 1 for a token, 0 for padding, [B, P]; all 1 if not given.
        position_ids: Rows of the position embedding, [B, P]; if not given, how many tokens come before,
            padding not counted.
        change: Called with the name and value of each hook point, in the order of computation; what it returns
            takes the value's place, in what follows and in what is returned. It must not write to the value.

    Returns:
        Hook name -> float64 array, and `logits`, [B, P, V]. Some share memory: do not write to them.
        The values at padding positions have no meaning; all but the masked scores are finite.

    Raises:
        ValueError: If the activation function is unknown, or a weight is not of the configuration's size.
    """
    n_layer, n_head = config.get("n_layer", 12), config.get("n_head", 12)  # number of blocks, H
    d_model = config.get("n_embd", 768)  # D
    d_mlp = 4 * d_model if config.get("n_inner") is None else config["n_inner"]  # M
    d_head = d_model // n_head  # d
    epsilon = config.get("layer_norm_epsilon", 1e-5)
    activation_function = config.get("activation_function", "gelu_new")
    if activation_function not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"Unknown activation_function {activation_function!r}: the oracle knows {known}.")
    activation = ACTIVATIONS[activation_function]

    def weight(name: str, *shape: int) -> Array:
        value = np.asarray(weights[name], dtype=np.float64)
        if shape and value.shape != shape:
            raise ValueError(f"Weight {name!r} has shape {value.shape}: the configuration says {shape}.")
        return value

    if attention_mask is None:
        attention_mask = np.ones_like(input_ids)  # [B, P]
    if position_ids is None:
        position_ids = default_positions(attention_mask)  # [B, P]
    batch, length = input_ids.shape
    visible = visible_keys(attention_mask)  # [B, 1, Q, K]
    out: dict[str, np.ndarray] = {}

    def hook(name: str, value: Array) -> Array:
        out[name] = change(name, value)
        return out[name]

    def normalise(name: str, value: Array) -> Array:
        centred, scale = _layer_norm(value, epsilon)
        return hook(name + "hook_normalized", centred / hook(name + "hook_scale", scale))  # [B, P, D]

    # x_0 = W_E[token] + W_pos[position]  (Radford et al. 2019: learned positions, as in GPT)
    embed = hook("hook_embed", weight("wte.weight")[input_ids])  # [B, P, D]
    x: Array = embed + hook("hook_pos_embed", weight("wpe.weight")[position_ids])  # [B, P, D]

    # Radford et al. 2019, section 2.3: layer normalisation at the input of each sub-block,
    #   x <- x + Attention(LN_1(x));  x <- x + MLP(LN_2(x))
    for n in range(n_layer):
        hf, block = f"h.{n}.", f"blocks.{n}."
        x = hook(block + "hook_resid_pre", x)

        # LN(x) = (x - mean) / sqrt(var + eps) * weight + bias  (Ba et al. 2016)
        normalized = normalise(block + "ln1.", x)
        normed = normalized * weight(hf + "ln_1.weight", d_model) + weight(hf + "ln_1.bias", d_model)

        # head_h: q = x W_Q + b_Q, k = x W_K + b_K, v = x W_V + b_V  (Vaswani et al. 2017, section 3.2.2)
        w_qkv = weight(hf + "attn.c_attn.weight", d_model, 3 * d_model)
        qkv = normed @ w_qkv + weight(hf + "attn.c_attn.bias")  # [B, P, 3 D]
        q, k, v = qkv.reshape(batch, length, 3, n_head, d_head).transpose(2, 0, 1, 3, 4)  # each [B, P, H, d]
        q, k, v = hook(block + "attn.hook_q", q), hook(block + "attn.hook_k", k), hook(block + "attn.hook_v", v)

        # scores = q k^T / sqrt(d), -inf where masked  (Vaswani et al. 2017, equation 1 and section 3.2.3)
        # [B, H, Q, d] @ [B, H, d, K] -> [B, H, Q, K]
        scores = q.transpose(0, 2, 1, 3) @ k.transpose(0, 2, 3, 1)
        if config.get("scale_attn_weights", True):
            scores = scores / math.sqrt(d_head)
        if config.get("scale_attn_by_inverse_layer_idx", False):  # an option of Hugging Face's, in no paper
            scores = scores / (n + 1)
        # `reorder_and_upcast_attn` is about the order and precision of this: nothing in exact arithmetic.
        scores = hook(block + "attn.hook_attn_scores", np.where(visible, scores, -np.inf))

        # pattern = softmax(scores);  z = pattern v  (Vaswani et al. 2017, equation 1)
        pattern = hook(block + "attn.hook_pattern", softmax(scores))
        z = (pattern @ v.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)  # [B, H, Q, d], then [B, P, H, d]
        z = hook(block + "attn.hook_z", z)

        # Concat(z_1 .. z_H) W_O + b_O = sum_h z_h W_O[h] + b_O  (Vaswani et al. 2017, section 3.2.2)
        w_o = weight(hf + "attn.c_proj.weight", d_model, d_model).reshape(n_head, d_head, -1)  # [H, d, D]
        result = (z[..., None, :] @ w_o)[..., 0, :]  # [B, P, H, 1, d] @ [H, d, D], then [B, P, H, D]
        result = hook(block + "attn.hook_result", result)
        attn_out = result.sum(axis=2) + weight(hf + "attn.c_proj.bias")  # [B, P, D]
        x = hook(block + "hook_resid_mid", x + hook(block + "hook_attn_out", attn_out))

        # MLP(x) = act(x W_in + b_in) W_out + b_out  (Vaswani et al. 2017, equation 2, with GELU for ReLU)
        normalized = normalise(block + "ln2.", x)
        normed = normalized * weight(hf + "ln_2.weight", d_model) + weight(hf + "ln_2.bias", d_model)
        w_in = weight(hf + "mlp.c_fc.weight", d_model, d_mlp)
        pre = normed @ w_in + weight(hf + "mlp.c_fc.bias")  # [B, P, M]
        post = hook(block + "mlp.hook_post", activation(hook(block + "mlp.hook_pre", pre)))
        w_out = weight(hf + "mlp.c_proj.weight", d_mlp, d_model)
        mlp_out = post @ w_out + weight(hf + "mlp.c_proj.bias")  # [B, P, D]
        x = hook(block + "hook_resid_post", x + hook(block + "hook_mlp_out", mlp_out))

    # Radford et al. 2019, section 2.3: one more layer normalisation after the last block.
    x = normalise("ln_final.", x) * weight("ln_f.weight", d_model) + weight("ln_f.bias", d_model)

    # logits = x W_U, W_U being the token embedding transposed if tied  (Vaswani et al. 2017, section 3.4)
    w_u = weight("wte.weight" if config.get("tie_word_embeddings", True) else "lm_head.weight").T  # [D, V]
    out["logits"] = x @ w_u  # [B, P, V]
    return out


def run_bundle(
    bundle: Any,
    input_ids: np.ndarray,
    attention_mask: np.ndarray | None = None,
    change: Callable[[str, Array], Array] = lambda name, value: value,
) -> dict[str, np.ndarray]:
    """Runs the model of a bundle and returns every hook point.

    Args:
        bundle: Something that has the folder as `path` and the weights by name as `weights`.
        input_ids: As for `run`.
        attention_mask: As for `run`.
        change: As for `run`.

    Raises:
        ValueError: As `run` does.
    """
    config = json.loads((bundle.path / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] == "llama":
        stored = {n: v.T if v.ndim == 2 and n.startswith("layers.") else v for n, v in bundle.weights.items()}
        return llama_oracle.run(config, stored, input_ids, attention_mask, change=change)
    return run(config, dict(bundle.weights), input_ids, attention_mask, change=change)


def greedy(config: Mapping[str, Any], weights: Mapping[str, np.ndarray], input_ids: np.ndarray, n: int) -> np.ndarray:
    """Appends n times the most probable next token, computing everything anew each time.

    Args:
        config: As for `run`.
        weights: As for `run`.
        input_ids: The prompts, [B, P], without padding.
        n: How many tokens to append.

    Returns:
        The prompts with what follows them, [B, P + n].

    Raises:
        ValueError: As `run` does.
    """
    weights = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}  # converted once
    for _ in range(n):
        logits = run(config, weights, input_ids)["logits"]
        input_ids = np.concatenate([input_ids, logits[:, -1:].argmax(axis=-1)], axis=1)  # [B, P + 1]
    return input_ids
