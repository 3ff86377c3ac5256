"""The weights file of a bundle: ONNX external data that is a safetensors file at the same time.

ONNX needs no more of an external data file than that each tensor lies at a stated offset, and safetensors states just
that in its header. So one file serves the graphs, and any safetensors reader finds every weight by name.

A model computes in float32. Its weights are stored as float32, or its matrices as float16, which a graph widens before
it uses them.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from onnxlens.runtime.errors import BundleError

__all__ = ["STORAGES", "Storage", "TensorEntry", "WeightsFile", "stored_dtype"]

Storage = Literal["float32", "float16"]
STORAGES: tuple[Storage, ...] = get_args(Storage)

_DTYPES = {"F32": "<f4", "F16": "<f2"}
_MAX_HEADER = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: its data type, shape, and bytes from the start of the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    length: int


def stored_dtype(storage: str, shape: tuple[int, ...]) -> np.dtype[Any]:
    """The data type in which a parameter of this shape is stored.

    `float16` holds for matrices and embeddings. Biases and the weights of layer normalisation stay float32: they are
    less than a hundredth of a model, and each of them acts on every position in full.
    """
    return np.dtype(storage if len(shape) > 1 else "float32")


class WeightsFile(Mapping[str, np.ndarray]):
    """Reads tensors by name from a safetensors file, memory-mapped and read-only.

    Every value is handed out as the model uses it, in float32: a tensor stored so is a view of the file, one stored as
    float16 is widened into memory of its own at each access.

    Args:
        path: the file; only its header is read at once.

    Raises:
        BundleError: there is no such file, its header is damaged, or a tensor in it is neither float32 nor float16.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries, self.header_sha256 = _read_header(path)

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        stored = np.memmap(self.path, mode="r", dtype=entry.dtype, shape=entry.shape, offset=entry.offset)
        value = stored if entry.dtype == np.float32 else np.asarray(stored, np.float32)
        value.flags.writeable = False
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def _read_header(path: Path) -> tuple[dict[str, TensorEntry], str]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _MAX_HEADER + 1
            header = file.read(length) if length <= min(_MAX_HEADER, size - 8) else b""
    except OSError as error:
        raise BundleError(f"Cannot read the weights file {path}: {error.strerror}.") from error
    damaged = BundleError(
        f"The weights file {path} is damaged: its header cannot be read. Export or copy the bundle again."
    )
    try:
        entries = json.loads(header)
        for name, entry in entries.items():
            if name != "__metadata__" and entry["dtype"] not in _DTYPES:
                raise BundleError(
                    f"The weights file {path} has {name!r} as {str(entry['dtype'])!r}; onnxlens reads weights stored "
                    f"as {' and '.join(_DTYPES)}. Export or copy the bundle again."
                )
        tensors = {name: _entry(entry, 8 + length) for name, entry in entries.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise damaged from error
    if any(tensor.offset + tensor.length > size for tensor in tensors.values()):
        raise BundleError(
            f"The weights file {path} is truncated: its header promises more than its {size} bytes. "
            "Export or copy the bundle again."
        )
    return tensors, hashlib.sha256(prefix + header).hexdigest()


def _entry(entry: dict[str, Any], start: int) -> TensorEntry:
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    begin, end = entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    if begin < 0 or end - begin != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ValueError("a tensor's length does not fit its shape")
    return TensorEntry(dtype, shape, start + begin, end - begin)
