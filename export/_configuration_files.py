"""The JSON files of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxlens.runtime._bundle.json_file import JsonFileError, read_json
from onnxlens.runtime.errors import CheckpointError

__all__ = ["read_object"]

_LIMIT = 10_000_000  # bytes; the index of a model with thousands of tensors has a tenth of it


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file with a JSON object in it.

    Raises:
        CheckpointError: it does not exist, is too large, or is not a JSON object.
    """
    try:
        entries = read_json(path, _LIMIT, nan=False)  # the content goes into the bundle, for any JSON parser
    except JsonFileError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return entries
