"""`--storage float16`: matrices stored with half the bits, computing in float32, and a report of what that costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import oracle
import pytest
import torch
from checkpoints import random_weights, stored_as_float16, tokenizer, write_checkpoint
from onnx import TensorProto
from safetensors.numpy import load_file, save_file
from transformers import GPT2LMHeadModel
from yardstick import SINGLE, close, is_close

from onnxlens._cli import main
from onnxlens.export import _verify as verify
from onnxlens.export import export, export_model
from onnxlens.export._checkpoint import Checkpoint, read_checkpoint
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._bundle.weights import STORAGES
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime.errors import CheckpointError, ExportError, InputError

Folder = Callable[[str], Path]
STORED = ["base-float16", "untied-float16"]
GRAPHS = ["onnx/model.onnx", "onnx/model_hooks.onnx"]


def config_of(folder: Path) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((folder / "config.json").read_text()))


def report_of(folder: Path) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((folder / "onnxlens.json").read_text())["verification"])


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return dict(load_file(folder / "onnx" / "model.onnx_data"))


@pytest.mark.parametrize("name", STORED)
def test_matrices_are_float16_and_vectors_stay_float32(bundle: Folder, name: str) -> None:
    given = random_weights(config_of(bundle(name)))
    found = weights_of(bundle(name))
    assert found.keys() == given.keys()  # a tied embedding once
    for tensor, value in given.items():
        stored = value.astype(np.float16) if value.ndim == 2 else value
        np.testing.assert_array_equal(found[tensor], stored, err_msg=tensor, strict=True)
    assert json.loads((bundle(name) / "onnxlens.json").read_text())["storage"] == "float16"


@pytest.mark.parametrize("name", STORED)
def test_weights_are_read_as_float32_however_they_are_stored(bundle: Folder, name: str) -> None:
    expected = stored_as_float16(random_weights(config_of(bundle(name))))
    found = Bundle(bundle(name)).weights
    for tensor, value in expected.items():
        np.testing.assert_array_equal(found[tensor], value, err_msg=tensor, strict=True)
        assert not found[tensor].flags.writeable


def test_the_weights_file_is_half_as_large(bundle: Folder) -> None:
    whole, half = (Bundle(bundle(name)).weights_bytes for name in ("base", "base-float16"))
    vectors = sum(value.nbytes for value in random_weights(config_of(bundle("base"))).values() if value.ndim == 1)
    assert abs((half - vectors) * 2 - (whole - vectors)) < 10_000  # the headers


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", STORED)
def test_each_stored_weight_is_widened_once_and_used_in_no_other_way(bundle: Folder, name: str, graph: str) -> None:
    path = bundle(name) / graph
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    stored = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert stored == {tensor for tensor, value in weights_of(bundle(name)).items() if value.dtype == np.float16}
    users = [node for node in model.graph.node if stored & set(node.input)]
    assert {node.op_type for node in users} == {"Cast"}
    assert sorted(node.input[0] for node in users) == sorted(stored)  # each once
    for node in users:
        assert list(node.output) == [f"{node.input[0]}.float32"]
    types = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert types == {TensorProto.INT64, TensorProto.FLOAT}


@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("name", STORED)
def test_plain_onnxruntime_computes_what_the_runner_and_the_oracle_do(
    bundle: Folder, runner: Callable[[str], Runner], name: str, optimised: bool
) -> None:
    config = runner(name).config
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(bundle(name) / GRAPHS[0], options, providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(3).integers(0, config.d_vocab, (2, 12))
    nothing = np.zeros((2, config.n_heads, 0, config.d_head), np.float32)
    (found,) = session.run(
        ["logits"],
        {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(12)[None].repeat(2, axis=0),
            **{i.name: nothing for i in session.get_inputs() if i.name.startswith("past_key_values.")},
        },
    )
    close(found, runner(name).run(ids).logits)
    entries = config_of(bundle(name))
    rounded = oracle.run(entries, stored_as_float16(random_weights(entries)), ids)["logits"]
    close(found, rounded)
    unrounded = oracle.run(entries, random_weights(entries), ids)["logits"]
    assert not is_close(found, unrounded, within=10 * SINGLE)  # the two can be told apart


@pytest.mark.parametrize("name", STORED)
def test_the_report_says_what_rounding_costs_and_proves_the_rest_as_ever(bundle: Folder, name: str) -> None:
    report, entries = report_of(bundle(name)), config_of(bundle(name))
    assert 0 < report["largest_relative_error"] < SINGLE  # against the same rounded weights
    weights = random_weights(entries)
    largest, same = 0.0, []
    for case in verify.cases(Bundle(bundle(name)).config):
        ids, mask, _ = case.inputs(entries["vocab_size"])
        exact, stored = (
            oracle.run(entries, w, ids, mask)["logits"][:, case.cached :][mask[:, case.cached :] == 1]
            for w in (weights, stored_as_float16(weights))
        )
        largest = max(largest, np.abs(exact - stored).max())
        same.append(exact.argmax(-1) == stored.argmax(-1))
    agreeing = np.concatenate(same)
    close(report["rounding"]["absolute"], largest, scale=exact)
    assert 1e-5 < report["rounding"]["relative"] < 0.1
    assert report["rounding"]["positions"] == len(agreeing)
    assert report["rounding"]["same_greedy_token"] == agreeing.mean()


def test_nothing_is_said_about_rounding_where_there_is_none(bundle: Folder) -> None:
    assert "rounding" not in report_of(bundle("base"))
    assert Bundle(bundle("base")).manifest.storage == "float32"


def test_greedy_tokens_that_change_are_counted(
    checkpoint: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_trace: None
) -> None:
    """Logits so near to each other that rounding decides."""
    weights = dict(load_file(checkpoint("base") / "model.safetensors"))
    rng = np.random.default_rng(5)
    weights["wte.weight"] = (1 + rng.normal(0, 1e-4, weights["wte.weight"].shape)).astype(np.float32)
    source = write_checkpoint(tmp_path / "source", weights=weights)
    report = export(source, tmp_path / "bundle", storage="float16").manifest.verification
    assert report["rounding"]["same_greedy_token"] < 0.9


def test_a_float16_checkpoint_loses_nothing(checkpoint: Folder, tmp_path: Path, quick_trace: None) -> None:
    source = write_checkpoint(tmp_path / "source")
    weights = {name: value.astype(np.float16) for name, value in load_file(source / "model.safetensors").items()}
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    bundle = export(source, tmp_path / "bundle", storage="float16")
    rounding = bundle.manifest.verification["rounding"]
    assert (rounding["absolute"], rounding["relative"], rounding["same_greedy_token"]) == (0, 0, 1)
    for name, value in weights.items():
        np.testing.assert_array_equal(bundle.weights[name], value.astype(np.float32))


def source_with(folder: Path, tensor: str, value: float) -> Path:
    weights = random_weights(config_of(write_checkpoint(folder)))
    weights[tensor].flat[3] = value
    return write_checkpoint(folder, weights=weights)


@pytest.mark.parametrize("value", [65_505.0, -70_000.0, 3e38])
def test_a_value_beyond_float16_is_refused(tmp_path: Path, left_behind: Callable[[], list[str]], value: float) -> None:
    source = source_with(tmp_path / "source", "h.1.mlp.c_proj.weight", value)
    with pytest.raises(CheckpointError) as caught:
        export(source, tmp_path / "out" / "bundle", storage="float16")
    assert str(caught.value) == (
        f"{source}: 'h.1.mlp.c_proj.weight' holds values up to {float(np.float32(abs(value))):,.0f}, and float16 ends "
        "at 65,504; store the weights as float32."
    )
    assert left_behind() == []


def test_a_vector_may_be_as_large_as_it_likes(tmp_path: Path) -> None:
    source = source_with(tmp_path / "source", "ln_f.bias", 70_000.0)
    assert float(read_checkpoint(source, storage="float16").tensors["ln_f.bias"].max()) == 70_000


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (65_504.0, 65_504.0),
        (2.0**-14, 2.0**-14),  # the least normal number
        (2.0**-24, 2.0**-24),  # the least of all
        (3 * 2.0**-24, 3 * 2.0**-24),
        (2.0**-26, 0.0),
        (-0.0, -0.0),
        (1 + 2.0**-11, 1.0),  # half way: to the even one
    ],
)
def test_every_value_becomes_the_nearest_that_there_is(tmp_path: Path, value: float, kept: float) -> None:
    source = source_with(tmp_path / "source", "wte.weight", value)
    found = read_checkpoint(source, storage="float16").tensors["wte.weight"]
    assert found.dtype == torch.float32
    assert float(found.flatten()[3]) == kept


def test_numbers_below_the_normal_ones_are_computed_with(tmp_path: Path, quick_trace: None) -> None:
    """A whole table of them, which flushing to zero would make vanish."""
    weights = random_weights(config_of(write_checkpoint(tmp_path / "source")))
    weights["wpe.weight"] *= np.float32(1e-5)
    source = write_checkpoint(tmp_path / "source", weights=weights)
    bundle = export(source, tmp_path / "bundle", storage="float16")
    expected = stored_as_float16(weights)["wpe.weight"]
    assert (np.abs(expected) < 2.0**-14).all() and expected.any()
    found = Runner(bundle, provider="cpu", threads=1).run([[1, 2, 3]], names_filter="hook_pos_embed")
    np.testing.assert_array_equal(found.activations["hook_pos_embed"][0], expected[:3])


def test_a_model_in_memory_is_rounded_in_the_bundle_and_left_as_it_was(
    checkpoint: Folder, tmp_path: Path, quick_trace: None
) -> None:
    model = GPT2LMHeadModel.from_pretrained(checkpoint("base"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bundle = export_model(model, tmp_path / "bundle", tokenizer=tokenizer(), storage="float16")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert bundle.manifest.storage == "float16"
    assert bundle.manifest.verification["rounding"]["absolute"] > 0


def test_weights_that_were_rounded_otherwise_are_found_out(
    checkpoint: Folder,
    tmp_path: Path,
    left_behind: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    quick_trace: None,
) -> None:
    """The proof is about the stored numbers: one last digit more in one matrix is not passed off as rounding."""
    from onnxlens.export import _bundle as pipeline

    written = pipeline.write_weights

    def cut_off(given: Checkpoint, folder: Path) -> None:
        written(given, folder)
        tensors = weights_of(folder)
        tensors["wpe.weight"] = np.nextafter(tensors["wpe.weight"], np.float16(np.inf))
        save_file(tensors, folder / "onnx" / "model.onnx_data", {"format": "pt"})

    monkeypatch.setattr(pipeline, "write_weights", cut_off)
    with pytest.raises(ExportError, match="The exported graphs do not reproduce the PyTorch model: "):
        export(checkpoint("base"), tmp_path / "out" / "bundle", storage="float16")
    assert left_behind() == []


@pytest.mark.parametrize("storage", ["fp16", "FLOAT16", None])
def test_a_storage_that_is_none_is_refused(checkpoint: Folder, tmp_path: Path, storage: Any) -> None:
    with pytest.raises(InputError, match=r"^storage must be 'float32' or 'float16', not "):
        export(checkpoint("base"), tmp_path / "bundle", storage=storage)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `onnxlens` in this process; returns status, standard output and standard error."""
    monkeypatch.setattr("signal.signal", lambda number, handler: None)  # pytest keeps its own

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["onnxlens", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capfd.readouterr())

    return command


def test_the_commands_say_how_weights_are_stored(
    run: Callable[..., tuple[int, str, str]], checkpoint: Folder, tmp_path: Path, quick_trace: None
) -> None:
    target = tmp_path / "bundle"
    status, out, _ = run("export", checkpoint("base"), target, "--storage", "float16")
    assert status == 0
    effect = Bundle(target).manifest.verification["rounding"]
    sentence = (
        f"stored as float16, which moves a logit by at most {effect['absolute']:.1e} ({effect['relative']:.1e} of "
        f"their range); the greedy token stays at {effect['same_greedy_token']:.1%} of 83 positions"
    )
    assert out.splitlines()[2] == sentence
    status, out, _ = run("inspect", "-m", target)
    assert status == 0
    words = " ".join(out.split())
    assert "storage float16" in words and "precision float32" in words and sentence in words
    _, out, _ = run("inspect", "-m", target, "--json")
    assert json.loads(out)["storage"] == "float16"
    assert json.loads(out)["verification"]["rounding"] == effect


def test_another_storage_is_an_error(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    status, out, err = run("export", tmp_path, "--storage", "int8")
    assert (status, out) == (1, "")
    assert "storage must be 'float32' or 'float16', not 'int8'." in err
    assert all(repr(storage) in err for storage in STORAGES)
