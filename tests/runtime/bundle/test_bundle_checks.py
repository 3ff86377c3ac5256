"""What opening a bundle notices: files missing, truncated, altered or swapped, foreign manifests, paths outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from damage import edit_json, sign
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data
from safetensors.numpy import load_file, save_file

from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import BundleError, HookPointError

FILES = [
    "onnx/model.onnx",
    "onnx/model_hooks.onnx",
    "onnx/model.onnx_data",
    "config.json",
    "tokenizer.json",
    "generation_config.json",
    "genai_config.json",
    "tokenizer_config.json",
]


@pytest.fixture
def copy(bundle, tmp_path) -> Path:
    """A bundle that may be damaged."""
    return Path(shutil.copytree(bundle("base"), tmp_path / "copy"))


def error_of(folder: Path, **options) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle(folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def start_error(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Runner(folder, provider="cpu", threads=1)
    return str(caught.value)


def test_an_intact_bundle_opens_and_verifies(bundle):
    opened = Bundle(bundle("base"), verify=True)
    seen: list[str] = []
    opened.verify(seen.append)
    assert sorted(seen) == sorted(FILES)
    assert (opened.name, opened.config.n_layers, opened.weights_bytes > 100_000) == ("base", 2, True)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    assert error_of(tmp_path).startswith(f"{tmp_path} is not a bundle: it has no onnxlens.json. Make a bundle with")


def test_a_folder_that_does_not_exist_is_said_not_to(tmp_path):
    assert error_of(tmp_path / "no").startswith(f"{tmp_path / 'no'} does not exist.")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    assert error_of(copy) == f"The bundle {copy} is incomplete: {name} is missing. Export or copy it again."


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named_with_both_sizes(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-7])
    expected = f"{copy / name} is truncated: it has {len(data) - 7} bytes, the manifest says {len(data)}."
    assert error_of(copy).startswith(expected)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_grew_is_named(copy, name):
    with (copy / name).open("ab") as file:
        file.write(b" ")
    assert f"{copy / name} is altered: it has" in error_of(copy)


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("_data")])
def test_one_changed_byte_is_noticed_at_every_load(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    assert error_of(copy).startswith(f"{copy / name} is not the file that was exported: its SHA-256 differs")


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_changed_weight_is_noticed_by_verification_but_not_by_the_quick_check(copy):
    flip_last_byte(copy / "onnx/model.onnx_data")
    quick = Bundle(copy)
    for check in (quick.verify, lambda: Bundle(copy, verify=True)):
        with pytest.raises(BundleError, match=r"model\.onnx_data is not the file that was exported: its SHA-256"):
            check()


def test_a_changed_header_of_the_weights_is_noticed_by_the_quick_check(copy):
    path = copy / "onnx/model.onnx_data"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"ln_f.bias"', b'"ln_g.bias"', 1))
    assert error_of(copy).startswith(f"{path} is not the file that was exported")


@pytest.mark.parametrize("garbage", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{]", b"\x04" + b"\0" * 7 + b"[[]]"])
def test_a_corrupt_header_of_the_weights_is_an_error(copy, garbage):
    path = copy / "onnx/model.onnx_data"
    path.write_bytes(garbage + path.read_bytes()[len(garbage) :] if garbage else b"\0" * path.stat().st_size)
    assert error_of(copy).startswith(f"The weights file {path} is damaged: its header cannot be read.")


def test_swapped_files_of_the_same_bundle_are_noticed(copy):
    first, second = copy / "onnx/model.onnx", copy / "onnx/model_hooks.onnx"
    first.rename(copy / "third")
    second.rename(first)
    (copy / "third").rename(second)
    assert str(first) in error_of(copy)


def test_weights_of_another_shape_are_noticed_at_every_load(copy, bundle):
    shutil.copy(bundle("wide") / "onnx/model.onnx_data", copy / "onnx/model.onnx_data")
    assert "onnx/model.onnx_data is truncated: it has 139616 bytes, the manifest says 148696." in error_of(copy)
    sign(copy, "onnx/model.onnx_data")
    expected = "'blocks.0.mlp.W_in' cannot be taken from the weights file (its shape is not [32, 128])"
    assert error_of(copy).startswith(f"Weights and manifest of {copy} do not fit: {expected}.")


@pytest.fixture
def half(bundle, tmp_path) -> Path:
    """A bundle stored as float16 that may be damaged."""
    return Path(shutil.copytree(bundle("base-float16"), tmp_path / "half"))


def test_a_bundle_that_says_wrongly_how_it_is_stored_is_noticed(half):
    edit_json(half / "onnxlens.json", storage="float32")
    assert "wte.weight is stored as float16, expected float32 where the manifest says 'storage': 'float32'" in (
        error_of(half)
    )


@pytest.mark.parametrize("storage", ["int4", "", None, 16])
def test_a_storage_that_is_none_is_damage(copy, storage):
    edit_json(copy / "onnxlens.json", storage=storage)
    expected = f"is damaged ('storage' must be float32 or float16, not {storage!r})"
    assert expected in error_of(copy)


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("h.1.mlp.c_fc.weight", np.float32, "is stored as float32, expected float16"),
        ("h.1.mlp.c_fc.bias", np.float16, "is stored as float16, expected float32"),
    ],
)
def test_a_weight_stored_otherwise_than_the_others_is_named(half, name, dtype, expected):
    path = half / "onnx/model.onnx_data"
    tensors = load_file(path)
    save_file({**tensors, name: tensors[name].astype(dtype)}, path)
    sign(half, "onnx/model.onnx_data")
    text = error_of(half)
    assert text.startswith(f"Weights and manifest of {half} do not fit: ")
    assert f"{name} {expected}" in text


@pytest.mark.parametrize("dtype", [b'"I16"', b'"B16"', b'"F8 "'])
def test_weights_of_a_data_type_that_is_not_read_are_named(half, dtype):
    """As long as float16, so that only the name in the header tells."""
    path = half / "onnx/model.onnx_data"
    path.write_bytes(path.read_bytes().replace(b'"F16"', dtype))
    text = error_of(half)
    assert text.startswith(f"The weights file {path} has '")
    assert text.endswith(
        f"' as '{dtype[1:-1].decode()}'; onnxlens reads weights stored as F32 and F16. Export or copy the bundle again."
    )


def test_a_graph_that_takes_a_weight_for_another_data_type_is_noticed(half):
    path = half / "onnx/model_hooks.onnx"
    model = read(path)
    tensor = next(t for t in model.graph.initializer if t.name == "wte.weight")
    tensor.data_type = TensorProto.BFLOAT16  # as long as float16
    onnx.save(model, path)
    sign(half, "onnx/model_hooks.onnx")
    assert start_error(half) == f"The graph {path} takes 'wte.weight' as another data type than float16."


def add_user(graph) -> None:
    graph.node.append(helper.make_node("Identity", ["wte.weight"], ["foreign"]))


def cast_to_double(graph) -> None:
    cast = next(node for node in graph.node if list(node.input) == ["wte.weight"])
    cast.attribute[0].i = TensorProto.DOUBLE


@pytest.mark.parametrize("foreign", [add_user, cast_to_double])
def test_a_graph_that_uses_a_stored_weight_otherwise_is_refused(half, foreign):
    path = half / "onnx/model_hooks.onnx"
    model = read(path)
    foreign(model.graph)
    onnx.save(model, path)
    sign(half, "onnx/model_hooks.onnx")
    assert start_error(half) == (
        f"The graph {path} uses 'wte.weight', which is stored as float16, in another way than by widening it to "
        "float32 once. Export the model again."
    )


def test_weights_are_plain_arrays_where_they_are_widened_and_views_of_the_file_elsewhere(half):
    weights = Bundle(half).weights
    assert type(weights["wte.weight"]) is np.ndarray
    assert isinstance(weights["ln_f.bias"], np.memmap)
    assert all(value.dtype == np.float32 and not value.flags.writeable for value in weights.values())


@pytest.mark.parametrize("version", [3, 99])
def test_a_newer_manifest_says_to_update(copy, version):
    edit_json(copy / "onnxlens.json", format_version=version, files="of a kind to come")
    assert error_of(copy) == (
        f"The bundle {copy} has format version {version}; this onnxlens reads version 2. "
        "Update onnxlens with 'pip install -U onnxlens'."
    )


def test_a_manifest_that_does_not_describe_its_model_says_to_export_again(copy):
    edit_json(copy / "onnxlens.json", format_version=1)
    assert error_of(copy) == (
        f"The bundle {copy} has format version 1, which does not describe its model, and this onnxlens reads version "
        "2. Export the model again."
    )


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", None, True])
def test_a_version_that_never_was_is_damage(copy, version):
    edit_json(copy / "onnxlens.json", format_version=version)
    assert error_of(copy).startswith(f"The manifest {copy / 'onnxlens.json'} is damaged and cannot be read (")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "{}", "\0", "[" * 100_000, '{"format_version":'])
def test_a_garbage_manifest_is_damage(copy, text):
    (copy / "onnxlens.json").write_text(text)
    assert error_of(copy).startswith(f"The manifest {copy / 'onnxlens.json'} is damaged and cannot be read (")


def test_a_manifest_that_is_not_utf8_is_damage(copy):
    (copy / "onnxlens.json").write_bytes(b'{"format_version": "\xff"}')
    assert "is damaged and cannot be read" in error_of(copy)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"files": []}, "has no attribute"),
        ({"files": {"config.json": 3}}, "must be a mapping"),
        ({"files": {"config.json": {"size": "3", "sha256": ""}}}, "the record of 'config.json' is not a size and a"),
        ({"hook_points": {}}, "'hook_points' must be a list"),
        ({"hook_points": ["hook_embed"]}, "'hook_points' must be a list of dicts"),
        ({"parameters": None}, "'parameters' must be a int"),
    ],
)
def test_a_manifest_with_entries_of_another_kind_is_damage(copy, changes, detail):
    edit_json(copy / "onnxlens.json", **changes)
    text = error_of(copy)
    assert text.startswith(f"The manifest {copy / 'onnxlens.json'} is damaged (")
    assert detail in text


@pytest.mark.parametrize("entry", ["files", "hook_points", "name", "parameters"])
def test_a_manifest_without_an_entry_names_it(copy, entry):
    manifest = json.loads((copy / "onnxlens.json").read_text())
    del manifest[entry]
    (copy / "onnxlens.json").write_text(json.dumps(manifest))
    assert f"is damaged ('{entry}' is missing)" in error_of(copy)


def test_a_manifest_must_list_the_files_that_are_needed(copy):
    manifest = json.loads((copy / "onnxlens.json").read_text())
    del manifest["files"]["onnx/model_hooks.onnx"]
    (copy / "onnxlens.json").write_text(json.dumps(manifest))
    assert f"The manifest of {copy} does not list onnx/model_hooks.onnx." in error_of(copy)


@pytest.mark.parametrize("name", ["../secret", "onnx/../../secret", "/etc/passwd"])
def test_a_manifest_may_not_name_files_outside(copy, name):
    manifest = json.loads((copy / "onnxlens.json").read_text())
    manifest["files"][name] = {"size": 1, "sha256": "0" * 64}
    (copy / "onnxlens.json").write_text(json.dumps(manifest))
    assert error_of(copy) == f"The manifest of {copy} names a file outside the bundle: {name!r}."


def test_a_bundle_with_fewer_hook_points_works_with_those_that_it_has(copy):
    whole = Runner(copy, provider="cpu", threads=1)
    change_manifest(copy, lambda m: m.update(hook_points=[p for p in m["hook_points"] if ".mlp." not in p["name"]]))
    fewer = Runner(copy, provider="cpu", threads=1)
    assert fewer.hook_names == tuple(name for name in whole.hook_names if ".mlp." not in name)
    expected, found = (one.run([3, 5, 7], names_filter="*") for one in (whole, fewer))
    assert all(np.array_equal(value, expected.activations[name]) for name, value in found.activations.items())
    with pytest.raises(HookPointError, match=r"Unknown hook point 'blocks\.0\.mlp\.hook_post'"):
        fewer.run([3, 5, 7], names_filter="blocks.0.mlp.hook_post")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m["hook_points"].append(m["hook_points"][0]), "'hook_points' cannot be used: a name appears twice"),
        (lambda m: m["hook_points"][0].pop("axes"), "the hook point 'hook_embed' cannot be used: no 'axes'"),
        (
            lambda m: m["hook_points"][0].update(axes=["pos"]),
            "the hook point 'hook_embed' cannot be used: its axes are",
        ),
        (lambda m: m["residual_stream"].pop("parts"), "'residual_stream' cannot be used"),
        (
            lambda m: m["residual_stream"].update(parts=["blocks.0.attn.hook_q"]),
            "is listed as part of the residual",
        ),
        (lambda m: m["normalizations"]["ln_final"].update(kind="BN"), "'ln_final' is of an unknown kind"),
        (lambda m: m["normalizations"]["ln_final"].update(eps=0), "'ln_final' is of an unknown kind"),
    ],
)
def test_a_description_that_contradicts_itself_is_noticed(copy, change, expected):
    change_manifest(copy, change)
    assert expected in error_of(copy)


def edit_cfg(folder: Path, **changes) -> None:
    change_manifest(folder, lambda manifest: manifest["cfg"].update(changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n_layers": 3}, "The weights in the manifest of"),
        ({"d_model": 64}, "'embed.W_E' cannot be taken from the weights file (its shape is not [300, 64])"),
        ({"d_mlp": 50}, "'blocks.0.mlp.W_in' cannot be taken from the weights file (its shape is not [32, 50])"),
        ({"d_vocab": 301}, "'embed.W_E' cannot be taken from the weights file (its shape is not [301, 32])"),
        ({"n_ctx": 1024}, "'pos_embed.W_pos' cannot be taken from the weights file"),
        ({"n_layers": 1}, "'blocks.1.hook_resid_pre' is not a hook point of a model of 1 blocks"),
        ({"normalization_type": "BN"}, "'normalization_type' must be 'LN' or 'RMS', not 'BN'"),
        ({"n_heads": 2}, "'blocks.0.attn.W_Q' cannot be taken from the weights file (its shape is not [2, 32, 8])"),
        ({"n_heads": 0}, "'n_heads' must be a whole number of at least 1, not 0"),
        ({"n_heads": True}, "'n_heads' must be a whole number of at least 1, not True"),
        ({"n_key_value_heads": 3}, "'n_heads' 4 cannot be divided among 'n_key_value_heads' 3"),
        ({"eps": 2}, "'eps' must be a number between 0 and 1, not 2"),
        ({"act_fn": 3}, "'act_fn' must be a text, not 3"),
        ({"use_attn_scale": 1}, "'use_attn_scale' must be true or false, not 1"),
        ({"bos_token_id": "x"}, "'bos_token_id' must be a token id or null, not 'x'"),
        ({"d_nothing": 3}, "has an entry 'd_nothing' that this onnxlens does not know"),
    ],
)
def test_a_shape_that_does_not_fit_is_noticed(copy, changes, expected):
    edit_cfg(copy, **changes)
    assert expected in error_of(copy)


def test_a_shape_that_is_not_whole_is_noticed(copy):
    change_manifest(copy, lambda manifest: manifest["cfg"].pop("d_head"))
    assert "is incomplete: " in error_of(copy) and "'d_head'" in error_of(copy)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tensor": "nothing"}, "no 'nothing'"),
        ({"tensor": 3}, "'tensor' must be a name or null"),
        ({"axes": ["d_vocab"]}, "its shape is not [300]"),
        ({"axes": ["d_vocab", "d_nothing"]}, "no 'd_nothing'"),
        ({"slice": [0, 5, 400]}, "5 to 400 of axis 0 is not within shape [300, 32]"),
        ({"slice": [2, 0, 1]}, "0 to 1 of axis 2 is not within shape [300, 32]"),
        ({"slice": [0, 5]}, "'slice' must be a list of whole numbers"),
        ({"reshape": [7, 7]}, "cannot reshape"),
        ({"reshape": [10**9] * 9}, "("),
        ({"transpose": [1, 0]}, "its shape is not [300, 32]"),
        ({"transpose": [1, 1]}, "repeated axis"),
        ({"turn": True}, "unexpected keyword"),
    ],
)
def test_a_table_of_weights_that_does_not_fit_is_noticed(copy, changes, expected):
    change_manifest(copy, lambda manifest: manifest["weights"]["embed.W_E"].update(changes))
    text = error_of(copy)
    assert text.startswith(f"Weights and manifest of {copy} do not fit: 'embed.W_E' cannot be taken from the weights")
    assert expected in text


def read(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


@pytest.mark.parametrize("graph", ["onnx/model.onnx", "onnx/model_hooks.onnx"])
@pytest.mark.parametrize("location", ["../x", "/etc/passwd", "sub/x", "other.bin", ""])
def test_a_graph_may_take_weights_from_the_weights_file_only(copy, graph, location):
    model = read(copy / graph)
    tensor = next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
    next(entry for entry in tensor.external_data if entry.key == "location").value = location
    onnx.save(model, copy / graph)
    sign(copy, graph)
    assert start_error(copy) == (
        f"The graph {copy / graph} takes {tensor.name!r} from {location!r}; a bundle's graphs may take data from "
        "model.onnx_data beside them only."
    )


def outside() -> TensorProto:
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1], raw_data=b"\0\0\0\0")
    set_external_data(tensor, "../../secret")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


@pytest.mark.parametrize("where", ["constant", "subgraph", "function"])
def test_a_path_outside_is_found_wherever_in_the_graph_it_hides(copy, where):
    path = copy / "onnx/model_hooks.onnx"
    model = read(path)
    node = helper.make_node("Constant", [], ["hidden"], value=outside())
    if where == "constant":
        model.graph.node.append(node)
    elif where == "subgraph":
        inner = helper.make_graph([], "inner", [], [], [outside()])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))
    else:
        model.functions.append(helper.make_function("d", "F", [], ["hidden"], [node], model.opset_import))
    onnx.save(model, path)
    sign(copy, "onnx/model_hooks.onnx")
    assert "takes 'hidden' from '../../secret'" in start_error(copy)


def test_a_graph_that_reads_a_weight_from_the_place_of_another_is_noticed(copy):
    path = copy / "onnx/model_hooks.onnx"
    model = read(path)
    tensor = next(t for t in model.graph.initializer if t.name == "h.1.mlp.c_fc.weight")
    next(entry for entry in tensor.external_data if entry.key == "offset").value = "0"
    onnx.save(model, path)
    sign(copy, "onnx/model_hooks.onnx")
    assert start_error(copy) == f"The graph {path} looks for 'h.1.mlp.c_fc.weight' in a wrong place."


@pytest.mark.parametrize("garbage", [b"garbage", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b""])
def test_a_graph_that_is_none_is_an_error(copy, garbage):
    path = copy / "onnx/model_hooks.onnx"
    path.write_bytes(garbage)
    sign(copy, "onnx/model_hooks.onnx")
    text = start_error(copy)
    assert text.startswith((f"{path} cannot be read as an ONNX graph (", f"The graph {path} does not fit"))


def test_a_graph_that_onnx_runtime_refuses_is_an_error(copy, capsys):
    path = copy / "onnx/model_hooks.onnx"
    model = read(path)
    model.graph.node[0].attribute.append(helper.make_attribute("no_such_attribute", 1))
    onnx.save(model, path)
    sign(copy, "onnx/model_hooks.onnx")
    assert start_error(copy).startswith(f"ONNX Runtime cannot load the graph of {copy}: ")
    assert capsys.readouterr().out == ""


def test_a_graph_without_a_hook_point_is_noticed(copy):
    path = copy / "onnx/model_hooks.onnx"
    model = read(path)
    del model.graph.output[-1]
    onnx.save(model, path)
    sign(copy, "onnx/model_hooks.onnx")
    assert start_error(copy) == f"The graph {path} does not fit the bundle's manifest."


def test_a_graph_with_another_ending_is_noticed(copy):
    path = copy / "onnx/model_hooks.onnx"
    model = read(path)
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.op_type = "Add"
    onnx.save(model, path)
    sign(copy, "onnx/model_hooks.onnx")
    assert start_error(copy) == f"The graph {path} does not end in a product with 'wte.weight'."


def test_a_graph_with_another_beginning_is_noticed(copy):
    path = copy / "onnx/model_hooks.onnx"
    model = read(path)
    next(node for node in model.graph.node if "hook_embed" in node.output).op_type = "Add"
    onnx.save(model, path)
    sign(copy, "onnx/model_hooks.onnx")
    assert start_error(copy) == f"The graph {path} does not look up 'wte.weight' by token id."


def test_a_tokenizer_that_is_none_is_an_error(copy):
    import onnxlens

    (copy / "tokenizer.json").write_text("{}")
    sign(copy, "tokenizer.json")
    with pytest.raises(BundleError, match=r"The tokenizer .*tokenizer\.json cannot be read: "):
        onnxlens.load(copy, provider="cpu")


def test_two_processes_open_one_bundle_at_once(bundle):
    script = (
        "import sys, onnxlens\n"
        "lens = onnxlens.load(sys.argv[1], provider='cpu', threads=1, verify=True)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(lens.predict('the cat').top[0])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, bundle("base")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"  # both have it open
    answers = [process.communicate("\n", timeout=600)[0] for process in processes]
    assert answers[0] == answers[1] != ""


@pytest.mark.parametrize("layers", [10**6, 10**9])
def test_an_absurd_number_of_layers_is_refused_at_once(copy, layers):
    edit_cfg(copy, n_layers=layers)
    assert f"has {layers} blocks, and no model has more than 10,000" in error_of(copy)


def test_a_pipe_in_place_of_a_file_is_refused_and_not_read(copy):
    (copy / "generation_config.json").unlink()
    os.mkfifo(copy / "generation_config.json")
    assert "is not a regular file" in error_of(copy)


def test_a_file_name_that_no_file_can_have_is_missing(copy):
    manifest = json.loads((copy / "onnxlens.json").read_text())
    manifest["files"]["a\0b"] = {"size": 0, "sha256": ""}
    (copy / "onnxlens.json").write_text(json.dumps(manifest))
    assert "is missing" in error_of(copy)


def test_a_manifest_with_nan_is_damage(copy):
    text = (copy / "onnxlens.json").read_text()
    (copy / "onnxlens.json").write_text(text.replace('"tolerance": 0.0001', '"tolerance": NaN'))
    assert "is damaged" in error_of(copy)


def test_a_normalizer_on_which_the_tokenizer_would_panic_is_damage(copy):
    edit_json(copy / "tokenizer.json", normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "xx"})
    sign(copy, "tokenizer.json")
    with pytest.raises(BundleError, match=r"cannot be read: its normalizer replaces empty texts\.$"):
        Tokenizer(copy / "tokenizer.json")


def test_a_manifest_of_gigabytes_is_not_read(copy):
    with (copy / "onnxlens.json").open("r+b") as file:
        file.truncate(3_000_000_000)  # a file with a hole, which takes no room
    text = error_of(copy)
    assert text.startswith(
        f"The manifest {copy / 'onnxlens.json'} is damaged and cannot be read (it is larger than 20,"
    )


def change_manifest(folder: Path, change) -> None:
    path = folder / "onnxlens.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
def test_files_besides_the_weights_have_a_bound_in_all(copy, name):
    size = 1_100_000_000
    with (copy / name).open("r+b") as file:
        file.truncate(size)
    change_manifest(copy, lambda manifest: manifest["files"][name].update(size=size))
    assert "bytes besides the weights, and a bundle has at most 1,000,000,000." in error_of(copy)


def test_a_configuration_has_a_bound_of_its_own(copy, monkeypatch):
    monkeypatch.setattr("onnxlens.runtime._bundle.bundle._JSON_LIMIT", 10)
    size = (copy / "generation_config.json").stat().st_size
    with pytest.raises(BundleError) as caught:
        _ = Bundle(copy).end_tokens
    text = str(caught.value)
    assert f"cannot be read: it has {size} bytes, and no file of its kind needs more than 10." in text


@pytest.mark.parametrize("name", ["./onnx/model.onnx_data", "onnx//model.onnx_data", "onnx/./model.onnx_data", "", "."])
def test_a_file_has_one_name(copy, name):
    def add(manifest) -> None:
        manifest["files"][name] = manifest["files"]["onnx/model.onnx_data"]

    change_manifest(copy, add)
    assert f"(the path {name!r} is not written in its shortest form)" in error_of(copy)


def test_a_manifest_that_names_the_weights_very_often_is_refused_before_anything_is_read(copy):
    record = json.loads((copy / "onnxlens.json").read_text())["files"]["onnx/model.onnx_data"]
    for number in range(1_500):
        os.link(copy / "onnx/model.onnx_data", copy / f"{number}")
    change_manifest(copy, lambda manifest: manifest["files"].update({str(n): record for n in range(1_500)}))
    assert "'files' names 1508, and a bundle has at most 100" in error_of(copy)


def test_an_error_does_not_echo_megabytes(copy):
    edit_cfg(copy, act_fn=["x" * 1_000_000])
    assert len(error_of(copy)) <= 4_000
    change_manifest(
        copy, lambda manifest: manifest["files"].update({"../" + "y" * 1_000_000: {"size": 1, "sha256": ""}})
    )
    assert len(error_of(copy)) <= 4_000
