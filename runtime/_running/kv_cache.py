"""The keys and values of positions already computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._graphs.names import cache_inputs, cache_shape
from onnxlens.runtime.errors import InputError

__all__ = ["KVCache"]


class KVCache:
    """Keys and values of earlier positions, kept where the model runs (on the GPU for CUDA).

    A cache is never changed: a pass takes one and returns a longer one, so several continuations can start from it.

    Attributes:
        attention_mask: [B, T] int64, 0 where a position is padding.
        values: for each cache input of the graph its value, [B, K, T, d_head] float32, K heads for keys
            and values.
    """

    def __init__(self, attention_mask: np.ndarray, values: Mapping[str, onnxruntime.OrtValue]) -> None:
        self.attention_mask = attention_mask
        self.values = values

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_numpy, (self.attention_mask, {name: value.numpy() for name, value in self.values.items()})

    @classmethod
    def empty(cls, config: ModelConfig, batch: int) -> KVCache:
        """A cache of no positions."""
        nothing = np.zeros(cache_shape(config, batch, 0), np.float32)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(nothing)
        return cls(np.zeros((batch, 0), np.int64), dict.fromkeys(cache_inputs(config), value))

    def fits(self, config: ModelConfig) -> bool:
        """Whether it is a cache of a model of this shape."""
        shape = [*cache_shape(config, self.batch, len(self))]
        return tuple(self.values) == cache_inputs(config) and all(v.shape() == shape for v in self.values.values())

    @property
    def batch(self) -> int:
        """Number of rows."""
        return int(self.attention_mask.shape[0])

    def __len__(self) -> int:
        """Number of positions, padding included."""
        return int(self.attention_mask.shape[1])

    def until(self, position: int) -> KVCache:
        """A cache of the positions before one of them."""
        values = {name: value.numpy()[:, :, :position] for name, value in self.values.items()}  # [B, K, T, d_head] each
        kept = {name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(v)) for name, v in values.items()}
        return KVCache(self.attention_mask[:, :position], kept)

    def numpy(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of one layer, each [B, K, T, d_head], copied.

        Raises:
            InputError: there is no such layer.
        """
        names = [name for name in self.values if name.split(".")[1] == str(layer)]
        if not names:
            raise InputError(f"The cache has no layer {layer}; it has layers 0 to {len(self.values) // 2 - 1}.")
        key, value = (self.values[name].numpy() for name in names)
        return key, value


def _from_numpy(attention_mask: np.ndarray, values: Mapping[str, np.ndarray]) -> KVCache:
    moved = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in values.items()}
    return KVCache(attention_mask, moved)
