"""Prepares a bundle for this machine, once: the graph from which every request is then cut.

ONNX Runtime optimises the graph with all hook points alive and lays the weights out for this processor; both are
saved in the user's cache folder. Every session opens that result with optimisation off. So a session starts in a
fraction of a second, all sessions of a model share the same memory-mapped weights, and no value depends on what else
is read, because the optimiser never sees a request.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnxruntime

from onnxlens.runtime._bundle.bundle import CONFIG, GRADIENTS_GRAPH, HOOKS_GRAPH, PLAIN_GRAPH, WEIGHTS, Bundle
from onnxlens.runtime._bundle.json_file import JsonFileError
from onnxlens.runtime._bundle.weights import WeightsFile
from onnxlens.runtime._graphs.graph_file import read_graph, tensors
from onnxlens.runtime._graphs.names import EMBEDDED, FINAL
from onnxlens.runtime._graphs.request import PLAIN, compile_request
from onnxlens.runtime._running.prepared import EMBEDDING, OPTIMISED, PLAIN_REQUEST, UNEMBEDDING, Prepared
from onnxlens.runtime._running.prepared_folder import distrust, is_usable, read_record, seal, sync
from onnxlens.runtime._running.providers import CPU, Provider, open_session
from onnxlens.runtime._user_folders import CACHE, cache_folder, temporary_folder
from onnxlens.runtime.errors import BundleError, OutputError, parsing

__all__ = ["prepare", "prepared_folders", "remove_unused"]

_ALIGNMENT = 64  # bytes, of packed weights

_LAYOUT = 6  # of the prepared folder; increase it when preparing changes
_W_E, _W_U = "embed.W_E", "unembed.W_U"
_SCRATCH = ".preparing-"
_NAMED = re.compile(r".+-[0-9a-f]{16}")  # the names of prepared folders

# Errors after which another folder is tried. A full disk is not one of them: the temporary files may lie in memory,
# which a model would fill, too.
_NOT_HERE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP,
             errno.ENAMETOOLONG)  # fmt: skip

# The unembedding is split into parts of at most this size. ONNX Runtime packs one weight at a time and holds the
# packed and the unpacked one meanwhile; in one piece, GPT-2's 154 MB would make that moment the peak of a whole run.
_UNEMBED_PART = 16_000_000

logger = logging.getLogger("onnxlens")


def prepare(
    bundle: Bundle,
    provider: Provider,
    progress: Callable[[str], None] = lambda text: None,
    *,
    gradients: bool = False,
    lasting: bool = False,
) -> Prepared:
    """Finds the prepared form of a bundle, or makes it.

    Two processes may do so at once; each writes a folder of its own, and the first to finish gives it its name. An
    existing folder is used only if it is intact and only this user or root can have written it. If the cache folder
    cannot be used, a folder among the temporary files takes its place, and a warning says so.

    Args:
        bundle: the bundle. If it was opened with `verify=True`, the hashes of its prepared files are compared, too.
        provider: the provider that will run it.
        progress: called with a text when preparing begins, which takes seconds for a large model.
        gradients: prepare the graph of the gradients, which the bundle must have, and not the one with hook points.
        lasting: use only the cache folder.

    Raises:
        BundleError: ONNX Runtime cannot load the graph, or the graph reaches outside the bundle.
        OutputError: no folder can be written to.
        ProviderError: the provider did not start.
    """
    name, what = _name(bundle, provider, gradients), f"{'the gradients of ' * gradients}{bundle.name}"
    roots = [cache_folder()] if lasting else [cache_folder(), temporary_folder()]
    for root in filter(None, roots):
        if is_usable(root / name, thorough=bundle.verified):
            return Prepared(root / name, provider, what)
    progress(f"preparing {what} for this machine (once)")
    reasons = [] if roots[0] else [f"no cache folder is known: set {CACHE}, or HOME"]
    for root in filter(None, roots):
        logger.info("preparing %s for %s in %s", bundle.path, provider.name, root / name)
        try:
            _make_in(root, name, bundle, provider, gradients)
        except _DistrustError as error:
            reasons.append(str(error))
        except OSError as error:
            reasons.append(f"cannot write to {root}: {error.strerror or error}")
            if error.errno not in _NOT_HERE:
                break
        else:
            if reasons:
                logger.warning(
                    "The prepared files of %s are in %s, which may be deleted: %s. Name another folder with %s.",
                    what, root, reasons[0], CACHE,
                )  # fmt: skip
            return Prepared(root / name, provider, what)
    size = (4.0 if gradients else 2.3) * 4 * bundle.manifest.parameters  # the backward pass has transposed weights
    raise OutputError(
        f"Cannot prepare {what}: {'; '.join(reasons)}. It needs about {size / 1e6:,.0f} MB; name another folder with "
        f"{CACHE}."
    )


def prepared_folders(bundle: Bundle, provider: Provider) -> list[Path]:
    """Where prepared forms of a bundle lie that a run on a provider may use; they need not be intact."""
    names = [_name(bundle, provider, gradients) for gradients in ([False, True] if bundle.has_gradients else [False])]
    roots = filter(None, [cache_folder(), temporary_folder()])
    return [root / name for root in roots for name in names if (root / name).is_dir()]


def remove_unused(root: Path, providers: Iterable[Provider]) -> list[tuple[Path, int]]:
    """Removes prepared folders that will not be used again, and returns each with its size in bytes.

    These are the ones of another version of onnxlens or ONNX Runtime, of another processor, and of bundles that were
    changed or are no longer there. A bundle that was moved is prepared again.

    Raises:
        OutputError: one cannot be removed.
    """
    providers, removed = list(providers), []
    for folder in sorted(path for path in root.glob("*-*") if _NAMED.fullmatch(path.name) and path.is_dir()):
        if distrust(folder) is None and not _has_use(folder, providers):
            size = sum(path.stat().st_size for path in folder.iterdir())
            try:
                with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=root) as scratch:
                    folder.rename(Path(scratch) / folder.name)  # it disappears at once for other processes
            except OSError as error:
                raise OutputError(f"Cannot remove {folder}: {error.strerror or error}.") from error
            removed.append((folder, size))
    return removed


def _has_use(folder: Path, providers: Iterable[Provider]) -> bool:
    try:
        record = read_record(folder)
        if record.made_for not in map(_made_for, providers):
            return False
        bundle = Bundle(record.bundle)
        # Named after the folder that the bundle was in, which may have been a link.
        keys = {_name(bundle, provider, gradients)[-16:] for provider in providers for gradients in (False, True)
                if bundle.has_gradients or not gradients}  # fmt: skip
        return folder.name[-16:] in keys
    except (JsonFileError, BundleError):
        return False


def _made_for(provider: Provider) -> str:
    return hashlib.sha256(f"{_LAYOUT}\n{provider.fingerprint}".encode()).hexdigest()


def _name(bundle: Bundle, provider: Provider, gradients: bool) -> str:
    """The name of a prepared folder: the bundle's, and a hash of everything on which its content depends."""
    files = bundle.manifest.files
    # Everything that preparing checks is part of the key, so that nothing goes unchecked.
    graphs = (GRADIENTS_GRAPH,) if gradients else (HOOKS_GRAPH, PLAIN_GRAPH)
    sources = (files[name].sha256 for name in (*graphs, WEIGHTS, CONFIG))
    parts = [str(_LAYOUT), *sources, provider.fingerprint]
    return f"{bundle.name}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:16]}"


class _DistrustError(Exception):
    """The folder exists, and others may have written to it."""


def _make_in(root: Path, name: str, bundle: Bundle, provider: Provider, gradients: bool) -> None:
    """Makes a prepared folder.

    Raises:
        _DistrustError: the place is taken by a folder that is not to be used.
        OSError: the place cannot be written.
    """
    own = root == temporary_folder()
    root.mkdir(mode=0o700 if own else 0o755, parents=True, exist_ok=True)
    # Anybody can put a folder of that name among the temporary files.
    if reason := (distrust(root) if own else None) or distrust(root / name):
        raise _DistrustError(reason)
    _remove_abandoned(root)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=root) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        (_make_gradients if gradients else _make)(bundle, provider, made)
        seal(made, bundle=str(bundle.path), made_for=_made_for(provider))
        _put_in_place(made, root / name)
    sync(root)


def _remove_abandoned(root: Path) -> None:
    """Removes files that killed processes left behind more than a day ago."""
    for scratch in root.glob(f"{_SCRATCH}*"):
        with suppress(FileNotFoundError):  # its process has just finished
            if time.time() - scratch.stat().st_mtime > 86_400:
                shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(made: Path, folder: Path) -> None:
    """Gives a finished folder its name, unless another process was first; a damaged folder of that name is replaced."""
    try:
        made.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        if is_usable(folder):
            return
        try:
            folder.rename(made.with_name("damaged"))  # and is deleted with the scratch folder
            made.rename(folder)
        except OSError:
            if not is_usable(folder):  # else another process replaced it in between
                raise


def _make(bundle: Bundle, provider: Provider, folder: Path) -> None:
    import onnx

    # Prepared files are kept under the hashes that the manifest states, so these must be true here.
    bundle.verify()
    read_graph(bundle, PLAIN_GRAPH)
    model = read_graph(bundle, HOOKS_GRAPH)
    with parsing(bundle.path / HOOKS_GRAPH, "a graph of onnxlens"):
        _name_widened(model, bundle, HOOKS_GRAPH)
        _split_unembedding(model, bundle)
        _take_out_embedding(model, bundle)
    weights = WeightsFile(bundle.weights.file)  # a mapping of its own, whose pages are given back when it goes
    weights[bundle.description.tensor(_W_E)].tofile(folder / EMBEDDING)
    if provider is CPU and not bundle.config.tie_word_embeddings:  # see `Unembedding`
        weights[bundle.description.tensor(_W_U)].tofile(folder / UNEMBEDDING)
    del weights
    _optimise(model, bundle, provider, folder)
    prepared = onnx.load(folder / OPTIMISED, load_external_data=False)
    (plain,) = compile_request(prepared, PLAIN, bundle.description)
    onnx.save(plain.model, folder / PLAIN_REQUEST)


def _make_gradients(bundle: Bundle, provider: Provider, folder: Path) -> None:
    bundle.verify()
    model = read_graph(bundle, GRADIENTS_GRAPH)
    with parsing(bundle.path / GRADIENTS_GRAPH, "a graph of onnxlens"):
        _name_widened(model, bundle, GRADIENTS_GRAPH)
    _optimise(model, bundle, provider, folder)


def _optimise(model: Any, bundle: Bundle, provider: Provider, folder: Path) -> None:
    """Lets ONNX Runtime optimise a graph, and save it with the weights as it packs them for the processor."""
    if provider is CPU:
        _save_optimised(model, bundle, provider, folder, packed=True)
        if _is_aligned(folder / OPTIMISED):
            return
        # Then every session packs the weights for itself.
        for path in (folder / OPTIMISED, folder / f"{OPTIMISED}_data"):
            path.unlink(missing_ok=True)
    _save_optimised(model, bundle, provider, folder, packed=False)


def _is_aligned(path: Path) -> bool:
    """Whether all packed weights of a saved graph begin where the processor can read them.

    ONNX Runtime before 1.32 writes packed weights right behind unpacked ones, wherever these end. Its kernels for
    AVX-512 read them with instructions that end the process at an odd address.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    entries = [entry for tensor in graph.initializer for entry in tensor.external_data]
    # "MatMul+KEY|OFFSET;LENGTH;FLAGS", and the same once more for each further buffer.
    packed = [entry.value.split("|")[1:] for entry in entries if entry.key.startswith("prepacked_")]
    return all(int(place.split(";")[0]) % _ALIGNMENT == 0 for places in packed for place in places)


def _save_optimised(model: Any, bundle: Bundle, provider: Provider, folder: Path, *, packed: bool) -> None:
    options = onnxruntime.SessionOptions()
    source = _give_weights(model, bundle, options)
    options.optimized_model_filepath = str(folder / OPTIMISED)
    entries = {
        "session.optimized_model_external_initializers_file_name": f"{OPTIMISED}_data",
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        "session.save_external_prepacked_constant_initializers": "1" if packed else "0",
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        open_session(model.SerializeToString(), options, provider)
    except Exception as error:
        if _disk_is_full(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        if type(error).__module__.startswith("onnxruntime"):
            text = " ".join(str(error).split())[:300]
            raise BundleError(f"ONNX Runtime cannot load the graph of {bundle.path}: {text}") from error
        raise
    if bundle.weights.file.real_path() != source and source is not None:
        raise BundleError(f"{bundle.path / WEIGHTS} was replaced while it was read. Start again.")


def _give_weights(model: Any, bundle: Bundle, options: onnxruntime.SessionOptions) -> Path | None:
    """Says where ONNX Runtime finds the weights; returns the path, or None where it gets them from memory.

    It opens the file behind a symbolic link, as in the cache of the Hugging Face hub: ONNX Runtime refuses links into
    another folder. A file whose path is gone is still open here, and goes through memory, which takes a copy of it.
    """
    from onnx.external_data_helper import uses_external_data

    real = bundle.weights.file.real_path()
    if real is None:
        weights = bundle.weights.bytes
        options.add_external_initializers_from_files_in_memory([Path(WEIGHTS).name], [weights], [len(weights)])
        return None
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(real.parent))
    for tensor in tensors(model):
        for entry in tensor.external_data if uses_external_data(tensor) else ():
            if entry.key == "location":
                entry.value = real.name
    return real


def _name_widened(model: Any, bundle: Bundle, graph_name: str) -> None:
    """Gives the checkpoint's name to what computing uses: the Cast of a weight stored as float16, not that weight.

    ONNX Runtime folds the Cast while preparing. So the prepared graph has float32 weights under the checkpoint's names,
    however they are stored.
    """
    from onnx import TensorProto

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    users: dict[str, list[Any]] = {name: [] for name in stored}
    for node in graph.node:
        for name in users.keys() & set(node.input):
            users[name].append(node)
    outputs = {value.name for value in graph.output}
    for name, found in users.items():
        if len(found) != 1 or not _widens(found[0]) or {name, *found[0].output} & outputs:
            raise BundleError(
                f"The graph {bundle.path / graph_name} uses {name!r}, which is stored as float16, in another way than "
                "by widening it to float32 once. Export the model again."
            )
    casts = [node for (node,) in users.values()]
    widened = {cast.output[0]: cast.input[0] for cast in casts}
    for node in graph.node:
        node.input[:] = [widened.get(name, name) for name in node.input]
    for cast in casts:
        name = cast.input[0]
        stored[name].name = cast.input[0] = f"{name}.stored"
        cast.output[0] = name
    described = [value for value in graph.value_info if value.name not in {*widened, *widened.values()}]
    del graph.value_info[:]
    graph.value_info.extend(described)


def _widens(node: Any) -> bool:
    from onnx import TensorProto

    to = [attribute.i for attribute in node.attribute if attribute.name == "to"]
    return node.op_type == "Cast" and to == [TensorProto.FLOAT]


def _split_unembedding(model: Any, bundle: Bundle) -> None:
    """Replaces the transposition and product with W_U by several, over parts of the vocabulary, and a Concat."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph, config = model.graph, bundle.config
    weight = bundle.description.tensor(_W_U)
    producer = {name: node for node in graph.node for name in node.output}
    product = producer.get("logits")
    transposed = producer.get(product.input[1]) if product is not None and product.op_type == "MatMul" else None
    if product is None or transposed is None or list(transposed.input) != [weight]:
        raise BundleError(f"The graph {bundle.path / HOOKS_GRAPH} does not end in a product with {weight!r}.")
    graph.node.remove(product)
    graph.node.remove(transposed)
    graph.node.append(helper.make_node("Identity", [product.input[0]], [FINAL]))
    final_shape: list[str | int | None] = ["batch_size", "sequence_length", config.d_model]
    graph.output.append(helper.make_tensor_value_info(FINAL, TensorProto.FLOAT, final_shape))
    rows = max(1, _UNEMBED_PART // (4 * config.d_model))
    parts = []
    for start in range(0, config.d_vocab, rows):
        bounds = {"start": start, "end": min(start + rows, config.d_vocab), "axis": 0}
        prefix = f"unembed.{start}"
        graph.initializer.extend(
            numpy_helper.from_array(np.array([value], np.int64), f"{prefix}.{key}") for key, value in bounds.items()
        )
        graph.node.append(
            helper.make_node("Slice", [weight, *(f"{prefix}.{key}" for key in bounds)], [f"{prefix}.rows"])
        )
        graph.node.append(helper.make_node("Transpose", [f"{prefix}.rows"], [f"{prefix}.columns"], perm=[1, 0]))
        graph.node.append(helper.make_node("MatMul", [FINAL, f"{prefix}.columns"], [f"{prefix}.logits"]))
        parts.append(f"{prefix}.logits")
    graph.node.append(helper.make_node("Concat", parts, ["logits"], axis=-1))


def _take_out_embedding(model: Any, bundle: Bundle) -> None:
    """Lets the rows of W_E be an input, in place of what looks them up by token id."""
    from onnx import TensorProto, helper

    graph, config = model.graph, bundle.config
    weight = bundle.description.tensor(_W_E)
    lookup = next((node for node in graph.node if list(node.input) == [weight, "input_ids"]), None)
    if lookup is None or lookup.op_type != "Gather":
        raise BundleError(f"The graph {bundle.path / HOOKS_GRAPH} does not look up {weight!r} by token id.")
    lookup.CopyFrom(helper.make_node("Identity", [EMBEDDED], lookup.output))
    shape: list[str | int | None] = ["batch_size", "sequence_length", config.d_model]
    graph.input.append(helper.make_tensor_value_info(EMBEDDED, TensorProto.FLOAT, shape))


def _disk_is_full(folder: Path) -> bool:
    stat = os.statvfs(folder) if hasattr(os, "statvfs") else None
    return stat is not None and stat.f_bavail * stat.f_frsize < 1_000_000
