"""Writes small Llama models as GGUF files, in llama.cpp's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from checkpoints import config_entries, random_weights, tokenizer

__all__ = ["ENTRIES", "write_gguf"]

# Rows of 32 numbers and more, which blocks of quantised numbers divide.
ENTRIES = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "tie_word_embeddings": True,
}

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(
    path: Path, kind: str = "F32", *, architecture: str = "llama", without: str = ""
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Writes a file; returns the model's configuration, and its weights as they are after quantisation.

    Args:
        path: the file.
        kind: the type in which matrices are stored, by gguf's name.
        architecture: what the file says.
        without: a tensor to leave out, by Hugging Face's name.
    """
    config = config_entries("llama", **ENTRIES)
    weights = random_weights(config, seed=2)
    quantised = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, config["vocab_size"])
    for name, value in weights.items():
        if name == without:
            continue
        values = gguf.quantize(value, quantised) if value.ndim == 2 else value
        weights[name] = gguf.dequantize(values, quantised) if value.ndim == 2 else value
        for heads, part in (("num_attention_heads", "q_proj"), ("num_key_value_heads", "k_proj")):
            if part in name:
                values = _interleaved(values, config[heads])
        writer.add_tensor(_stored_name(name), values, raw_dtype=quantised if value.ndim == 2 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return config, weights


def _interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rows of each head as llama.cpp has them: both of a pair that is rotated side by side."""
    return np.ascontiguousarray(rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape))


def _stored_name(name: str) -> str:
    if name == "embed_tokens.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, layer, rest = name.split(".", 2)
    part, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{_NAMES[part]}.{kind}"


def _add_tokenizer(writer: gguf.GGUFWriter, size: int) -> None:
    document = json.loads(tokenizer().to_str())["model"]
    tokens = sorted(document["vocab"], key=document["vocab"].__getitem__)
    tokens += [f"<unused {number}>" for number in range(size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, *(1 for _ in tokens[1:])])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in document["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
