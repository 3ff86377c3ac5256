"""The header of a safetensors file: what lies where in it, read without reading the rest.

The format (https://huggingface.co/docs/safetensors): eight bytes with the header's length, the header as JSON, which
has data type, shape and bytes of each tensor and texts under `__metadata__`, and the tensors' bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxlens.runtime._bundle.open_file import OpenFile

__all__ = ["DamagedError", "DataTypeError", "TensorEntry", "TensorHeader", "TruncatedError", "read_header"]

_MAX_HEADER = 20_000_000  # bytes; of JSON, which takes up to twenty times as many in memory


class DamagedError(Exception):
    """A file's header is not that of a safetensors file."""


class TruncatedError(Exception):
    """A file is shorter than its header says; `size` and `promised` are in bytes."""

    def __init__(self, size: int, promised: int) -> None:
        super().__init__(size, promised)
        self.size, self.promised = size, promised


class DataTypeError(Exception):
    """The tensor `name` is of a data type, `code`, that the reader does not take."""

    def __init__(self, name: str, code: str) -> None:
        super().__init__(name, code)
        self.name, self.code = name, code


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: its data type, shape, and bytes from the start of the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True)
class TensorHeader:
    """What the header of a safetensors file says.

    Attributes:
        entries: where each tensor lies, by name.
        metadata: the texts under `__metadata__`.
        sha256: of the header and its length, as hexadecimal digits.
        end: the first byte behind the last tensor.
    """

    entries: dict[str, TensorEntry]
    metadata: dict[str, str]
    sha256: str
    end: int


def read_header(file: Path | OpenFile, dtypes: Mapping[str, str]) -> TensorHeader:
    """Reads the header of a safetensors file.

    Args:
        file: the file, or its path.
        dtypes: the data types that are taken: NumPy's code by the header's.

    Raises:
        OSError: it cannot be opened.
        BundleError: it cannot be read.
        DamagedError: it is not a safetensors file, or its header is damaged.
        DataTypeError: a tensor is of another data type.
        TruncatedError: it ends before the last tensor does.
    """
    opened = file if isinstance(file, OpenFile) else OpenFile(file)
    size = opened.size
    prefix = opened.read(0, min(8, size))
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _MAX_HEADER + 1
    header = opened.read(8, length) if length <= min(_MAX_HEADER, size - 8) else b""
    try:
        # Texts are UTF-8; an escape such as \ud800 stands for a half of a character, which nothing can show or write.
        stated = json.loads(header.decode())
        json.dumps(stated, ensure_ascii=False).encode()
        metadata = stated.pop("__metadata__", {})
        for name, entry in stated.items():
            if entry["dtype"] not in dtypes:
                raise DataTypeError(name, str(entry["dtype"]))
        entries = {name: _entry(entry, dtypes, 8 + length) for name, entry in stated.items()}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise TypeError("the values under __metadata__ are not texts")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise DamagedError(str(error)) from error
    end = max((entry.offset + entry.length for entry in entries.values()), default=8 + length)
    if end > size:
        raise TruncatedError(size, end)
    return TensorHeader(entries, metadata, hashlib.sha256(prefix + header).hexdigest(), end)


def _entry(entry: dict[str, Any], dtypes: Mapping[str, str], start: int) -> TensorEntry:
    dtype = np.dtype(dtypes[entry["dtype"]])
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and 0 <= number < 2**63 for number in (begin, end, *shape)):
        raise ValueError("a tensor's shape or place is not whole numbers")
    if end - begin != dtype.itemsize * math.prod(shape):
        raise ValueError("a tensor's length does not fit its shape")
    return TensorEntry(dtype, shape, start + begin, end - begin)
