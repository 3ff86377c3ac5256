"""Names in the graphs: inputs and outputs of the model, and what requests add."""

from __future__ import annotations

from functools import cache
from typing import Literal

from onnxlens.runtime._bundle.config import ModelConfig

__all__ = [
    "COTANGENT",
    "EMBEDDED",
    "EMBEDDING",
    "FINAL",
    "GRADIENT",
    "POSITIONS",
    "ROWS",
    "UNEMBEDDING_PART",
    "EditKind",
    "cache_inputs",
    "cache_outputs",
    "cache_shape",
    "edit_inputs",
    "feed_input",
    "join_input",
    "uncalled",
]

EditKind = Literal["set", "affine"]

# The input with the rows of W_E, which are looked up by token id outside of the graph.
EMBEDDED = "embedded"

# The value that the unembedding reads; kept in the graph so that a request can cut it down to the last position.
FINAL = "ln_final.output"

# The input with some rows of W_U's transpose, where the logits of those tokens alone are computed.
UNEMBEDDING_PART = "unembed.part"

# The input that says which positions are read, where not all are.
POSITIONS = "read.positions"

# The input that says which rows of the KV cache the rows of a pass continue, where they are not the same.
ROWS = "past.rows"

# Before a value's name: the gradient at that value.
GRADIENT = "grad."
COTANGENT = f"{GRADIENT}logits"

# The value that a request for gradients may feed in place of computing it from the token ids.
EMBEDDING = "hook_embed"


def uncalled(name: str) -> str:
    """The name of a hook point's value before Python functions have seen it."""
    return f"{name}.before"


def feed_input(name: str) -> str:
    """The name of the input with a hook point's value."""
    return f"{name}.fed"


def join_input(name: str) -> str:
    """The name of the input with the rows that join at a hook point."""
    return f"{name}.joining"


def edit_inputs(index: int, kind: EditKind) -> tuple[str, ...]:
    """Names of an edit's inputs: which elements, the value, and for `affine` the factor."""
    parts = ("where", "value") if kind == "set" else ("where", "value", "factor")
    return tuple(f"edit.{index}.{part}" for part in parts)


def cache_shape(config: ModelConfig, batch: int, length: int) -> tuple[int, int, int, int]:
    """The shape of the keys, and of the values, of each layer."""
    return batch, config.key_value_heads, length, config.d_head


@cache  # asked for several times in every pass
def cache_inputs(config: ModelConfig) -> tuple[str, ...]:
    """Names of the graph's cache inputs, keys and values in turn."""
    return tuple(f"past_key_values.{layer}.{part}" for layer in range(config.n_layers) for part in ("key", "value"))


@cache
def cache_outputs(config: ModelConfig) -> tuple[str, ...]:
    """Names of the graph's cache outputs, in the order of the inputs."""
    return tuple(name.replace("past_key_values", "present") for name in cache_inputs(config))
