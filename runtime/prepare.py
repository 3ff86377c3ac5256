"""Prepares a bundle for this machine, once: the graph from which every request is then cut.

ONNX Runtime optimises the graph with all hook points alive and lays the weights out for this processor; both are
saved in the user's cache folder. Every session opens that result with optimisation off. So a session starts in a
fraction of a second, all sessions of a model share the same memory-mapped weights, and no value depends on what else
is read, because the optimiser never sees a request.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnxruntime
import platformdirs

from onnxlens.runtime.bundle import CONFIG, GRADIENTS_GRAPH, HOOKS_GRAPH, PLAIN_GRAPH, WEIGHTS, Bundle
from onnxlens.runtime.compile import EMBEDDED, FINAL, PLAIN, compile_request
from onnxlens.runtime.errors import BundleError, OutputError, parsing
from onnxlens.runtime.graph_file import read_graph, tensors
from onnxlens.runtime.prepared import EMBEDDING, OPTIMISED, PLAIN_REQUEST, UNEMBEDDING, Prepared
from onnxlens.runtime.providers import CPU, Provider, open_session
from onnxlens.runtime.weights import WeightsFile

__all__ = ["cache_folder", "prepare"]

_LAYOUT = 4  # of the prepared folder; raise it when the way of preparing changes
_W_E, _W_U = "wte.weight", "lm_head.weight"  # the checkpoint's names; tied ones have the first only
_SCRATCH = ".preparing-"
_SIZES = "sizes.json"  # of all other files in the folder, so that one which a cleaner left half is noticed

# The unembedding is split into parts of at most this size. ONNX Runtime packs one weight at a time and holds the
# packed and the unpacked one meanwhile; in one piece, GPT-2's 154 MB would make that moment the peak of a whole run.
_UNEMBED_PART = 16_000_000

logger = logging.getLogger("onnxlens")


def cache_folder() -> Path:
    """Where prepared bundles lie: `ONNXLENS_CACHE`, or `onnxlens` in the user's cache folder."""
    chosen = os.environ.get("ONNXLENS_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("onnxlens", appauthor=False)


def prepare(
    bundle: Bundle,
    provider: Provider,
    progress: Callable[[str], None] = lambda text: None,
    *,
    gradients: bool = False,
) -> Prepared:
    """Finds the prepared form of a bundle, or makes it.

    Two processes may do so at once; each writes a folder of its own, and the first to finish gives it its name.

    Args:
        bundle: the bundle.
        provider: what will run it.
        progress: told when preparing begins, which takes seconds for a large model.
        gradients: prepare the graph of the gradients, which the bundle must have, and not the one with hook points.

    Raises:
        BundleError: ONNX Runtime cannot load the graph, or the graph reaches outside the bundle.
        OutputError: the cache folder cannot be written to.
        ProviderError: the provider did not start.
    """
    root, what = cache_folder(), f"{'the gradients of ' * gradients}{bundle.name}"
    folder = root / f"{bundle.name}-{_key(bundle, provider, gradients)}"
    if _is_whole(folder):
        return Prepared(folder, provider, what)
    progress(f"preparing {what} for this machine (once)")
    logger.info("preparing %s for %s in %s", bundle.path, provider.name, folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=root) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            (_make_gradients if gradients else _make)(bundle, provider, made)
            sizes = {path.name: path.stat().st_size for path in made.iterdir()}
            (made / _SIZES).write_text(json.dumps(sizes), encoding="utf-8")
            _put_in_place(made, folder)
    except OSError as error:
        size = (4.0 if gradients else 2.3) * 4 * bundle.manifest.parameters  # the way back has transposed weights
        raise OutputError(
            f"Cannot prepare {bundle.name} in the cache folder {root}: {error.strerror or error}. It needs about "
            f"{size / 1e6:,.0f} MB; name another folder with ONNXLENS_CACHE."
        ) from error
    return Prepared(folder, provider, what)


def _key(bundle: Bundle, provider: Provider, gradients: bool) -> str:
    files = bundle.manifest.files
    # All that is checked while preparing is part of the key, so that nothing goes unchecked.
    graphs = (GRADIENTS_GRAPH,) if gradients else (HOOKS_GRAPH, PLAIN_GRAPH)
    sources = (files[name].sha256 for name in (*graphs, WEIGHTS, CONFIG))
    parts = [str(_LAYOUT), *sources, provider.fingerprint]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _remove_abandoned(root: Path) -> None:
    """Removes what processes that were killed while preparing left behind more than a day ago."""
    for scratch in root.glob(f"{_SCRATCH}*"):
        with suppress(FileNotFoundError):  # its process has just finished
            if time.time() - scratch.stat().st_mtime > 86_400:
                shutil.rmtree(scratch, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _SIZES).read_text(encoding="utf-8"))
        return OPTIMISED in sizes and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _put_in_place(made: Path, folder: Path) -> None:
    """Gives a finished folder its name, unless another process was first; what is there and not whole gives way."""
    try:
        made.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        if _is_whole(folder):
            return
        try:
            folder.rename(made.with_name("partial"))  # and is deleted with the scratch folder
            made.rename(folder)
        except OSError:
            if not _is_whole(folder):  # else another process mended it in between
                raise


def _make(bundle: Bundle, provider: Provider, folder: Path) -> None:
    import onnx

    # What is prepared is kept under the hashes that the manifest states, so here they must be true.
    bundle.verify()
    read_graph(bundle, PLAIN_GRAPH)
    model = read_graph(bundle, HOOKS_GRAPH)
    with parsing(bundle.path / HOOKS_GRAPH, "a graph of onnxlens"):
        _name_widened(model, bundle, HOOKS_GRAPH)
        _split_unembedding(model, bundle)
        _take_out_embedding(model, bundle)
    weights = WeightsFile(bundle.weights.file)  # a mapping of its own, whose pages are given back when it goes
    weights[_W_E].tofile(folder / EMBEDDING)
    if provider is CPU and not bundle.config.tie_word_embeddings:  # see `Unembedding`
        weights[_W_U].tofile(folder / UNEMBEDDING)
    del weights
    _optimise(model, bundle, provider, folder)
    prepared = onnx.load(folder / OPTIMISED, load_external_data=False)
    (plain,) = compile_request(prepared, PLAIN, bundle.config)
    onnx.save(plain.model, folder / PLAIN_REQUEST)


def _make_gradients(bundle: Bundle, provider: Provider, folder: Path) -> None:
    bundle.verify()
    model = read_graph(bundle, GRADIENTS_GRAPH)
    with parsing(bundle.path / GRADIENTS_GRAPH, "a graph of onnxlens"):
        _name_widened(model, bundle, GRADIENTS_GRAPH)
    _optimise(model, bundle, provider, folder)


def _optimise(model: Any, bundle: Bundle, provider: Provider, folder: Path) -> None:
    """Lets ONNX Runtime optimise a graph, and save it with the weights as it lays them out."""
    options = onnxruntime.SessionOptions()
    source = _give_weights(model, bundle, options)
    options.optimized_model_filepath = str(folder / OPTIMISED)
    entries = {
        "session.optimized_model_external_initializers_file_name": f"{OPTIMISED}_data",
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        "session.save_external_prepacked_constant_initializers": "1" if provider.name == "cpu" else "0",
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
    weight = _W_E if config.tie_word_embeddings else _W_U
    producer = {name: node for node in graph.node for name in node.output}
    product = producer.get("logits")
    transposed = producer.get(product.input[1]) if product is not None and product.op_type == "MatMul" else None
    if product is None or transposed is None or list(transposed.input) != [weight]:
        raise BundleError(f"The graph {bundle.path / HOOKS_GRAPH} does not end in a product with {weight!r}.")
    graph.node.remove(product)
    graph.node.remove(transposed)
    graph.node.append(helper.make_node("Identity", [product.input[0]], [FINAL]))
    final_shape: list[str | int | None] = ["batch_size", "sequence_length", config.n_embd]
    graph.output.append(helper.make_tensor_value_info(FINAL, TensorProto.FLOAT, final_shape))
    rows = max(1, _UNEMBED_PART // (4 * config.n_embd))
    parts = []
    for start in range(0, config.vocab_size, rows):
        bounds = {"start": start, "end": min(start + rows, config.vocab_size), "axis": 0}
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
    lookup = next((node for node in graph.node if list(node.input) == [_W_E, "input_ids"]), None)
    if lookup is None or lookup.op_type != "Gather":
        raise BundleError(f"The graph {bundle.path / HOOKS_GRAPH} does not look up {_W_E!r} by token id.")
    lookup.CopyFrom(helper.make_node("Identity", [EMBEDDED], lookup.output))
    shape: list[str | int | None] = ["batch_size", "sequence_length", config.n_embd]
    graph.input.append(helper.make_tensor_value_info(EMBEDDED, TensorProto.FLOAT, shape))


def _disk_is_full(folder: Path) -> bool:
    stat = os.statvfs(folder) if hasattr(os, "statvfs") else None
    return stat is not None and stat.f_bavail * stat.f_frsize < 1_000_000
