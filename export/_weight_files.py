"""Reads the tensors of a checkpoint's weight files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from onnxlens.export._shards import weight_files
from onnxlens.runtime.errors import CheckpointError

__all__ = ["read_tensors"]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Reads all tensors of a checkpoint, by their names.

    Raises:
        CheckpointError: there are no weights, or a file is damaged or holds more than weights.
    """
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        found = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickled(path)
        if twice := sorted(tensors.keys() & found.keys()):
            raise CheckpointError(f"{path}: {twice[0]!r} is in another file of the checkpoint, too.")
        tensors |= found
    return tensors


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {_one_line(error)}") from error


def _load_pickled(path: Path) -> dict[str, Tensor]:
    try:
        # weights_only: a pickle may carry code, and this refuses to run it.
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise any error
        raise CheckpointError(f"{path} is damaged, or holds more than weights: {_one_line(error)}") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CheckpointError(f"{path} does not hold a state dict of tensors.")
    for name, value in state.items():
        # A few bytes can declare any shape: with strides of 0, without storage, or as a sparse tensor.
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not plain or value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise CheckpointError(f"{path}: {name!r} is not stored as a dense array.")
    return state


def _one_line(error: BaseException) -> str:
    return " ".join(str(error)[:10_000].split())[:300]
