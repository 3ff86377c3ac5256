"""The proof can fail: graphs or weights that differ from the checkpoint are found out, and no bundle is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from checkpoints import family
from yardstick import SINGLE

from onnxlens.export import _bundle as pipeline
from onnxlens.export import _verify as verify
from onnxlens.export import export
from onnxlens.export._checkpoint import Checkpoint, read_checkpoint
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.weights import WeightsFile
from onnxlens.runtime.errors import ExportError

Folder = Callable[[str], Path]
LeftBehind = Callable[[], list[str]]


def fails(source: Path, target: Path, pattern: str) -> None:
    with pytest.raises(ExportError, match=pattern) as caught:
        export(source, target)
    text = str(caught.value)
    assert text.startswith("The exported graphs do not reproduce the PyTorch model: ")
    assert text.endswith("Nothing was written.") and "\n" not in text


def other_gelu(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type == "Gelu":
            node.attributes["approximate"] = ir.AttrString("approximate", "none")


def other_epsilon(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type == "Sqrt" and (add := node.inputs[0]) is not None and (producer := add.producer()) is not None:
            epsilon = producer.inputs[1]
            assert epsilon is not None
            epsilon.const_value = ir.tensor(np.array(1e-3, np.float32))


def swapped_hook_points(graph: ir.Graph) -> None:
    found = {value.name: value for value in graph.outputs}
    query, key = found["blocks.1.attn.hook_q"], found["blocks.1.attn.hook_k"]
    query.name, key.name = key.name, query.name


def no_position(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type == "Gather" and node.inputs[1] is not None and node.inputs[1].name == "position_ids":
            node.replace_input_with(1, next(value for value in graph.inputs if value.name == "input_ids"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_gelu, "blocks|logits|ln_final|present"),
        (other_epsilon, "blocks|logits|ln_final|present"),
        (swapped_hook_points, r"blocks\.1\.attn\.hook_[qk] is off by"),
        (no_position, ""),
    ],
    ids=["other gelu", "other epsilon", "swapped hook points", "no position"],
)
def test_a_graph_that_computes_something_else(
    checkpoint: Folder,
    tmp_path: Path,
    left_behind: LeftBehind,
    monkeypatch: pytest.MonkeyPatch,
    quick_trace: None,
    change: Callable[[ir.Graph], None],
    named: str,
) -> None:
    traced = pipeline.hooks_graph

    def altered(config: ModelConfig) -> ir.Model:
        model = traced(config)
        change(model.graph)
        return model

    monkeypatch.setattr(pipeline, "hooks_graph", altered)
    if change is no_position:  # ids beyond the last position make ONNX Runtime itself refuse
        with pytest.raises(ExportError, match=r"ONNX Runtime cannot run the exported onnx/model_hooks\.onnx: .*bounds"):
            export(checkpoint("base"), tmp_path / "out" / "bundle")
    else:
        fails(checkpoint("base"), tmp_path / "out" / "bundle", named)
    assert left_behind() == []


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        ("wpe.weight", 0.01),
        ("h.1.attn.c_attn.bias", 0.5),
        ("h.0.mlp.c_proj.weight", float("nan")),
        ("ln_f.weight", float("inf")),
    ],
)
def test_weights_altered_between_writing_and_checking(
    checkpoint: Folder,
    tmp_path: Path,
    left_behind: LeftBehind,
    monkeypatch: pytest.MonkeyPatch,
    quick_trace: None,
    tensor: str,
    value: float,
) -> None:
    written = pipeline.write_graphs

    def write_and_spoil(model: ir.Model, folder: Path) -> None:
        written(model, folder)
        weights = WeightsFile(folder / "onnx" / "model.onnx_data")
        entry = weights.entries[tensor]
        array = np.memmap(weights.path, np.float32, "r+", entry.offset, entry.shape)
        array[...] += np.float32(value)
        array.flush()

    monkeypatch.setattr(pipeline, "write_graphs", write_and_spoil)
    fails(checkpoint("base"), tmp_path / "out" / "bundle", r"is off by .* of its largest value, allowed is 1e-04")
    assert left_behind() == []


def test_a_model_that_transformers_computes_otherwise(
    checkpoint: Folder, tmp_path: Path, left_behind: LeftBehind, monkeypatch: pytest.MonkeyPatch, quick_trace: None
) -> None:
    """Our PyTorch model and the graphs agree, and both are wrong: transformers is the last word on the logits."""
    read = read_checkpoint

    def misread(source: Path, **options: Any) -> Checkpoint:
        found = read(source, **options)
        found.tensors["ln_f.bias"] = found.tensors["ln_f.bias"] + 0.01
        return found

    monkeypatch.setattr(pipeline, "read_checkpoint", misread)
    fails(checkpoint("base"), tmp_path / "out" / "bundle", r": logits \(transformers\) is off by")
    assert left_behind() == []


def error_of(found: list[float], expected: list[float]) -> float:
    errors: dict[str, dict[str, float]] = {}
    verify.record(errors, "value", np.array(found, np.float32), np.array(expected, np.float32))
    return errors["value"]["relative"]


def test_what_counts_as_an_error() -> None:
    infinite = float("inf")
    assert error_of([1, 2, -infinite], [1, 2, -infinite]) == 0  # masked scores
    assert error_of([1, 3], [1, 4]) == 0.25
    assert error_of([0, 0], [0, 0]) == 0
    for found, expected in (
        ([1.0], [1.0, 2.0]),
        ([1.0, 2.0], [1.0, float("nan")]),
        ([1.0, float("nan")], [1.0, 2.0]),
        ([float("nan")], [float("nan")]),
        ([infinite], [-infinite]),
        ([-infinite, 1.0], [1.0, -infinite]),
        ([0.1], [0.0]),
    ):
        assert error_of(found, expected) == infinite, (found, expected)


def test_later_cases_do_not_hide_the_errors_of_earlier_ones() -> None:
    errors: dict[str, dict[str, float]] = {}
    for found in (1.5, 1.0):
        verify.record(errors, "value", np.array([found]), np.array([1.0]))
    assert errors["value"] == {"absolute": 0.5, "relative": 0.5}


@pytest.mark.parametrize("positions", [1, 2, 8, 9, 24, 48, 1024])
def test_cases_fit_the_context(positions: int) -> None:
    found = verify.cases(family({"n_positions": positions}).cfg)
    assert all(max(case.lengths) <= positions and case.cached < max(case.lengths) for case in found)
    assert max(max(case.lengths) for case in found) == positions
    for case in found:
        ids, mask, position_ids = case.inputs(300)
        assert mask.sum(axis=1).tolist() == list(case.lengths)
        assert (np.diff(mask, axis=1) >= 0).all()  # padding is on the left
        assert position_ids.max() == max(case.lengths) - 1
        np.testing.assert_array_equal(ids, case.inputs(300)[0])


def test_the_errors_of_a_good_export_are_rounding(bundle: Folder) -> None:
    folder = bundle("base")
    report = json.loads((folder / "onnxlens.json").read_text())["verification"]
    assert report["tolerance"] == verify.TOLERANCE == 1e-4
    assert report["largest_relative_error"] < SINGLE  # below what is allowed
