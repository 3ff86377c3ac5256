"""Reads a GPT-2 checkpoint: from the hub, from a folder, or from a model in memory.

What would make an export differ silently from the checkpoint is refused here, by name, before any work starts.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GPT2LMHeadModel

from onnxlens.export.configuration import check_configuration
from onnxlens.export.configuration_files import read_object
from onnxlens.export.hub import download
from onnxlens.export.paths import PathError, real_path
from onnxlens.export.tokenizer import CheckpointTokenizer, read_tokenizer, take_tokenizer
from onnxlens.export.weight_files import read_tensors
from onnxlens.runtime.bundle import parameter_shapes
from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.errors import BundleError, CheckpointError, InputError
from onnxlens.runtime.generation_config import GENERATION_CONFIG, end_tokens
from onnxlens.runtime.manifest import MANIFEST
from onnxlens.runtime.weights import STORAGES, Storage, stored_dtype

__all__ = ["Checkpoint", "read_checkpoint", "read_model", "rounded"]

logger = logging.getLogger("onnxlens")

_BUFFERS = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # causal masks that old checkpoints store


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A GPT-2 read and checked, ready for export.

    Attributes:
        name: a short name, for the bundle.
        source: where it came from, as the manifest states it.
        config: shape and switches.
        config_entries: config.json as it was, with every default filled in that decides the numbers.
        storage: how matrices and embeddings will be stored.
        tensors: parameters by Hugging Face's names without the leading `transformer.`, tied ones once; float32, and
            rounded to what the storage can hold: the numbers of the exported model.
        tokenizer: as transformers reads it.
        generation_config: generation_config.json, or what config.json says about it.
        reference: the folder whose tensors transformers is given, too, or transformers' model in memory.
    """

    name: str
    source: dict[str, Any]
    config: ModelConfig
    config_entries: dict[str, Any]
    storage: Storage
    tensors: dict[str, Tensor]
    tokenizer: CheckpointTokenizer
    generation_config: dict[str, Any]
    reference: Path | GPT2LMHeadModel

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end a text."""
        config = self.config
        return end_tokens(self.generation_config, config.eos_token_id, config.vocab_size, origin=GENERATION_CONFIG)

    @property
    def parameters(self) -> int:
        """How many numbers the weights are."""
        return sum(tensor.numel() for tensor in self.tensors.values())

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
) -> Checkpoint:
    """Reads a checkpoint from a folder or from the Hugging Face hub.

    Args:
        source: a folder with config.json and model.safetensors or pytorch_model.bin; or a hub id, such as
            `openai-community/gpt2`.
        revision: branch, tag or commit, for a hub id.
        tokenizer: a tokenizer.json, or a folder that has one, where the checkpoint has none.
        storage: how matrices and embeddings will be stored.

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged, or it is not a GPT-2 that can be exported.
        InputError: there is no such storage.
    """
    _check_storage(storage)
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"A revision is for a hub id, and {source} is a folder; leave --revision out.")
        # The name only: where the folder lay on somebody's disk is nobody else's business.
        described: dict[str, Any] = {"kind": "folder", "id": folder.resolve().name}
    elif folder.exists():
        raise CheckpointError(f"{source} is a file; give the checkpoint's folder, which has config.json in it.")
    else:
        folder, commit = download(str(source), revision)
        described = {"kind": "hub", "id": str(source), "revision": revision or "main", "commit": commit}
    if (folder / MANIFEST).is_file():
        raise CheckpointError(f"{source} is an exported bundle already; use it with 'onnxlens predict -m {source}'.")
    _refuse_adapter(folder)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it has no config.json.")
    config, entries = check_configuration(read_object(folder / "config.json"), folder / "config.json")
    tensors = _check_tensors(read_tensors(folder), config, storage, str(folder))
    return _checkpoint(
        name=str(described["id"]).split("/")[-1],
        source=described,
        config=config,
        config_entries=entries,
        storage=storage,
        tensors=tensors,
        tokenizer=read_tokenizer(
            _tokenizer_path(tokenizer) if tokenizer else folder, config=_least_tokenizer_config(config)
        ),
        generation_config=_read_if_there(folder / GENERATION_CONFIG),
        reference=folder,
    )


def read_model(
    model: GPT2LMHeadModel, tokenizer: str | Path | Tokenizer, *, name: str = "model", storage: Storage = "float32"
) -> Checkpoint:
    """Takes a model in memory as a checkpoint.

    Args:
        model: transformers' GPT-2; it is read, not changed.
        tokenizer: the tokenizers library's Tokenizer, or the path of a tokenizer.json or of its folder.
        name: what to call the bundle.
        storage: how matrices and embeddings will be stored.

    Raises:
        CheckpointError: the model is no GPT2LMHeadModel, or not one that can be exported.
        InputError: there is no such storage.
    """
    _check_storage(storage)
    if not isinstance(model, GPT2LMHeadModel):
        raise CheckpointError(f"Expected a transformers GPT2LMHeadModel, got a {type(model).__name__}.")
    config, entries = check_configuration(json.loads(model.config.to_json_string(use_diff=False)), "the model's config")
    return _checkpoint(
        name=name,
        source={"kind": "memory", "id": name},
        config=config,
        config_entries=entries,
        storage=storage,
        tensors=_check_tensors(model.state_dict(), config, storage, "the model in memory"),
        tokenizer=take_tokenizer(tokenizer, config=_least_tokenizer_config(config))
        if isinstance(tokenizer, Tokenizer)
        else read_tokenizer(_tokenizer_path(tokenizer), config=_least_tokenizer_config(config)),
        generation_config=json.loads(model.generation_config.to_json_string(use_diff=True)),
        reference=model,
    )


def _checkpoint(**parts: Any) -> Checkpoint:
    """Fills in what a checkpoint may leave out, and checks that tokenizer and model fit."""
    config, entries = parts["config"], parts["config_entries"]
    _check_fit(parts["tokenizer"].tokenizer, config.vocab_size)
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
    large power of two divides are faster; a tokenizer of less than half of the model's tokens is taken, with a warning.
    """
    ids = tokenizer.get_vocab().values()
    beyond = sum(token >= vocab_size for token in ids)
    if beyond > max(1, vocab_size // 100):
        raise CheckpointError(
            f"The tokenizer has ids up to {max(ids)}, and the model knows only {vocab_size} tokens; they do not belong "
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


def _least_tokenizer_config(config: ModelConfig) -> dict[str, Any]:
    return {"tokenizer_class": "GPT2TokenizerFast", "model_max_length": config.n_positions}


def _tokenizer_path(tokenizer: str | Path) -> Path:
    try:
        path = real_path(tokenizer)
    except PathError as error:
        raise CheckpointError(f"Cannot read the tokenizer {tokenizer}: {error}.") from error
    if not path.exists():
        raise CheckpointError(f"There is no tokenizer {tokenizer}: name a tokenizer.json that is there, or its folder.")
    if path.is_dir() and not ((path / "tokenizer.json").is_file() or (path / "vocab.json").is_file()):
        raise CheckpointError(f"The folder {tokenizer} has no tokenizer: no tokenizer.json, and no vocab.json.")
    return path


def _refuse_adapter(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} has an adapter_config.json, so it is (or has beside it) a PEFT adapter, which changes a model's "
            "weights. Merge it into its model and save that (merge_and_unload() and save_pretrained() in PEFT); or "
            "remove adapter_config.json, to export the model without the adapter."
        )


def _read_if_there(path: Path) -> dict[str, Any] | None:
    return read_object(path) if path.exists() else None


def _check_storage(storage: str) -> None:
    if storage not in STORAGES:
        raise InputError(f"storage must be {' or '.join(map(repr, STORAGES))}, not {storage!r}.")


def _check_tensors(state: dict[str, Tensor], config: ModelConfig, storage: Storage, origin: str) -> dict[str, Tensor]:
    """Returns the parameters, rounded to their storage, under their short names, or says what is wrong with them."""
    found: dict[str, Tensor] = {}
    for stored, tensor in state.items():
        name = stored.removeprefix("transformer.")
        if name in found:
            raise CheckpointError(f"{origin}: {name!r} is there twice, with and without 'transformer.' before it.")
        if not _BUFFERS.fullmatch(name):
            found[name] = tensor
    if config.n_layer > len(found):  # before as many names are made
        raise CheckpointError(
            f"{origin}: config.json says 'n_layer': {config.n_layer}, and the number of tensors is {len(found)}; they "
            "do not belong together."
        )
    expected = parameter_shapes(config)
    if config.tie_word_embeddings and "lm_head.weight" in found:
        # Of two tensors that are one, safetensors' save_model stores the first by name.
        head = found.pop("lm_head.weight")
        if not torch.equal(head, found.setdefault("wte.weight", head)):
            raise CheckpointError(
                f"{origin}: config.json ties the output projection to the embedding, but lm_head.weight differs "
                'from wte.weight; set "tie_word_embeddings": false, or remove lm_head.weight.'
            )
    missing = [name for name in expected if name not in found]
    if missing:
        raise CheckpointError(f"{origin}: {len(missing)} tensors are missing, the first is {missing[0]!r}.")
    unexpected = [name for name in found if name not in expected]
    if unexpected:
        raise CheckpointError(
            f"{origin}: {len(unexpected)} tensors do not belong to a GPT-2 of this configuration, the first is "
            f"{unexpected[0]!r}."
        )
    for name, shape in expected.items():
        tensor = found[name]
        if tuple(tensor.shape) != shape:
            raise CheckpointError(f"{origin}: {name!r} has shape {list(tensor.shape)}, expected {list(shape)}.")
        if not tensor.is_floating_point():
            raise CheckpointError(f"{origin}: {name!r} is {tensor.dtype}, expected floating-point numbers.")
        found[name] = tensor.detach().to("cpu", torch.float32).contiguous()
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
    return {name: found[name] for name in expected}


def rounded(tensor: Tensor, storage: Storage) -> Tensor:
    """The values of a float32 parameter once stored: the nearest that its stored data type has, as float32 again.

    Below 6e-8, the least that float16 can hold, that may be 0; the report of the verification shows what rounding does.
    """
    return tensor.half().float() if stored_dtype(storage, tuple(tensor.shape)) == np.float16 else tensor
