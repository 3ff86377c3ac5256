"""The whole export: checkpoint in, verified bundle out."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from onnxlens.export import _verify as verify
from onnxlens.export import _verify_gradients as verify_gradients
from onnxlens.export._checkpoint import Checkpoint, read_checkpoint, read_model
from onnxlens.export._destination import destination
from onnxlens.export._gradient_graph import gradients_graph
from onnxlens.export._graph import hooks_graph
from onnxlens.export._staging import staged
from onnxlens.export._target import check_target
from onnxlens.export._tokenizer import check_tokenizer
from onnxlens.export._writer import write_configurations, write_gradients, write_graphs, write_weights
from onnxlens.plugins._registry import Registry
from onnxlens.runtime._bundle.bundle import TOKENIZER, WEIGHTS, Bundle, sha256_of
from onnxlens.runtime._bundle.manifest import MANIFEST, FileRecord, Manifest
from onnxlens.runtime._bundle.weights import Storage, WeightsFile

__all__ = ["export", "export_model"]

Progress = Callable[[str], None]
_PACKAGES = (
    "onnxlens",
    "torch",
    "transformers",
    "onnxscript",
    "onnx-ir",
    "onnxruntime",
    "safetensors",
    "tokenizers",
)
_BESIDE_WEIGHTS = 32_000_000  # graphs, tokenizer and configurations, generously


def export(
    source: str | Path,
    target: str | Path | None = None,
    *,
    revision: str | None = None,
    tokenizer: str | Path | None = None,
    storage: Storage = "float32",
    gradients: bool = False,
    force: bool = False,
    plugins: Registry | None = None,
    progress: Progress = lambda step: None,
) -> Bundle:
    """Exports a checkpoint to a verified ONNX bundle.

    Args:
        source: a hub id, such as `openai-community/gpt2`, a folder with config.json and weights, or a GGUF file.
        target: the folder to write; None for `models/` and the last part of the source's name.
        revision: branch, tag or commit, for a hub id.
        tokenizer: a tokenizer.json or its folder, where the checkpoint has none.
        storage: how matrices and embeddings are stored. `float16` halves the weights file and rounds them; computing
            stays float32. The manifest states its effect on the logits.
        gradients: add the graph of the model's gradients, for `Lens.grad`. It shares the weights file.
        force: replace an existing bundle once the new one is complete; other files in its folder are kept.
        plugins: the plugins with model families; None for the built-in and the installed ones.
        progress: called with the name of each step as it begins.

    Returns:
        The bundle written.

    Raises:
        CheckpointError: the source cannot be read, or is not one that can be exported.
        ExportError: the graphs do not reproduce the PyTorch model.
        OutputError: the target exists or cannot be written.
        InputError: there is no such storage.
        PluginError: the plugin with the model's family is broken.
    """
    place = destination(source, target, force=force)
    progress("reading the checkpoint")
    checkpoint = read_checkpoint(source, revision=revision, tokenizer=tokenizer, storage=storage, plugins=plugins)
    return _write(checkpoint, place, gradients=gradients, force=force, progress=progress)


def export_model(
    model: PreTrainedModel,
    target: str | Path,
    *,
    tokenizer: str | Path | Tokenizer,
    storage: Storage = "float32",
    gradients: bool = False,
    force: bool = False,
    plugins: Registry | None = None,
    progress: Progress = lambda step: None,
) -> Bundle:
    """Exports a model of transformers that is in memory; arguments, result and errors are those of `export`."""
    place = destination(None, target, force=force)
    checkpoint = read_model(model, tokenizer, name=place.name, storage=storage, plugins=plugins)
    return _write(checkpoint, place, gradients=gradients, force=force, progress=progress)


def _write(checkpoint: Checkpoint, target: Path, *, gradients: bool, force: bool, progress: Progress) -> Bundle:
    source = checkpoint.reference if isinstance(checkpoint.reference, Path) else None
    check_target(target, source=source, force=force, needed=checkpoint.weights_bytes + _BESIDE_WEIGHTS)
    progress("running it in PyTorch")
    wanted = verify.cases(checkpoint.family.cfg)
    expected = verify.reference(checkpoint, wanted)
    rounding = verify.rounding(checkpoint, wanted, expected)
    expected_gradients = verify_gradients.reference(checkpoint, wanted) if gradients else []
    progress("tracing the graph")
    graph = hooks_graph(checkpoint.family)
    if gradients:
        progress("tracing the gradients")
        gradients_model = gradients_graph(checkpoint.family)
    with staged(target, force=force) as folder:
        progress("writing weights and graphs")
        write_weights(checkpoint, folder)
        write_graphs(graph, folder)
        if gradients:
            write_gradients(gradients_model, folder)
        write_configurations(checkpoint, folder)
        progress("comparing ONNX Runtime with PyTorch")
        report = verify.check(folder, checkpoint.family.cfg, wanted, expected)
        report["tokenizer"] = check_tokenizer(folder / TOKENIZER, checkpoint.tokenizer)
        if gradients:
            report["gradients"] = verify_gradients.check(folder, checkpoint.family.cfg, wanted, expected_gradients)
        progress("writing the manifest")
        description = checkpoint.family.description()
        Manifest(
            name=target.name,
            source=checkpoint.source,
            made_with={package: version(package) for package in _PACKAGES},
            precision="float32",
            storage=checkpoint.storage,
            parameters=checkpoint.parameters,
            **description.to_dict(),
            weights={name: view.to_dict() for name, view in description.weights.items()},
            files=_records(folder),
            verification={**report, **rounding},
        ).write(folder)
    return Bundle(target)


def _records(folder: Path) -> dict[str, FileRecord]:
    records = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            header = WeightsFile(path).header_sha256 if name == WEIGHTS else None
            records[name] = FileRecord(size=path.stat().st_size, sha256=sha256_of(path), header_sha256=header)
    return records
