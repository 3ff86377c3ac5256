"""Traces: activations in a safetensors file that says what they are.

The file has one tensor for each hook point, `tokens` and `attention_mask`. Its header's texts are:

    format          onnxlens.trace.2
    model           the bundle's name
    model_hash      what identifies weights and graph, see `Bundle.model_hash`; empty where that was not known
    description     the model's shape, kind and hook table, as in a bundle's manifest, as JSON; missing where they were
                    not known
    made_with       versions of onnxlens and onnxruntime, as JSON
    hook_points     the request: which hook points were read, in the order of computation, as JSON
    positions       the request: which positions were read, as JSON; null for all
    has_batch_dim   true or false
    applied         the request: what interventions changed, as JSON, a list of `Applied`; only where they did
    called          the request: at which hook points functions were called, as JSON; only where they were
    str_tokens      the tokens' texts, as JSON; only where they were given
    sha256          of all tensors, in the order of their names: each name, a zero byte, the tensor's bytes
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.runtime._activations.applied import Applied
from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._bundle.hooks import sizes
from onnxlens.runtime._bundle.model_facts import ModelFacts
from onnxlens.runtime._bundle.open_file import OpenFile
from onnxlens.runtime._bundle.tensor_file import DamagedError, DataTypeError, TensorHeader, TruncatedError, read_header
from onnxlens.runtime._escape import cut, quoted
from onnxlens.runtime._files import check_ending, expanded, replaced
from onnxlens.runtime.errors import BundleError, OutputError, TraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FORMAT", "open_trace", "recorded", "save_trace"]

FORMAT = "onnxlens.trace.2"

_DTYPES = {"F32": "<f4", "I64": "<i8", "F64": "<f8", "F16": "<f2"}
_BESIDES = ("tokens", "attention_mask")
_ALIGNED = 64  # bytes at a multiple of which values begin, where they can


def open_trace(path: str | Path, *, model: object = None, verify: bool = False) -> ActivationCache:
    """Opens a trace that `ActivationCache.save` or `onnxlens trace` wrote.

    The arrays are read-only and memory-mapped: only what is used is read from the disk.

    Args:
        path: the file.
        model: a `Lens`, `Runner` or `Bundle` that it must be a trace of, and whose weights explain it; None to open
            it alone.
        verify: compare the SHA-256 of all values with the header's, which reads all of them.

    Raises:
        TraceError: there is no such file; it is damaged, not a trace, of another version, or of another model.
    """
    if not isinstance(path, str | os.PathLike):
        raise TraceError(f"A trace is named by its file's path, not {path!r:.100}.")
    path = expanded(path)
    file, header = _opened(path)
    try:
        cache = _cache(file, header)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, OverflowError, BundleError) as error:
        detail = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else cut(str(error), 300).rstrip(".")
        raise TraceError(f"The header of the trace {path} is damaged: {detail}. Make the trace again.") from error
    if verify and header.metadata.get("sha256") != _digest(_tensors(cache)):
        raise TraceError(
            f"The trace {path} is damaged: the SHA-256 of its values differs from the header's. Make the trace again."
        )
    return cache if model is None else cache.with_model(model)


def check_trace_name(path: str | Path) -> None:
    """Refuses a name for a trace that has the ending of another kind of file.

    Raises:
        OutputError: it does.
    """
    check_ending(path, ".safetensors", "a trace is a safetensors file")


def save_trace(cache: ActivationCache, path: str | Path, str_tokens: Sequence[str] | None = None) -> None:
    """Writes a trace; see `ActivationCache.save`."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if cache.is_folded:
        raise OutputError(
            f"Cannot write {path}: a folded view is not what the model computed. Save the raw cache, and fold it when "
            "it is opened."
        )
    check_trace_name(path)
    try:
        _check(cache)
    except ValueError as error:  # better now than when somebody opens it
        raise OutputError(f"Cannot write {path}: the cache is not consistent: {error}.") from error
    tensors = _tensors(cache)
    header = _metadata(cache, str_tokens if str_tokens is not None else cache.str_tokens)
    header["sha256"] = _digest(tensors)
    with replaced(path) as scratch:
        try:
            save_file(tensors, scratch, metadata=header)
        except SafetensorError as error:
            raise OSError(str(error)) from error


@contextmanager
def recorded(cache: ActivationCache, path: str | Path) -> Iterator[dict[str, np.ndarray]]:
    """Writes a trace while its values are computed, straight into its file, so that memory never holds all of them.

    Args:
        cache: everything about the trace but the values; of its arrays, names and shapes count.
        path: the file to write; one that is there is replaced once the new one is whole.

    Yields:
        For each hook point the float32 array to fill, a part of the file.

    Raises:
        OutputError: the file cannot be written.
    """
    check_trace_name(path)
    tensors = {**cache, "tokens": cache.tokens, "attention_mask": cache.attention_mask}
    metadata = {**_metadata(cache, cache.str_tokens), "sha256": "0" * 64}  # until the values are known
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    # safetensors allows no gaps, so a tensor that would misalign others comes last.
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].nbytes % _ALIGNED > 0):
        code = "F32" if tensor.dtype == np.float32 else "I64"
        entries[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    header = json.dumps(entries, ensure_ascii=False).encode()
    header += b" " * (-len(header) % _ALIGNED + _ALIGNED - 8)  # the values begin at a multiple
    with replaced(path) as scratch:
        with scratch.open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + end)
            if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a crash when a page is written
                os.posix_fallocate(file.fileno(), 0, 8 + len(header) + end)
        data = np.memmap(scratch, np.uint8, mode="r+", offset=8 + len(header), shape=(end,))

        def array(name: str) -> np.ndarray:
            first, last = entries[name]["data_offsets"]
            return data[first:last].view(tensors[name].dtype).reshape(tensors[name].shape)

        views = {name: array(name) for name in tensors}
        for name in _BESIDES:
            views[name][...] = tensors[name]
        yield {name: view for name, view in views.items() if name not in _BESIDES}
        digest = _digest(views)
        data.flush()
        with scratch.open("r+b") as whole:
            whole.seek(8 + header.index(b'"sha256": "' + b"0" * 64) + len(b'"sha256": "'))
            whole.write(digest.encode())


def _metadata(cache: ActivationCache, str_tokens: Sequence[str] | None) -> dict[str, str]:
    header = {
        "format": FORMAT,
        "model": cache.model,
        "model_hash": cache.model_hash,
        "made_with": json.dumps(cache.made_with or _versions()),
        "hook_points": json.dumps(list(cache)),
        "positions": json.dumps(cache.positions),
        "has_batch_dim": json.dumps(cache.has_batch_dim),
    }
    if cache.facts is not None:
        header["description"] = json.dumps(cache.facts.model.to_dict())
    if str_tokens is not None:
        header["str_tokens"] = json.dumps(list(str_tokens))
    if cache.applied:
        header["applied"] = json.dumps([one.to_dict() for one in cache.applied])
    if cache.called:
        header["called"] = json.dumps(list(cache.called))
    return header


def _versions() -> dict[str, str]:
    import onnxruntime

    return {"onnxlens": version("onnxlens"), "onnxruntime": onnxruntime.__version__}


def _tensors(cache: ActivationCache) -> dict[str, np.ndarray]:
    # Unlike ascontiguousarray, this keeps an array without axes as it is.
    tensors = {name: np.asarray(array, order="C") for name, array in cache.items()}
    return {**tensors, "tokens": cache.tokens, "attention_mask": cache.attention_mask}


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0")
        digest.update(np.ascontiguousarray(tensors[name]).reshape(-1).data)
    return digest.hexdigest()


def _opened(path: Path) -> tuple[OpenFile, TensorHeader]:
    """A file that is a trace of this version, as far as that can be told without its details, and its header."""
    try:
        if path.is_dir():
            raise TraceError(f"{path} is a folder, not a trace.")
        file = OpenFile(path, remedy="Copy it again.")
        header = read_header(file, _DTYPES)
    except FileNotFoundError as error:
        raise TraceError(f"There is no trace {path}.") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise TraceError(f"Cannot read the trace {path}: {reason}.") from error
    except BundleError as error:
        raise TraceError(str(error)) from error
    except DamagedError as error:
        raise TraceError(
            f"{path} is not a trace, or is damaged: it has no safetensors header. 'onnxlens trace' and cache.save "
            "write traces."
        ) from error
    except DataTypeError as error:
        raise TraceError(
            f"{path} is not a trace of onnxlens: it has the tensor {quoted(error.name)} as {quoted(error.code)}."
        ) from error
    except TruncatedError as error:
        raise TraceError(
            f"{path} is truncated: it has {error.size} bytes, its header promises {error.promised}. Copy it again."
        ) from error
    found = header.metadata.get("format", "")
    if not found.startswith("onnxlens.trace."):
        raise TraceError(
            f"{path} is a safetensors file, but not a trace of onnxlens: its header does not say {FORMAT!r} as its "
            "format."
        )
    if found != FORMAT:
        raise TraceError(
            f"{path} is a trace of format {quoted(found)}, and this onnxlens reads {FORMAT!r}. Open it with the "
            "onnxlens that wrote it, or make it again."
        )
    if file.size > header.end:
        raise TraceError(
            f"{path} is damaged: it has {file.size} bytes, its header describes {header.end}. Copy it again."
        )
    return file, header


def _cache(file: OpenFile, header: TensorHeader) -> ActivationCache:
    texts = header.metadata
    names = _texts(texts, "hook_points")
    if sorted([*names, *_BESIDES]) != sorted(header.entries):
        raise ValueError("'hook_points' does not list the tensors")
    data = file.map()

    def array(name: str) -> np.ndarray:
        entry = header.entries[name]
        return data[entry.offset : entry.offset + entry.length].view(entry.dtype).reshape(entry.shape)

    tokens, mask = (array(name) for name in _BESIDES)
    if tokens.ndim != 2 or tokens.dtype != np.int64 or mask.shape != tokens.shape or mask.dtype != np.int64:
        raise ValueError("'tokens' and 'attention_mask' are not [batch, positions] of int64")
    facts = None
    if "description" in texts:
        described = ModelDescription.from_dict(_json(texts, "description", dict), "'description'")
        facts = ModelFacts(texts["model"], texts["model_hash"], described)
    positions = _json(texts, "positions", list, type(None))
    if positions is not None and not all(type(position) is int for position in positions):
        raise ValueError("'positions' must be whole numbers")
    cache = ActivationCache(
        {name: array(name) for name in names},
        tokens,
        mask,
        texts["model"],
        facts=facts,
        positions=positions,
        has_batch_dim=_json(texts, "has_batch_dim", bool),
        str_tokens=_texts(texts, "str_tokens") if "str_tokens" in texts else None,
        made_with={str(key): str(value) for key, value in _json(texts, "made_with", dict).items()},
        applied=[Applied.from_dict(one) for one in _json(texts, "applied", list)] if "applied" in texts else (),
        called=_texts(texts, "called") if "called" in texts else (),
    )
    _check(cache)
    return cache


def _check(cache: ActivationCache) -> None:
    """Checks that a trace is consistent: its arrays, tokens and positions, and the model's shape.

    Raises:
        ValueError: it is not; the text says where.
    """
    rows, length = cache.tokens.shape
    positions, config = cache.positions, None if cache.facts is None else cache.facts.config
    if rows < 1 or (rows > 1 and not cache.has_batch_dim):
        raise ValueError(f"there are {rows} rows of tokens, and 'has_batch_dim' is {cache.has_batch_dim}")
    if cache.tokens.size and not 0 <= cache.tokens.min() <= cache.tokens.max() < (config.d_vocab if config else 2**31):
        raise ValueError("'tokens' has ids that the model does not have")
    if not np.isin(cache.attention_mask, (0, 1)).all():
        raise ValueError("'attention_mask' holds other numbers than 0 and 1")
    if positions is not None and not all(0 <= position < length for position in positions):
        raise ValueError(f"'positions' has positions outside of the {length} tokens")
    if cache.str_tokens is not None and len(cache.str_tokens) != length:
        raise ValueError(f"'str_tokens' has {len(cache.str_tokens)} texts for {length} tokens")
    read = length if positions is None else len(positions)
    size = {
        "batch": rows,
        "pos": read,
        "query_pos": read,
        "key_pos": length,
        **(sizes(config) if config else {"one": 1}),
    }
    for name, value in cache.items():
        axes = cache.axes(name)
        if axes is None:
            continue  # somebody's own, or of a model that is not known: nothing here computes with it
        if value.dtype.kind != "f":
            raise ValueError(f"{quoted(name)} is of {value.dtype}, not of floating-point numbers")
        axes = axes if cache.has_batch_dim else axes[1:]
        # A size that neither the text nor the configuration states is that of the first array.
        fits = len(axes) == value.ndim and all(
            size.setdefault(axis, found) == found for axis, found in zip(axes, value.shape, strict=True)
        )
        if not fits:
            expected = ", ".join(str(size.get(axis, axis)) for axis in axes)
            raise ValueError(f"{quoted(name)} has shape {list(value.shape)}, expected [{expected}]")


def _json(texts: Mapping[str, str], key: str, *kinds: type) -> Any:
    value = json.loads(texts[key])
    if not isinstance(value, kinds):
        raise ValueError(f"{key!r} must be a {kinds[0].__name__}")
    json.dumps(value, ensure_ascii=False).encode()  # fails on lone surrogates
    return value


def _texts(texts: Mapping[str, str], key: str) -> list[str]:
    found: list[str] = _json(texts, key, list)
    if not all(isinstance(text, str) for text in found):
        raise ValueError(f"{key!r} must be texts")
    return found
