"""The exported graph of the gradients: its interface, its proof, and bundles that have none."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from checkpoints import config_entries, family
from jsonschema import Draft202012Validator
from yardstick import close

from onnxlens._cli import _run
from onnxlens.export import _bundle as pipeline
from onnxlens.export import export
from onnxlens.export._graph import OPSET
from onnxlens.runtime._bundle.bundle import GRADIENTS_GRAPH, Bundle
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime.errors import ExportError

Folder = Callable[[str], Path]
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "onnxlens.schema.json").read_text(encoding="utf-8"))
NAMES = ("base-gradients", "scaled-gradients", "base-float16-gradients")


@pytest.fixture
def traced(bundle: Folder, monkeypatch: pytest.MonkeyPatch, quick_trace: None) -> Path:
    """Lets an export take the graph of the gradients that an earlier one of the same configuration traced."""
    path = bundle("base-gradients") / GRADIENTS_GRAPH
    monkeypatch.setattr(pipeline, "gradients_graph", lambda config: ir.load(path))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_outputs(bundle: Folder, name: str) -> None:
    opened = Bundle(bundle(name))
    graph = onnx.load(opened.path / GRADIENTS_GRAPH, load_external_data=False)
    onnx.checker.check_model(opened.path / GRADIENTS_GRAPH)
    config = opened.config

    def declared(values):
        return {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
        }

    rows = ["batch_size", "sequence_length"]
    assert declared(graph.graph.input) == {
        "input_ids": rows,
        "attention_mask": rows,
        "position_ids": rows,
        "grad.logits": [*rows, config.d_vocab],
    }
    symbols = {"batch": rows[0], "pos": rows[1], "query_pos": rows[1], "key_pos": rows[1]}
    shapes = {
        point.name: [symbols.get(axis, size) for axis, size in zip(point.axes, point.shape(config, 0, 0), strict=True)]
        for point in family(config_entries(n_layer=config.n_layers)).description().hook_points
        if not point.on_request
    }
    assert declared(graph.graph.output) == {
        "logits": [*rows, config.d_vocab],
        **shapes,
        **{f"grad.{name}": shape for name, shape in shapes.items()},
    }
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", OPSET)]
    assert graph.ir_version == 9


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_from_the_shared_file_once(bundle: Folder, name: str) -> None:
    opened = Bundle(bundle(name))
    graph = onnx.load(opened.path / GRADIENTS_GRAPH, load_external_data=False).graph
    external = {t.name: t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    assert set(external) == set(opened.weights)
    assert {entry.value for t in external.values() for entry in t.external_data if entry.key == "location"} == {
        "model.onnx_data"
    }
    assert (opened.path / GRADIENTS_GRAPH).stat().st_size < 40_000 * opened.config.n_layers


@pytest.mark.parametrize("name", [*NAMES, "llama-gradients"])
def test_no_square_weight_is_used_transposed(bundle: Folder, name: str) -> None:
    """OpenVINO would take it and its transpose for one constant."""
    graph = onnx.load(bundle(name) / GRADIENTS_GRAPH, load_external_data=False).graph
    square = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2 and len({*tensor.dims}) == 1}
    square |= {node.output[0] for node in graph.node if node.op_type == "Cast" and node.input[0] in square}
    uses = [node.op_type for node in graph.node for value in node.input if value in square and node.op_type != "Cast"]
    assert len(square) >= Bundle(bundle(name)).config.n_layers
    assert {*uses} == {"MatMul"}


def test_any_onnx_runtime_computes_it(bundle: Folder) -> None:
    folder = bundle("base-gradients")
    session = onnxruntime.InferenceSession(folder / GRADIENTS_GRAPH, providers=["CPUExecutionProvider"])
    ids = np.array([[5, 9, 7]])
    cotangent = np.zeros((1, 3, 300), np.float32)
    cotangent[0, -1, 4] = 1
    logits, normalized, gradient = session.run(
        ["logits", "ln_final.hook_normalized", "grad.ln_final.hook_normalized"],
        {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.array([[0, 1, 2]]),
            "grad.logits": cotangent,
        },
    )
    weights = Bundle(folder).weights
    close(gradient[0, -1], weights["ln_f.weight"] * weights["wte.weight"][4])
    assert not gradient[0, :-1].any()
    assert logits.shape == (1, 3, 300)
    assert normalized.shape == gradient.shape


@pytest.mark.parametrize("name", NAMES)
def test_the_report_of_the_comparison(bundle: Folder, name: str) -> None:
    opened = Bundle(bundle(name), verify=True)
    assert opened.has_gradients
    Draft202012Validator(SCHEMA).validate(json.loads((opened.path / "onnxlens.json").read_text(encoding="utf-8")))
    report = opened.manifest.verification["gradients"]
    names = [point.name for point in opened.description.hook_points if not point.on_request]
    assert [*report["errors"]] == ["logits", *names, *(f"grad.{name}" for name in names)]
    worst = max(error["relative"] for error in report["errors"].values())
    assert 0 < worst == report["largest_relative_error"] <= report["tolerance"]
    assert report["cases"] == ["one token", "short", "longer", "padded batch"]


def test_the_graph_says_nothing_about_the_machine(bundle: Folder) -> None:
    content = (bundle("base-gradients") / GRADIENTS_GRAPH).read_bytes()
    for word in (str(Path.home()), getpass.getuser(), socket.gethostname(), "site-packages", ".py"):
        if len(word) > 3 or word == ".py":
            assert word.encode() not in content


def test_without_the_option_there_is_none(bundle: Folder) -> None:
    opened = Bundle(bundle("base"))
    assert not opened.has_gradients
    assert not (opened.path / GRADIENTS_GRAPH).exists()
    assert "gradients" not in opened.manifest.verification


def test_gradients_that_are_wrong_are_not_written(
    checkpoint: Folder,
    traced: Path,
    tmp_path: Path,
    left_behind: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoiled(config: ModelConfig) -> ir.Model:
        model = ir.load(traced)
        for value in model.graph.outputs:
            if value.name == "grad.blocks.0.attn.hook_pattern":
                product = value.producer()
                reader = next(node for node, _ in value.uses() if node.op_type == "Mul")
        assert product is not None
        # Softmax's derivative, p (g - sum(p g)), with p in place of g.
        reader.replace_input_with(list(reader.inputs).index(product.outputs[0]), product_of(model))
        return model

    def product_of(model: ir.Model) -> ir.Value:
        return next(v for v in model.graph.outputs if v.name == "blocks.0.attn.hook_pattern")

    monkeypatch.setattr(pipeline, "gradients_graph", spoiled)
    with pytest.raises(
        ExportError,
        match=(
            r"^The exported gradients differ from those of the PyTorch model: "
            r"grad\.\S+ is "
        ),
    ):
        export(checkpoint("base"), tmp_path / "out" / "bundle", gradients=True)
    assert left_behind() == []


def test_on_the_command_line(
    checkpoint: Folder, traced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mine"
    assert _run(["export", str(checkpoint("base")), str(target), "--gradients"]) == 0
    assert "gradients compared with torch.autograd float32: largest error" in capsys.readouterr().out
    assert _run(["inspect", "-m", str(target)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "gradients yes; gradients compared with torch.autograd float32: largest error" in out
    assert _run(["inspect", "-m", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gradients"] is True


def test_inspecting_a_bundle_without_them(bundle: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["inspect", "-m", str(bundle("base"))]) == 0
    assert "no: exported without --gradients" in capsys.readouterr().out
