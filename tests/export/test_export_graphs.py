"""What is in the exported graphs: names, shapes, outputs; and that any ONNX Runtime can run them."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import oracle
import pytest
from checkpoints import CONFIGS, family, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from yardstick import close

from onnxlens.export._graph import OPSET
from onnxlens.runtime._bundle.config import ModelConfig

Folder = Callable[[str], Path]
GRAPHS = ("model.onnx", "model_hooks.onnx")
NAMES = tuple(CONFIGS)


def read(folder: Path, graph: str) -> onnx.ModelProto:
    return onnx.load(folder / "onnx" / graph, load_external_data=False)


def config_of(folder: Path) -> ModelConfig:
    return family(json.loads((folder / "config.json").read_text())).cfg


def declared(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, list[int | str]]]:
    """Name -> element type and shape, a dimension by its name or size."""
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", NAMES)
def test_inputs_have_the_names_and_shapes_that_other_runtimes_look_for(bundle: Folder, name: str, graph: str) -> None:
    folder = bundle(name)
    config = config_of(folder)
    cache = ["batch_size", config.n_heads, "past_sequence_length", config.d_head]
    expected: dict[str, tuple[int, list[int | str]]] = {
        "input_ids": (onnx.TensorProto.INT64, ["batch_size", "sequence_length"]),
        "attention_mask": (onnx.TensorProto.INT64, ["batch_size", "past_sequence_length + sequence_length"]),
        "position_ids": (onnx.TensorProto.INT64, ["batch_size", "sequence_length"]),
    }
    for layer in range(config.n_layers):
        expected[f"past_key_values.{layer}.key"] = (onnx.TensorProto.FLOAT, list(cache))
        expected[f"past_key_values.{layer}.value"] = (onnx.TensorProto.FLOAT, list(cache))
    found = declared(list(read(folder, graph).graph.input))
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_graph_outputs_logits_and_cache_only(bundle: Folder, name: str) -> None:
    folder = bundle(name)
    config = config_of(folder)
    cache = ["batch_size", config.n_heads, "past_sequence_length + sequence_length", config.d_head]
    expected: dict[str, tuple[int, list[int | str]]] = {
        "logits": (onnx.TensorProto.FLOAT, ["batch_size", "sequence_length", config.d_vocab])
    }
    for layer in range(config.n_layers):
        expected[f"present.{layer}.key"] = (onnx.TensorProto.FLOAT, list(cache))
        expected[f"present.{layer}.value"] = (onnx.TensorProto.FLOAT, list(cache))
    found = declared(list(read(folder, "model.onnx").graph.output))
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_hooks_graph_outputs_every_hook_point_but_hook_result(bundle: Folder, name: str) -> None:
    folder = bundle(name)
    config = config_of(folder)
    plain = declared(list(read(folder, "model.onnx").graph.output))
    found = declared(list(read(folder, "model_hooks.onnx").graph.output))
    points = [
        point
        for point in family(json.loads((folder / "config.json").read_text())).description().hook_points
        if not point.name.endswith("attn.hook_result")
    ]
    assert len(points) == 4 + 17 * config.n_layers
    assert list(found) == [*plain, *(point.name for point in points)]
    sizes: dict[str, int | str] = {
        "batch": "batch_size",
        "pos": "sequence_length",
        "query_pos": "sequence_length",
        "key_pos": "past_sequence_length + sequence_length",
        "head": config.n_heads,
        "d_model": config.d_model,
        "d_head": config.d_model // config.n_heads,
        "d_mlp": config.d_mlp,
        "one": 1,
    }
    for point in points:
        assert found[point.name] == (onnx.TensorProto.FLOAT, [sizes[axis] for axis in point.axes]), point.name
        assert not point.name.startswith("present")
        assert ".key" not in point.name and ".value" not in point.name


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", NAMES)
def test_the_checker_passes_and_only_plain_onnx_is_used(bundle: Folder, name: str, graph: str) -> None:
    path = bundle(name) / "onnx" / graph
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert model.ir_version == 9  # the newest that ONNX Runtime 1.17 reads
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    # The weight-only quantizers skip Gemm.
    assert "Gemm" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_tells_of_the_machine_that_exported(bundle: Folder, name: str, graph: str) -> None:
    path = bundle(name) / "onnx" / graph
    content = path.read_bytes()
    project = Path(__file__).parents[2]
    words = [str(path.parents[1]), str(project), str(Path.home()) + "/", "site-packages", ".py", "Traceback"]
    for word in (*words, "pkg.torch", "pkg.onnxscript", "stack_trace", socket.gethostname()):
        assert word.encode() not in content, word
    if (user := getpass.getuser()) != "root":  # too short a word to mean anything
        assert user.encode() not in content
    model = onnx.load_from_string(content)
    assert model.producer_name == "onnxlens"
    assert not model.doc_string and not model.graph.doc_string
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        assert not part.metadata_props
    assert not any(node.doc_string for node in model.graph.node)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", NAMES)
def test_every_weight_lies_in_the_one_weights_file(bundle: Folder, name: str, graph: str) -> None:
    outside, inside = [], []
    for tensor in read(bundle(name), graph).graph.initializer:
        (outside if tensor.data_location == onnx.TensorProto.EXTERNAL else inside).append(tensor)
    assert {entry.value for t in outside for entry in t.external_data if entry.key == "location"} == {"model.onnx_data"}
    assert {t.name for t in outside} == set(random_weights(json.loads((bundle(name) / "config.json").read_text())))
    assert sum(int(np.prod(t.dims)) for t in inside) < 100  # axes and other constants


def feed(
    config: ModelConfig, lengths: list[int], ids: np.ndarray, cut: int, past: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Everything a graph wants for the positions after `cut`, or for those before it if there is no past yet."""
    total = max(lengths)
    mask = (np.arange(total) >= total - np.array(lengths)[:, None]).astype(np.int64)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    cache = past or {
        f"past_key_values.{layer}.{part}": np.zeros((len(ids), config.n_heads, 0, config.d_head), np.float32)
        for layer in range(config.n_layers)
        for part in ("key", "value")
    }
    part = slice(cut, total) if past or not cut else slice(0, cut)
    return {
        "input_ids": ids[:, part],
        "attention_mask": mask[:, : part.stop],
        "position_ids": positions[:, part],
        **cache,
    }


@pytest.fixture(scope="module")
def moved(bundle: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A bundle's graphs and weights, and nothing else, in another folder."""
    folders: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("elsewhere") / "moved bundle é"
            shutil.copytree(bundle(name) / "onnx", folders[name])
        return folders[name]

    return make


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", NAMES)
def test_a_moved_bundle_runs_in_plain_onnxruntime(
    bundle: Folder, moved: Folder, name: str, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fed with dictionaries from another working directory, every output is the oracle's."""
    monkeypatch.chdir("/")
    entries = json.loads((bundle(name) / "config.json").read_text())
    config = family(entries).cfg
    ids = np.random.default_rng(1).integers(0, config.d_vocab, (2, 10))
    expected = oracle.run(entries, random_weights(entries), ids)
    opened = session(moved(name) / graph)
    outputs = [value.name for value in opened.get_outputs()]
    found = dict(zip(outputs, opened.run(None, feed(config, [10, 10], ids, 0)), strict=True))
    for output, value in found.items():
        if not output.startswith("present."):
            close(value, expected[output], name=output)
    for layer in range(config.n_layers):
        for part, hook in (("key", "hook_k"), ("value", "hook_v")):
            expected_part = expected[f"blocks.{layer}.attn.{hook}"].transpose(0, 2, 1, 3)
            close(found[f"present.{layer}.{part}"], expected_part)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4), data=st.data())
@pytest.mark.parametrize("graph", GRAPHS)
def test_any_batch_length_cache_and_left_padding(
    moved: Folder, bundle: Folder, graph: str, lengths: list[int], data: st.DataObject
) -> None:
    entries = json.loads((bundle("base") / "config.json").read_text())
    config = family(entries).cfg
    weights = random_weights(entries)
    cut = data.draw(st.integers(0, max(lengths) - 1))
    ids = np.random.default_rng(sum(lengths)).integers(0, config.d_vocab, (len(lengths), max(lengths)))
    opened = _opened(moved("base") / graph)
    past = None
    if cut:
        present = [value.name for value in opened.get_outputs() if value.name.startswith("present.")]
        cached = opened.run(present, feed(config, lengths, ids, cut))
        past = {f"past_key_values.{n.removeprefix('present.')}": v for n, v in zip(present, cached, strict=True)}
    (logits,) = opened.run(["logits"], feed(config, lengths, ids, cut, past))
    assert np.isfinite(logits).all()
    for row, length in enumerate(lengths):
        pad = max(lengths) - length
        new = max(cut, pad)
        alone = oracle.run(entries, weights, ids[row : row + 1, pad:])["logits"]
        close(logits[row, new - cut :], alone[0, new - pad :])


_sessions: dict[Path, onnxruntime.InferenceSession] = {}


def _opened(path: Path) -> onnxruntime.InferenceSession:
    if path not in _sessions:
        _sessions[path] = session(path)
    return _sessions[path]


@pytest.mark.parametrize("name", NAMES)
def test_a_hook_point_has_the_same_value_in_both_graphs(moved: Folder, name: str) -> None:
    """Reading everything does not change the logits."""
    folder = moved(name)
    plain, hooks = session(folder / "model.onnx"), session(folder / "model_hooks.onnx")
    config = config_of_inputs(plain)
    ids = np.random.default_rng(2).integers(0, 290, (1, 17))
    inputs = feed(config, [17], ids, 0)
    (expected,) = plain.run(["logits"], inputs)
    found = hooks.run(None, inputs)[0]
    close(found, expected)


def config_of_inputs(opened: onnxruntime.InferenceSession) -> ModelConfig:
    """What an outsider finds out from the metadata alone: how large an empty cache is."""
    cache = [value.shape for value in opened.get_inputs() if value.name.startswith("past_key_values.")]
    heads, width = cache[0][1], cache[0][3]
    return family({"n_layer": len(cache) // 2, "n_head": heads, "n_embd": heads * width}).cfg
