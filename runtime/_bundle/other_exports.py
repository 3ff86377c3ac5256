"""Tells what a folder is that another tool exported, for the errors where it is taken for a bundle or a checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from onnxlens.runtime._bundle.json_file import JsonFileError, read_json

__all__ = ["other_export"]

_HOOKS = "onnx/model_hooks.onnx"  # as no other tool writes it
_LIMIT = 20_000_000  # bytes of a configuration
_LONGEST = 300  # characters of a name
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")  # which a checkpoint has, whatever graphs lie beside them


def other_export(folder: Path, shown: str | Path | None = None) -> str | None:
    """Says what a folder with another tool's graphs is, and how to make a bundle of the model.

    Args:
        folder: the folder.
        shown: what to call it; None for its path.

    Returns:
        A sentence or two; None where it is no such folder, or has a checkpoint's weights as well. A bundle without its
        manifest is one, too.
    """
    if any(any(folder.glob(weights)) for weights in _WEIGHTS):
        return None
    name = folder if shown is None else shown
    if (folder / _HOOKS).is_file():
        return f"{name} was a bundle, and has lost its manifest, onnxlens.json. Copy or export it again."
    config = _entries(folder / "config.json")
    if (folder / "genai_config.json").is_file():
        kind = "an export of onnxruntime-genai's model builder"
    elif any((folder / "onnx").glob("*.onnx")) or "transformers.js_config" in config:
        kind = "an ONNX export in the layout of transformers.js and onnx-community"
    elif any(folder.glob("*.onnx")):
        kind = "an ONNX export such as Optimum's"
    else:
        return None
    origin = _origin(folder, config)
    named = origin is not None
    how = f"onnxlens export {shlex.quote(origin) if origin else 'CHECKPOINT'} FOLDER"
    return (
        f"{name} is {kind}: it has neither onnxlens.json, as a bundle, nor weights, as a "
        f"checkpoint. Make a bundle of the checkpoint that it came from{'' if named else ', by its folder or hub id'}: "
        f"{how}"
    )


def _origin(folder: Path, config: dict[str, Any]) -> str | None:
    """The checkpoint's hub id or path, where a configuration says it."""
    for name in (config.get("_name_or_path"), _entries(folder / "tokenizer_config.json").get("name_or_path")):
        # Its own path leads back to here.
        if isinstance(name, str) and 0 < len(name) <= _LONGEST and Path(name).name != folder.resolve().name:
            return name
    return None


def _entries(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path, _LIMIT)
    except JsonFileError:
        return {}
    return found if isinstance(found, dict) else {}
