"""Folders that other tools exported: what is said of them where a bundle or a checkpoint is expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import onnxlens
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._bundle.other_exports import other_export
from onnxlens.runtime.errors import BundleError

GENAI = ("genai_config.json", "model.onnx", "model.onnx.data", "tokenizer_config.json")
OPTIMUM = ("config.json", "model.onnx", "model.onnx_data")
COMMUNITY = ("config.json", "onnx/model.onnx", "onnx/model_q4.onnx")
KINDS = {
    GENAI: "an export of onnxruntime-genai's model builder",
    OPTIMUM: "an ONNX export such as Optimum's",
    ("config.json", "decoder_model.onnx", "decoder_with_past_model.onnx"): "an ONNX export such as Optimum's",
    COMMUNITY: "an ONNX export in the layout of transformers.js and onnx-community",
}


def made(folder: Path, files: tuple[str, ...], **config: object) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def said(kind: str, command: str, by: str = "") -> str:
    return (
        f"is {kind}: it has neither onnxlens.json, as a bundle, nor weights, as a checkpoint. Make a bundle of the "
        f"checkpoint that it came from{by}: onnxlens export {command} FOLDER"
    )


@pytest.mark.parametrize("files", KINDS, ids=" ".join)
def test_it_says_what_the_folder_is(tmp_path: Path, files: tuple[str, ...]) -> None:
    folder = made(tmp_path / "theirs", files)
    expected = said(KINDS[files], "CHECKPOINT", ", by its folder or hub id")
    assert other_export(folder, "theirs") == f"theirs {expected}"
    assert other_export(folder) == f"{folder} {expected}"
    for opens in (onnxlens.load, Bundle):
        with pytest.raises(BundleError) as raised:
            opens(folder)
        assert str(raised.value) == f"{folder} {expected}"


@pytest.mark.parametrize("name", ["openai-community/gpt2", "../my checkpoint"])
def test_the_checkpoint_is_named_where_a_configuration_names_it(tmp_path: Path, name: str) -> None:
    quoted = f"'{name}'" if " " in name else name
    folder = made(tmp_path / "one", COMMUNITY, _name_or_path=name)
    assert other_export(folder, "it") == f"it {said(KINDS[COMMUNITY], quoted)}"
    folder = made(tmp_path / "two", GENAI)
    (folder / "tokenizer_config.json").write_text(json.dumps({"name_or_path": name}))
    assert other_export(folder, "it") == f"it {said(KINDS[GENAI], quoted)}"


@pytest.mark.parametrize("name", ["theirs", "/elsewhere/theirs", "", None, 5, "x" * 301])
def test_a_name_that_leads_nowhere_is_not_repeated(tmp_path: Path, name: object) -> None:
    folder = made(tmp_path / "theirs", OPTIMUM, _name_or_path=name)
    assert str(other_export(folder)).endswith("onnxlens export CHECKPOINT FOLDER")


def test_a_damaged_configuration_names_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path / "theirs", OPTIMUM)
    for content in ("{", "[]"):
        (folder / "config.json").write_text(content)
        assert str(other_export(folder)).endswith("onnxlens export CHECKPOINT FOLDER")


def test_a_configuration_for_transformers_js_is_enough(tmp_path: Path) -> None:
    """From the hub, only small files are fetched before weights are looked for."""
    folder = made(tmp_path / "theirs", ("config.json",), **{"transformers.js_config": {}})
    assert str(other_export(folder, "it")).startswith(f"it is {KINDS[COMMUNITY]}: ")


@pytest.mark.parametrize("weights", ["model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("files", KINDS, ids=" ".join)
def test_a_checkpoint_with_graphs_beside_it_is_a_checkpoint(
    tmp_path: Path, files: tuple[str, ...], weights: str
) -> None:
    assert other_export(made(tmp_path / "one", (*files, weights))) is None


def test_a_bundle_without_its_manifest_is_not_taken_for_another_tools(tmp_path: Path) -> None:
    folder = made(tmp_path / "mine", (*COMMUNITY, "onnx/model_hooks.onnx", "genai_config.json"))
    assert other_export(folder, "mine") == (
        "mine was a bundle, and has lost its manifest, onnxlens.json. Copy or export it again."
    )


def test_a_folder_without_graphs_is_another_matter(tmp_path: Path) -> None:
    assert other_export(made(tmp_path / "one", ("config.json", "notes.txt"))) is None
