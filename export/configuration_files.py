"""The JSON files of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxlens.runtime.bundle.json_file import JsonFileError, read_json
from onnxlens.runtime.errors import CheckpointError

__all__ = ["read_object"]

_LIMIT = 10_000_000  # bytes; the index of a model with thousands of tensors has a tenth of it


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file with a JSON object in it.

    Raises:
        CheckpointError: it is not there, too large, or no JSON object.
    """
    try:
        entries = read_json(path, _LIMIT, nan=False)  # what is read goes into the bundle, for any reader of JSON
    except JsonFileError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return entries
