"""The weights file of a bundle: ONNX external data that is a safetensors file at the same time.

ONNX only needs the offset of each tensor in an external data file, and the header of a safetensors file states just
that. So one file serves the graphs, and any safetensors reader finds every weight by name.

A model computes in float32. Its weights are stored as float32, or its matrices as float16, which a graph widens before
it uses them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from onnxlens.runtime._bundle.open_file import OpenFile
from onnxlens.runtime._bundle.tensor_file import DamagedError, DataTypeError, TensorHeader, TruncatedError, read_header
from onnxlens.runtime.errors import BundleError

__all__ = ["STORAGES", "Storage", "WeightsFile", "stored_dtype"]

Storage = Literal["float32", "float16"]
STORAGES: tuple[Storage, ...] = get_args(Storage)

_DTYPES = {"F32": "<f4", "F16": "<f2"}


def stored_dtype(storage: str, shape: tuple[int, ...]) -> np.dtype[Any]:
    """The data type in which a parameter of this shape is stored.

    `float16` holds for matrices and embeddings. Biases and the weights of layer normalisation stay float32: they are
    less than a hundredth of a model, and each of them acts on every position in full.
    """
    return np.dtype(storage if len(shape) > 1 else "float32")


class WeightsFile(Mapping[str, np.ndarray]):
    """Reads tensors by name from a safetensors file, memory-mapped once and read-only.

    Every value is handed out as the model uses it, in float32: a tensor stored so is a view of the file, one stored as
    float16 is widened into memory of its own at each access.

    Args:
        file: the file, or its path; only its header is read at once.

    Attributes:
        path: the file's path.
        entries: where each tensor lies in it, by name.
        header_sha256: the SHA-256 of its header.
        file: the open file.
        bytes: all of it, mapped, [size] uint8.

    Raises:
        BundleError: there is no such file, its header is damaged, or a tensor in it is neither float32 nor float16.
            Later, at each access: the file was cut or overwritten.
    """

    def __init__(self, file: Path | OpenFile) -> None:
        self.path = file.path if isinstance(file, OpenFile) else file
        self.file, header = _opened(file)
        self.entries, self.header_sha256 = header.entries, header.sha256
        self.bytes = self.file.map()

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        self.file.check()
        stored = self.bytes[entry.offset : entry.offset + entry.length].view(entry.dtype).reshape(entry.shape)
        value = stored if entry.dtype == np.float32 else np.asarray(stored, np.float32)
        value.flags.writeable = False
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def _opened(file: Path | OpenFile) -> tuple[OpenFile, TensorHeader]:
    path = file.path if isinstance(file, OpenFile) else file
    try:
        opened = file if isinstance(file, OpenFile) else OpenFile(file)
        return opened, read_header(opened, _DTYPES)
    except OSError as error:
        raise BundleError(f"Cannot read the weights file {path}: {error.strerror}.") from error
    except DamagedError as error:
        raise BundleError(
            f"The weights file {path} is damaged: its header cannot be read. Export or copy the bundle again."
        ) from error
    except DataTypeError as error:
        raise BundleError(
            f"The weights file {path} has {error.name!r} as {error.code!r}; onnxlens reads weights stored "
            f"as {' and '.join(_DTYPES)}. Export or copy the bundle again."
        ) from error
    except TruncatedError as error:
        raise BundleError(
            f"The weights file {path} is truncated: its header promises more than its {error.size} bytes. "
            "Export or copy the bundle again."
        ) from error
