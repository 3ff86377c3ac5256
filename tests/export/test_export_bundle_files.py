"""The files of a bundle: weights, tokenizer, the configurations of other runtimes, and the manifest."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from checkpoints import CONFIGS, config_entries, family, random_weights, write_checkpoint
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from onnxlens.export import export
from onnxlens.export.families.gpt2 import GPT2
from onnxlens.runtime._bundle.bundle import Bundle

Folder = Callable[[str], Path]
NAMES = tuple(CONFIGS)
SCHEMA = Path(__file__).parents[2] / "docs" / "onnxlens.schema.json"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_folder_holds_these_files_and_no_others(bundle: Folder) -> None:
    folder = bundle("base")
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "onnxlens.json",
        "config.json",
        "generation_config.json",
        "genai_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "onnx/model.onnx",
        "onnx/model_hooks.onnx",
        "onnx/model.onnx_data",
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_file_is_safetensors_with_the_checkpoints_numbers(bundle: Folder, name: str) -> None:
    expected = random_weights(read(bundle(name) / "config.json"))
    found = load_file(bundle(name) / "onnx" / "model.onnx_data")
    assert found.keys() == expected.keys()
    assert ("lm_head.weight" in found) == (name == "untied")  # tied: stored once, as wte.weight
    for tensor, value in expected.items():
        np.testing.assert_array_equal(found[tensor], value, err_msg=tensor, strict=True)


@pytest.mark.parametrize("tied", [True, False])
def test_a_bundle_is_hardly_larger_than_its_weights(tmp_path: Path, tied: bool) -> None:
    source = write_checkpoint(
        tmp_path / "wide", n_embd=256, vocab_size=4096, n_layer=2, n_positions=128, tie_word_embeddings=tied
    )
    bundle = export(source, tmp_path / "bundle")
    weights = sum(array.nbytes for array in load_file(source / "model.safetensors").values())
    assert sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file()) <= 1.02 * weights
    assert bundle.manifest.parameters == weights // 4


def test_files_have_the_permissions_of_any_file_the_user_makes(
    checkpoint: Folder, tmp_path: Path, quick_trace: None
) -> None:
    mask = os.umask(0o027)
    try:
        export(checkpoint("base"), tmp_path / "bundle")
    finally:
        os.umask(mask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "bundle").rglob("*")}
    assert stat.S_IMODE((tmp_path / "bundle").stat().st_mode) == 0o750
    assert modes.pop("onnx") == 0o750
    assert set(modes.values()) == {0o640}, modes


# transformers.js has no defaults for these, as GPT2Tokenizer has for some, and needs the last to pad a batch.
KINDS = ("bos_token", "eos_token", "unk_token", "pad_token")
SPECIAL = {**dict.fromkeys(KINDS, "<|endoftext|>"), "padding_side": "left"}


def test_the_tokenizer_travels(bundle: Folder, checkpoint: Folder) -> None:
    text = "the cat sat on the mat, naïvely 🎉<|endoftext|>"
    ours = Tokenizer.from_file(str(bundle("base") / "tokenizer.json"))
    theirs = Tokenizer.from_file(str(checkpoint("base") / "tokenizer.json"))
    assert ours.encode(text).ids == theirs.encode(text).ids
    assert ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text
    assert read(bundle("base") / "tokenizer_config.json") == {
        "tokenizer_class": "GPT2TokenizerFast",
        "model_max_length": 48,
        **SPECIAL,
    }


@pytest.mark.parametrize("name", ["base", "llama"])
def test_special_tokens_are_named_where_the_checkpoint_has_no_tokenizer_config(bundle: Folder, name: str) -> None:
    assert read(bundle(name) / "tokenizer_config.json").items() >= SPECIAL.items()


@pytest.mark.parametrize("name", NAMES)
def test_config_json_keeps_the_checkpoints_entries_and_tells_transformers_js(
    bundle: Folder, checkpoint: Folder, name: str
) -> None:
    found, given = read(bundle(name) / "config.json"), read(checkpoint(name) / "config.json")
    assert given.items() <= found.items()
    assert found["transformers.js_config"] == {
        "use_external_data_format": {"model.onnx": 1},
        "kv_cache_dtype": "float32",
    }
    assert found["dtype"] == "float32"
    # Every entry that decides the numbers is spelt out, whatever a reader's defaults are.
    assert GPT2.DEFAULTS.keys() <= found.keys()


@pytest.mark.parametrize("name", NAMES)
def test_genai_config_describes_the_graph(bundle: Folder, name: str) -> None:
    config = read(bundle(name) / "config.json")
    genai = read(bundle(name) / "genai_config.json")
    model, decoder = genai["model"], genai["model"]["decoder"]
    assert (bundle(name) / decoder["filename"]).is_file()
    assert model["type"] == "decoder"
    assert model["vocab_size"] == config["vocab_size"]
    assert model["pad_token_id"] == -1  # no prompt can hold this id, and genai feeds it to the graph
    assert model["context_length"] == genai["search"]["max_length"] == config["n_positions"]
    assert model["eos_token_id"] == model["bos_token_id"] == 0
    assert decoder["num_hidden_layers"] == config["n_layer"]
    assert decoder["num_attention_heads"] == decoder["num_key_value_heads"] == config["n_head"]
    assert decoder["head_size"] * config["n_head"] == decoder["hidden_size"] == config["n_embd"]
    assert genai["search"]["past_present_share_buffer"] is False


def test_the_checkpoints_own_generation_and_tokenizer_configuration_travel(tmp_path: Path, quick_trace: None) -> None:
    source = write_checkpoint(tmp_path / "source")
    generation = {"do_sample": True, "temperature": 0.7, "eos_token_id": 0}
    tokenizer = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 48, "chat_template": "{{ 'ü' }}"}
    (source / "generation_config.json").write_text(json.dumps(generation))
    (source / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    bundle = export(source, tmp_path / "bundle")
    assert read(bundle.path / "generation_config.json") == generation
    assert read(bundle.path / "tokenizer_config.json") == {**SPECIAL, **tokenizer}


def test_the_manifest_states_size_and_sha256_of_every_other_file(bundle: Folder) -> None:
    folder = bundle("base")
    files = read(folder / "onnxlens.json")["files"]
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert files.keys() == paths.keys() - {"onnxlens.json"}
    for name, record in files.items():
        content = paths[name].read_bytes()
        assert record["size"] == len(content), name
        assert record["sha256"] == hashlib.sha256(content).hexdigest(), name
    weights = paths["onnx/model.onnx_data"].read_bytes()
    header = 8 + int.from_bytes(weights[:8], "little")
    assert files["onnx/model.onnx_data"]["header_sha256"] == hashlib.sha256(weights[:header]).hexdigest()
    assert [name for name, record in files.items() if "header_sha256" in record] == ["onnx/model.onnx_data"]
    Bundle(folder, verify=True)


def test_the_manifest_says_where_the_bundle_came_from(bundle: Folder, checkpoint: Folder) -> None:
    manifest = read(bundle("base") / "onnxlens.json")
    assert manifest["format_version"] == 2
    assert manifest["name"] == "base"
    assert manifest["source"] == {"kind": "folder", "id": "base"}
    assert str(checkpoint("base").parent) not in json.dumps(manifest)  # a folder's place is its owner's business
    assert manifest["precision"] == "float32"
    assert manifest["parameters"] == sum(
        array.size for array in random_weights(read(bundle("base") / "config.json")).values()
    )
    assert {"onnxlens", "torch", "transformers", "onnxruntime"} <= manifest["made_with"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_has_the_hook_table(bundle: Folder, name: str) -> None:
    points = family(read(bundle(name) / "config.json")).description().hook_points
    listed = read(bundle(name) / "onnxlens.json")["hook_points"]
    assert [(one["name"], one["axes"], one["meaning"]) for one in listed] == [
        (point.name, list(point.axes), point.meaning) for point in points
    ]
    assert {one["name"]: one["product"] for one in listed if "product" in one} == {
        f"blocks.{n}.attn.hook_result": {
            "activation": f"blocks.{n}.attn.hook_z",
            "weight": f"blocks.{n}.attn.W_O",
            "added_to": f"blocks.{n}.hook_attn_out",
        }
        for n in range(family(read(bundle(name) / "config.json")).cfg.n_layers)
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_has_an_error_for_every_hook_point_and_the_logits(bundle: Folder, name: str) -> None:
    report = read(bundle(name) / "onnxlens.json")["verification"]
    config = family(read(bundle(name) / "config.json")).cfg
    points = [
        point.name
        for point in family(config_entries(n_layer=config.n_layers)).description().hook_points
        if not point.on_request
    ]
    others = ["logits", "logits (transformers)", "present.*.key", "present.*.value"]
    assert report["errors"].keys() == {*points, *others}
    for value, error in report["errors"].items():
        assert error.keys() == {"absolute", "relative"}, value
        assert 0 <= error["relative"] <= report["tolerance"], value
        assert error["absolute"] >= 0, value
    # Two programs of floating-point arithmetic never agree to the last bit; an all-zero report compared nothing.
    assert report["errors"]["logits"]["absolute"] > 0
    assert report["largest_relative_error"] == max(error["relative"] for error in report["errors"].values()) > 0
    cases = report["cases"]
    assert {len(case["lengths"]) > 1 for case in cases} == {True, False}  # padded and not
    assert {case["cached"] > 0 for case in cases} == {True, False}  # with and without cache
    assert any(len(set(case["lengths"])) > 1 and case["cached"] for case in cases)  # both at once
    assert len({max(case["lengths"]) for case in cases}) >= 4
    assert max(max(case["lengths"]) for case in cases) == config.n_ctx


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_fits_its_published_schema(bundle: Folder, name: str) -> None:
    schema = read(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(read(bundle(name) / "onnxlens.json"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["surprise"], 1),
        (["format_version"], "2"),
        (["parameters"], -1),
        (["files", "config.json", "sha256"], "abc"),
        (["files", "config.json", "surprise"], 1),
        (["hook_points", 0, "axes"], "batch"),
        (["verification", "errors", "logits"], {"absolute": 0.0}),
    ],
    ids=str,
)
def test_the_schema_refuses_a_manifest_that_is_wrong(bundle: Folder, path: list[str | int], value: object) -> None:
    manifest = read(bundle("base") / "onnxlens.json")
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(read(SCHEMA)).validate(manifest)
