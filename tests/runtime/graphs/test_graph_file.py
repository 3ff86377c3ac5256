"""What reading a graph notices, whoever made it: each fault is an error that names the file, before anything runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from damage import sign
from onnx import GraphProto, ModelProto, TensorProto, helper

from onnxlens.runtime._bundle.bundle import GRADIENTS_GRAPH, HOOKS_GRAPH, PLAIN_GRAPH, Bundle
from onnxlens.runtime._graphs.graph_file import OPERATORS, read_graph
from onnxlens.runtime.errors import BundleError


@pytest.fixture
def copy(bundle, tmp_path) -> Path:
    """A bundle that may be damaged."""
    return Path(shutil.copytree(bundle("base"), tmp_path / "copy"))


def error_of(folder: Path, change: Callable[[ModelProto], object], name: str = HOOKS_GRAPH) -> str:
    """What is said of a bundle one of whose graphs was changed."""
    model = onnx.load(folder / name, load_external_data=False)
    change(model)
    (folder / name).write_bytes(model.SerializeToString())
    return error_of_bytes(folder, name)


def error_of_bytes(folder: Path, name: str = HOOKS_GRAPH) -> str:
    sign(folder, name)
    with pytest.raises(BundleError) as caught:
        read_graph(Bundle(folder), name)
    text = str(caught.value)
    assert str(folder / name) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["base", "wide", "untied", "scaled", "base-float16", "base-gradients"])
def test_every_graph_of_an_export_is_read(bundle, name):
    opened = Bundle(bundle(name))
    for graph in (PLAIN_GRAPH, HOOKS_GRAPH, *([GRADIENTS_GRAPH] if opened.has_gradients else [])):
        used = {node.op_type for node in read_graph(opened, graph).graph.node}
        assert used <= OPERATORS


def never_ends() -> onnx.NodeProto:
    """A Loop of 2^62 steps, which nothing could interrupt."""
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [scalar("step", TensorProto.INT64, []), scalar("go", TensorProto.BOOL, [])],
        [scalar("on", TensorProto.BOOL, [])],
    )
    return helper.make_node("Loop", ["steps", "yes"], [], body=body)


def branch() -> onnx.NodeProto:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["wte.weight"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    return helper.make_node("If", ["yes"], ["foreign"], then_branch=inner, else_branch=inner)


@pytest.mark.parametrize(
    "node",
    [
        never_ends(),
        branch(),
        helper.make_node("Scan", [], []),
        helper.make_node("SequenceMap", [], []),
        helper.make_node("RandomNormal", [], ["x"], shape=[1]),
        helper.make_node("NoSuchOperator", [], []),
        helper.make_node("Add", [], [], domain="com.microsoft"),
    ],
    ids=lambda node: f"{node.domain}{node.op_type}",
)
@pytest.mark.parametrize("graph", [PLAIN_GRAPH, HOOKS_GRAPH])
def test_operators_that_no_export_writes_are_refused(copy, node, graph):
    text = error_of(copy, lambda model: model.graph.node.append(node), graph)
    name = f"{node.domain}::{node.op_type}".removeprefix("::")
    assert text == (
        f"The graph {copy / graph} uses the operator {name!r}, which no export of onnxlens writes. Export the model "
        "again."
    )


def test_a_graph_inside_an_operator_is_refused(copy):
    def hide(model: ModelProto) -> None:
        model.graph.node[0].attribute.append(helper.make_attribute("then_branch", GraphProto()))

    assert "uses a graph inside a graph, which no export of onnxlens writes" in error_of(copy, hide)


def test_functions_are_refused(copy):
    function = helper.make_function("d", "F", [], [], [], [])
    assert "uses functions of its own" in error_of(copy, lambda model: model.functions.append(function))


@pytest.mark.parametrize("field", ["name", "op_type", "input", "domain", "output"])
def test_text_that_is_not_utf8_is_damage(copy, field):
    mark = "mark"

    def change(model: ModelProto) -> None:
        node = model.graph.node[3]
        if field in ("input", "output"):
            getattr(node, field)[0] = mark
        else:
            setattr(node, field, mark)

    model = onnx.load(copy / HOOKS_GRAPH, load_external_data=False)
    change(model)
    content = model.SerializeToString()
    assert content.count(mark.encode()) == 1
    (copy / HOOKS_GRAPH).write_bytes(content.replace(mark.encode(), b"\xff\xfe\xfd\xfc"))
    assert f"cannot be read as an ONNX graph (ValueError: '{field}' is not UTF-8)" in error_of_bytes(copy)


def test_operators_without_inputs_are_damage(copy):
    def empty(model: ModelProto) -> None:
        for node in model.graph.node:
            del node.input[:]

    assert "uses the operator 'Shape' without inputs, which no export" in error_of(copy, empty)


def test_operators_without_outputs_are_damage(copy):
    def empty(model: ModelProto) -> None:
        del model.graph.node[5].output[:]

    assert "without outputs" in error_of(copy, empty)


def test_a_weight_of_another_shape_is_noticed(copy):
    def turn(model: ModelProto) -> None:
        tensor = next(one for one in model.graph.initializer if one.name == "wte.weight")
        tensor.dims[:] = reversed(tensor.dims)

    assert error_of(copy, turn).endswith("takes 'wte.weight' as one of shape [32, 300]; it has [300, 32].")


def test_a_graph_of_gigabytes_is_not_read(copy, monkeypatch):
    monkeypatch.setattr("onnxlens.runtime._graphs.graph_file._LIMIT", 1000)
    size = (copy / HOOKS_GRAPH).stat().st_size
    assert f"has {size:,} bytes, and no graph of a bundle needs more than 1,000." in error_of_bytes(copy)
