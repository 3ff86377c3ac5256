"""Reads a checkpoint: from the hub, from a folder, or from a model in memory.

Anything that would make an export differ silently from the checkpoint is an error here, before any work starts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from onnxlens.export._configuration import check_configuration
from onnxlens.export._configuration_files import read_object
from onnxlens.export._gguf import is_gguf, read_gguf
from onnxlens.export._hub import download
from onnxlens.export._paths import PathError, real_path
from onnxlens.export._tokenizer import CheckpointTokenizer, read_tokenizer, special_ids, take_tokenizer
from onnxlens.export._weight_files import read_tensors
from onnxlens.export.families import Family
from onnxlens.plugins._registry import Registry
from onnxlens.runtime._bundle.generation_config import GENERATION_CONFIG, end_tokens
from onnxlens.runtime._bundle.manifest import MANIFEST
from onnxlens.runtime._bundle.other_exports import other_export
from onnxlens.runtime._bundle.weights import STORAGES, Storage, stored_dtype
from onnxlens.runtime.errors import BundleError, CheckpointError, InputError

__all__ = ["Checkpoint", "read_checkpoint", "read_model", "rounded"]

logger = logging.getLogger("onnxlens")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model read and checked, ready for export.

    Attributes:
        name: a short name, for the bundle.
        source: its origin, for the manifest.
        family: the model, as its family describes it.
        config_entries: config.json with the defaults of all entries that decide the numbers filled in.
        storage: how matrices and embeddings will be stored.
        tensors: parameters by Hugging Face's names without the prefix that all share, tied ones once, laid out as they
            will be stored; float32, and rounded to what the storage can hold: the weights of the exported model.
        tokenizer: as transformers reads it.
        generation_config: generation_config.json, or what config.json says about it.
        reference: the folder from which transformers reads the same tensors, or transformers' model in memory.
    """

    name: str
    source: dict[str, Any]
    family: Family
    config_entries: dict[str, Any]
    storage: Storage
    tensors: dict[str, Tensor]
    tokenizer: CheckpointTokenizer
    generation_config: dict[str, Any]
    reference: Path | PreTrainedModel

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end a text."""
        return end_tokens(
            self.generation_config,
            self.config_entries.get("eos_token_id"),
            self.family.cfg.d_vocab,
            origin=GENERATION_CONFIG,
        )

    @property
    def parameters(self) -> int:
        """How many numbers the weights are."""
        constants = self.family.constants()
        return sum(tensor.numel() for name, tensor in self.tensors.items() if name not in constants)

    @property
    def weights_bytes(self) -> int:
        """Size of the weights in bytes, as they will be stored."""
        return sum(t.numel() * stored_dtype(self.storage, t.shape).itemsize for t in self.tensors.values())


def read_checkpoint(
    source: str | Path,
    *,
    revision: str | None = None,
    tokenizer: str | Path | None = None,
    storage: Storage = "float32",
    plugins: Registry | None = None,
) -> Checkpoint:
    """Reads a checkpoint from a folder or from the Hugging Face hub.

    Args:
        source: a folder with config.json and model.safetensors or pytorch_model.bin; or a hub id, such as
            `openai-community/gpt2`.
        revision: branch, tag or commit, for a hub id.
        tokenizer: a tokenizer.json, or a folder that has one, where the checkpoint has none.
        storage: how matrices and embeddings will be stored.
        plugins: the plugins with model families; None for the built-in and the installed ones.

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged, or not one that can be exported.
        InputError: there is no such storage.
    """
    _check_storage(storage)
    plugins = plugins or Registry()
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"A revision is for a hub id, and {source} is a folder; leave --revision out.")
        # The name only: the folder's place on the user's disk is private.
        described: dict[str, Any] = {"kind": "folder", "id": folder.resolve().name}
    elif folder.is_file() and is_gguf(folder):
        return _read_gguf(folder, revision=revision, tokenizer=tokenizer, storage=storage, plugins=plugins)
    elif folder.exists():
        raise CheckpointError(
            f"{source} is a file, but not a GGUF file; give the checkpoint's folder, which has config.json in it."
        )
    else:
        folder, commit = download(str(source), revision)
        described = {"kind": "hub", "id": str(source), "revision": revision or "main", "commit": commit}
    if (folder / MANIFEST).is_file():
        raise CheckpointError(f"{source} is an exported bundle already; use it with 'onnxlens predict -m {source}'.")
    if (said := other_export(folder, source)) is not None:
        raise CheckpointError(said)
    _refuse_adapter(folder)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no config.json.")
    family, entries = check_configuration(read_object(folder / "config.json"), folder / "config.json", plugins)
    tensors = _check_tensors(read_tensors(folder), family, storage, str(folder))
    generation = _read_if_there(folder / GENERATION_CONFIG)
    return _checkpoint(
        name=str(described["id"]).split("/")[-1],
        source=described,
        family=family,
        config_entries=entries,
        storage=storage,
        tensors=tensors,
        tokenizer=read_tokenizer(
            _tokenizer_path(tokenizer) if tokenizer else folder,
            config=_least_tokenizer_config(family),
            special=special_ids(entries, generation),
        ),
        generation_config=generation,
        reference=folder,
    )


def _read_gguf(
    path: Path, *, revision: str | None, tokenizer: str | Path | None, storage: Storage, plugins: Registry
) -> Checkpoint:
    if revision is not None:
        raise CheckpointError(f"A revision is for a hub id, and {path} is a file; leave --revision out.")
    model, read = read_gguf(path, plugins)
    del model.config.quantization_config  # the dequantised model is exported
    described = {"kind": "gguf", "id": path.name}

    def found(config: dict[str, Any], special: dict[str, int]) -> CheckpointTokenizer:
        if tokenizer is None:
            return read
        return read_tokenizer(_tokenizer_path(tokenizer), config=config, special=special)

    return _from_model(
        model, found, name=path.stem, source=described, storage=storage, origin=str(path), plugins=plugins
    )


def read_model(
    model: PreTrainedModel,
    tokenizer: str | Path | Tokenizer,
    *,
    name: str = "model",
    storage: Storage = "float32",
    plugins: Registry | None = None,
) -> Checkpoint:
    """Takes a model in memory as a checkpoint.

    Args:
        model: a model of transformers with an unembedding; it is read, not changed.
        tokenizer: the tokenizers library's Tokenizer, or the path of a tokenizer.json or of its folder.
        name: the name of the bundle.
        storage: how matrices and embeddings will be stored.
        plugins: the plugins with model families; None for the built-in and the installed ones.

    Raises:
        CheckpointError: this is not a model of transformers, or not one that can be exported.
        InputError: there is no such storage.
    """
    _check_storage(storage)
    if not isinstance(model, PreTrainedModel):
        raise CheckpointError(f"Expected a model of transformers, got a {type(model).__name__}.")

    def read(config: dict[str, Any], special: dict[str, int]) -> CheckpointTokenizer:
        if isinstance(tokenizer, Tokenizer):
            return take_tokenizer(tokenizer, config=config, special=special)
        return read_tokenizer(_tokenizer_path(tokenizer), config=config, special=special)

    described = {"kind": "memory", "id": name}
    return _from_model(
        model,
        read,
        name=name,
        source=described,
        storage=storage,
        origin="the model in memory",
        plugins=plugins or Registry(),
    )


def _from_model(
    model: PreTrainedModel,
    tokenizer: Callable[[dict[str, Any], dict[str, int]], CheckpointTokenizer],
    *,
    name: str,
    source: dict[str, Any],
    storage: Storage,
    origin: str,
    plugins: Registry,
) -> Checkpoint:
    written = json.loads(model.config.to_json_string(use_diff=False))
    family, entries = check_configuration(written, "the model's config", plugins)
    if not isinstance(model, family.REFERENCE):
        raise CheckpointError(f"Expected a transformers {family.REFERENCE.__name__}, got a {type(model).__name__}.")
    generation = json.loads(model.generation_config.to_json_string(use_diff=True))
    return _checkpoint(
        name=name,
        source=source,
        family=family,
        config_entries=entries,
        storage=storage,
        tensors=_check_tensors(model.state_dict(), family, storage, origin),
        tokenizer=tokenizer(_least_tokenizer_config(family), special_ids(entries, generation)),
        generation_config=generation,
        reference=model,
    )


def _checkpoint(**parts: Any) -> Checkpoint:
    """Fills in optional files of a checkpoint, and checks that tokenizer and model fit."""
    family, entries = parts["family"], parts["config_entries"]
    _check_fit(parts["tokenizer"].tokenizer, family.cfg.d_vocab)
    ends = {key: entries[key] for key in ("bos_token_id", "eos_token_id") if entries.get(key) is not None}
    if parts["generation_config"] is None:
        parts["generation_config"] = {"_from_model_config": True, **ends}
    checkpoint = Checkpoint(**parts)
    try:
        _ = checkpoint.end_tokens
    except BundleError as error:
        raise CheckpointError(str(error)) from error
    return checkpoint


def _check_fit(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Checks that a tokenizer belongs to a model.

    Some tokenizers have a few entries more than the model, such as a token for padding that no text holds: 1 % of the
    model's vocabulary may be too many, or one. Many models have more tokens than their tokenizer, since sizes that a
    large power of two divides are faster; a tokenizer with fewer than half of the model's tokens is accepted with a
    warning.
    """
    ids = tokenizer.get_vocab().values()
    beyond = sum(token >= vocab_size for token in ids)
    if beyond > max(1, vocab_size // 100):
        raise CheckpointError(
            f"The tokenizer has ids up to {max(ids)}, but the model has only {vocab_size} tokens; they do not belong "
            "together."
        )
    if beyond:
        logger.warning(
            "%d entries of the tokenizer lie beyond the model's %d tokens; a text with one of them is an error.",
            beyond,
            vocab_size,
        )
    if 2 * len(ids) < vocab_size:
        logger.warning(
            "The tokenizer has %d entries, and the model %d tokens: it seems to belong to another model.",
            len(ids),
            vocab_size,
        )


def _least_tokenizer_config(family: Family) -> dict[str, Any]:
    return {"tokenizer_class": family.TOKENIZER_CLASS, "model_max_length": family.cfg.n_ctx}


def _tokenizer_path(tokenizer: str | Path) -> Path:
    try:
        path = real_path(tokenizer)
    except PathError as error:
        raise CheckpointError(f"Cannot read the tokenizer {tokenizer}: {error}.") from error
    if not path.exists():
        raise CheckpointError(f"There is no tokenizer {tokenizer}: name an existing tokenizer.json, or its folder.")
    if path.is_dir() and not ((path / "tokenizer.json").is_file() or (path / "vocab.json").is_file()):
        raise CheckpointError(f"The folder {tokenizer} has no tokenizer: no tokenizer.json, and no vocab.json.")
    return path


def _refuse_adapter(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} has an adapter_config.json, so it is, or contains, a PEFT adapter, which changes a model's "
            "weights. Merge it into its model and save that (merge_and_unload() and save_pretrained() in PEFT); or "
            "remove adapter_config.json, to export the model without the adapter."
        )


def _read_if_there(path: Path) -> dict[str, Any] | None:
    return read_object(path) if path.exists() else None


def _check_storage(storage: str) -> None:
    if storage not in STORAGES:
        raise InputError(f"storage must be {' or '.join(map(repr, STORAGES))}, not {storage!r}.")


def _check_tensors(state: dict[str, Tensor], family: Family, storage: Storage, origin: str) -> dict[str, Tensor]:
    """Checks the parameters, and returns them rounded to their storage, under their short names."""
    found: dict[str, Tensor] = {}
    for stored, tensor in state.items():
        name = stored.removeprefix(family.PREFIX)
        if name in found:
            raise CheckpointError(f"{origin}: {name!r} appears twice, with and without '{family.PREFIX}' before it.")
        if not family.is_buffer(name):
            found[name] = tensor
    layers = family.cfg.n_layers
    if layers > len(found):  # before that many names are made
        raise CheckpointError(
            f"{origin}: config.json says '{family.LAYERS}': {layers}, and the number of tensors is {len(found)}; they "
            "do not belong together."
        )
    expected = family.parameter_shapes()
    embedding, unembedding = family.EMBEDDING, family.UNEMBEDDING
    if family.tied and unembedding in found:
        # Of two tensors that share memory, safetensors' save_model stores the one whose name sorts first.
        head = found.pop(unembedding)
        if not torch.equal(head, found.setdefault(embedding, head)):
            raise CheckpointError(
                f"{origin}: config.json ties the output projection to the embedding, but {unembedding} differs "
                f'from {embedding}; set "tie_word_embeddings": false, or remove {unembedding}.'
            )
    missing = [name for name in expected if name not in found]
    if missing:
        raise CheckpointError(f"{origin}: {len(missing)} tensors are missing, the first is {missing[0]!r}.")
    unexpected = [name for name in found if name not in expected]
    if unexpected:
        raise CheckpointError(
            f"{origin}: {len(unexpected)} tensors do not belong to a {family.MODEL_TYPE} of this configuration, "
            f"the first is {unexpected[0]!r}."
        )
    for name, shape in expected.items():
        tensor, wanted = found[name], family.checkpoint_shape(name, shape)
        if tuple(tensor.shape) != wanted:
            raise CheckpointError(f"{origin}: {name!r} has shape {list(tensor.shape)}, expected {list(wanted)}.")
        if not tensor.is_floating_point():
            raise CheckpointError(f"{origin}: {name!r} is {tensor.dtype}, expected floating-point numbers.")
        found[name] = family.stored(name, tensor.detach().to("cpu", torch.float32)).contiguous()
        if not torch.isfinite(found[name]).all():
            raise CheckpointError(f"{origin}: {name!r} holds NaN or infinite values; the checkpoint is damaged.")
        low, high = found[name].aminmax()
        largest, limit = float(max(-low, high)), float(np.finfo(stored_dtype(storage, shape)).max)
        if largest > limit:
            raise CheckpointError(
                f"{origin}: {name!r} holds values up to {largest:,.0f}, and {storage} ends at {limit:,.0f}; "
                "store the weights as float32."
            )
        found[name] = rounded(found[name], storage)
    return {**{name: found[name] for name in expected}, **family.constants()}


def rounded(tensor: Tensor, storage: Storage) -> Tensor:
    """A float32 parameter rounded to its stored data type, as float32 again.

    Values below 6e-8, the smallest number of float16, may become 0; the verification report states the effect of
    rounding.
    """
    return tensor.half().float() if stored_dtype(storage, tuple(tensor.shape)) == np.float16 else tensor
