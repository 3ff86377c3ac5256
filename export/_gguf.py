"""Reads a GGUF file, the format of llama.cpp: configuration, tokenizer, and weights, which transformers dequantises."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from onnxlens.export._configuration import quiet
from onnxlens.export._tokenizer import CheckpointTokenizer, read_tokenizer, special_ids
from onnxlens.export.families.registered import family_of, known_families
from onnxlens.plugins._registry import Registry
from onnxlens.runtime._escape import quoted
from onnxlens.runtime._panics import one_line
from onnxlens.runtime.errors import CheckpointError

__all__ = ["is_gguf", "read_gguf"]

_MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Whether a file is a GGUF file, judged by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_gguf(path: Path, plugins: Registry) -> tuple[PreTrainedModel, CheckpointTokenizer]:
    """Reads model and tokenizer.

    Args:
        path: the file; all of its tensors must be in it.
        plugins: where families come from.

    Returns:
        The model, float32, with dequantised weights; and the tokenizer.

    Raises:
        CheckpointError: the file is damaged, cut off, or of an architecture that is not known; tensors are missing; or
            the packages that read such files are not installed.
    """
    kind = _architecture(path)
    if plugins.find("family", kind) is None:
        raise CheckpointError(
            f"{path} is a GGUF file of the architecture {quoted(kind)}, and {known_families(plugins)}"
        )
    try:
        with quiet():
            found: Any = family_of(kind, str(path), plugins).REFERENCE.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
                local_files_only=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except Exception as error:  # the kind of error depends on the place of the damage
        raise CheckpointError(f"{path} cannot be read as a GGUF file: {_reason(error)}.") from error
    model, report = found
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} tensors are missing, the first is {quoted(missing[0])}.")
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        _forget_length(Path(scratch) / "tokenizer_config.json")
        return model, read_tokenizer(Path(scratch), special=special_ids(model.config.to_dict()))


def _architecture(path: Path) -> str:
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise CheckpointError(
            "GGUF files need the packages gguf and accelerate, which come with: pip install 'onnxlens[export]'."
        ) from error
    try:
        fields = GGUFReader(path).fields
        found: Any = fields["general.architecture"].contents()
    except Exception as error:  # of many kinds, for damage in many places
        detail = f"it has no {error}" if isinstance(error, KeyError) else _reason(error)
        raise CheckpointError(f"{path} is damaged or cut off: {detail}. Get the file again.") from error
    return str(found)


def _reason(error: BaseException) -> str:
    return one_line(error) or type(error).__name__


def _forget_length(file: Path) -> None:
    """Removes the longest length of a text, which transformers sets to 10^30 if it is not known."""
    entries = json.loads(file.read_text(encoding="utf-8"))
    entries.pop("model_max_length", None)
    file.write_text(json.dumps(entries), encoding="utf-8")
