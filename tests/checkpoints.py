"""Makes small checkpoints, as Hugging Face writes them, for the tests to export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from onnxlens.export.families import Family

END_OF_TEXT = "<|endoftext|>"

_BASE: dict[str, Any] = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "n_positions": 48,
    "vocab_size": 300,
    "bos_token_id": 0,
    "eos_token_id": 0,
}

# One for each switch that changes what is computed; the exports are shared between all tests.
CONFIGS: dict[str, dict[str, Any]] = {
    "base": {},
    "wide": {
        "n_layer": 3,
        "n_head": 2,
        "n_inner": 50,
        "activation_function": "gelu",
        "layer_norm_epsilon": 1e-3,
    },
    "untied": {
        "n_head": 1,
        "tie_word_embeddings": False,
        "activation_function": "relu",
        "scale_attn_weights": False,
    },
    "scaled": {
        "n_layer": 4,
        "n_embd": 24,
        "activation_function": "silu",
        "scale_attn_by_inverse_layer_idx": True,
        "reorder_and_upcast_attn": True,
    },
}

_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "hidden_size": 36,
    "intermediate_size": 50,
    "max_position_embeddings": 48,
    "vocab_size": 300,
    "bos_token_id": 0,
    "eos_token_id": 0,
}

# Models of the second family: grouped keys, one key head, as many as heads; tied and not; biases; rotations.
LLAMAS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "single": {
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 10,
        "rms_norm_eps": 1e-3,
        "hidden_act": "gelu",
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 24,
        },
    },
    "biased": {
        "num_key_value_heads": 6,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0},
    },
}

# All of them.
MODELS = {**CONFIGS, **LLAMAS}


def config_entries(name: str = "base", **changes: Any) -> dict[str, Any]:
    """The entries of config.json of one of `CONFIGS` or `LLAMAS`, with changes."""
    if name in LLAMAS:
        return {**_LLAMA, **LLAMAS[name], **changes}
    return {**_BASE, **CONFIGS[name], **changes}


def family(config: dict[str, Any]) -> Family:
    """The model of a configuration, as its family describes it."""
    from onnxlens.export.families import family_of

    return family_of(config.get("model_type", "gpt2"), "here")(config, "here")


def random_weights(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Weights large enough that attention is not uniform and every bias matters."""
    rng = np.random.default_rng(seed)
    weights = {}
    made = family(config)
    for name, shape in made.parameter_shapes().items():
        values = rng.normal(0, 0.25, made.checkpoint_shape(name, shape))
        is_scale = "norm" in name or (".ln_" in name and name.endswith("weight")) or name == "ln_f.weight"
        weights[name] = (values + 1 if is_scale else values).astype(np.float32)
    return weights


def stored_as_float16(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What float16 storage leaves of weights: matrices and embeddings rounded, vectors as they were; all float32."""
    with np.errstate(over="ignore"):
        return {name: v.astype(np.float16).astype(np.float32) if v.ndim == 2 else v for name, v in weights.items()}


def tokenizer(size: int = 290) -> Tokenizer:
    """A byte-level BPE of GPT-2's kind with `size` tokens, `<|endoftext|>` first."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = ["the cat and the dog sat on the mat and the hat", "when the rain in spain falls on the plain"] * 4
    bpe.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return bpe


def write_checkpoint(
    folder: Path,
    name: str = "base",
    *,
    weights: dict[str, np.ndarray] | None = None,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Writes config.json, model.safetensors and tokenizer.json; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config_entries(name, **changes)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        weights if weights is not None else random_weights(config, seed),
        folder / "model.safetensors",
        {"format": "pt"},
    )
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder
