"""Writes the files of a bundle: graphs, weights, tokenizer, configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from onnxlens.export._checkpoint import Checkpoint
from onnxlens.export._graph import plain_graph
from onnxlens.runtime._bundle.bundle import GRADIENTS_GRAPH, HOOKS_GRAPH, PLAIN_GRAPH, TOKENIZER, WEIGHTS
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.weights import WeightsFile, stored_dtype
from onnxlens.runtime._files import umask
from onnxlens.runtime.errors import OutputError

__all__ = ["write_configurations", "write_gradients", "write_graphs", "write_weights"]


def write_weights(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes every parameter once, into the safetensors file that the graphs use as external data."""
    path = folder / WEIGHTS
    path.parent.mkdir(exist_ok=True)
    dtypes = {np.dtype(np.float32): torch.float32, np.dtype(np.float16): torch.float16}
    tensors = {
        name: tensor.to(dtypes[stored_dtype(checkpoint.storage, tuple(tensor.shape))])
        for name, tensor in checkpoint.tensors.items()
    }
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OutputError(f"Cannot write {path}: {error}. Nothing was written.") from error
    path.chmod(0o666 & ~umask())


def write_graphs(hooks: ir.Model, folder: Path) -> None:
    """Writes both graphs, their weights pointing into the weights file, which must exist already."""
    _point_into(hooks, WeightsFile(folder / WEIGHTS))
    ir.save(plain_graph(hooks), folder / PLAIN_GRAPH)
    ir.save(hooks, folder / HOOKS_GRAPH)


def write_gradients(gradients: ir.Model, folder: Path) -> None:
    """Writes the graph of the gradients, its weights pointing into the same file."""
    _point_into(gradients, WeightsFile(folder / WEIGHTS))
    ir.save(gradients, folder / GRADIENTS_GRAPH)


def _point_into(model: ir.Model, weights: WeightsFile) -> None:
    for name, value in model.graph.initializers.items():
        if (entry := weights.entries.get(name)) is not None:
            dtype = ir.DataType.from_numpy(entry.dtype)
            value.const_value = ir.ExternalTensor(
                location=weights.path.name,
                offset=entry.offset,
                length=entry.length,
                dtype=dtype,
                shape=ir.Shape(entry.shape),
                name=name,
                base_dir=weights.path.parent,
            )
            value.shape, value.type = ir.Shape(entry.shape), ir.TensorType(dtype)
            if dtype != ir.DataType.FLOAT:
                _widen(model.graph, value)


def _widen(graph: ir.Graph, stored: ir.Value) -> None:
    """Inserts one Cast to float32 for each weight, before its first use, and makes all nodes use it."""
    used = stored.uses()
    cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT})
    cast.outputs[0].name = cast.name = f"{stored.name}.float32"
    cast.outputs[0].shape, cast.outputs[0].type = stored.shape, ir.TensorType(ir.DataType.FLOAT)
    for node, index in used:
        node.replace_input_with(index, cast.outputs[0])
    users = {node for node, _ in used}
    graph.insert_before(next(node for node in graph if node in users), cast)


def write_configurations(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes the tokenizer, and the configuration files that this and other runtimes read."""
    (folder / TOKENIZER).write_text(checkpoint.tokenizer.tokenizer.to_str(pretty=True), encoding="utf-8")
    # transformers.js loads external data only if the configuration declares it.
    entries = {
        **checkpoint.config_entries,
        "dtype": "float32",
        "transformers.js_config": {
            "use_external_data_format": {"model.onnx": 1},
            "kv_cache_dtype": "float32",
        },
    }
    _write_json(folder / "config.json", entries)
    _write_json(folder / "generation_config.json", checkpoint.generation_config)
    _write_json(folder / "tokenizer_config.json", checkpoint.tokenizer.config)
    _write_json(folder / "genai_config.json", _genai_config(checkpoint.family.cfg, checkpoint.end_tokens))


def _genai_config(config: ModelConfig, end_tokens: tuple[int, ...]) -> dict[str, Any]:
    """The configuration of onnxruntime-genai: the names of the graph's inputs and outputs."""
    ends = list(end_tokens) or [config.d_vocab]  # an id that no token has: nothing ends a text
    start = config.bos_token_id if config.bos_token_id in range(config.d_vocab) else ends[0]
    return {
        "model": {
            # Its type "gpt2" expects keys and values in one tensor, as older exporters write them.
            "type": "decoder",
            "context_length": config.n_ctx,
            "vocab_size": config.d_vocab,
            "bos_token_id": start,
            "eos_token_id": ends[0] if len(ends) == 1 else ends,
            # Genai masks every occurrence of the padding token in a prompt, so no token may be it; and it feeds padding
            # to the graph, where -1 looks up the last token and the vocabulary's size would be an error.
            "pad_token_id": -1,
            "decoder": {
                "filename": PLAIN_GRAPH,
                "session_options": {"provider_options": []},
                "num_hidden_layers": config.n_layers,
                "num_attention_heads": config.n_heads,
                "num_key_value_heads": config.key_value_heads,
                "head_size": config.d_head,
                "hidden_size": config.d_model,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": config.n_ctx,
            "past_present_share_buffer": False,
        },
    }


def _write_json(path: Path, entries: dict[str, Any]) -> None:
    text = json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_bytes(text.encode("utf-8", "backslashreplace"))  # lone surrogates are written escaped, as they were read
