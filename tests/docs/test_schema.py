"""The manifest's published schema: what the export writes fits it, and it lets nothing else pass."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from checkpoints import config_entries, family
from jsonschema import Draft202012Validator

import onnxlens
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.manifest import FORMAT_VERSION, MANIFEST, FileRecord, Manifest
from onnxlens.runtime._bundle.weights import STORAGES

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "onnxlens.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


@pytest.fixture
def manifest() -> dict[str, Any]:
    entries: dict[str, Any] = json.loads((onnxlens.find() / MANIFEST).read_text(encoding="utf-8"))
    return entries


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_model_that_ships_fits(manifest: dict[str, Any]) -> None:
    VALIDATOR.validate(manifest)


@pytest.mark.parametrize("name", ["base", "untied", "base-float16", "llama", "biased"])
def test_exports_fit(bundle: Callable[[str], Path], name: str) -> None:
    VALIDATOR.validate(json.loads((bundle(name) / MANIFEST).read_text(encoding="utf-8")))


def test_it_names_the_entries_that_the_code_reads() -> None:
    assert set(SCHEMA["properties"]) == {field.name for field in fields(Manifest)}
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"])
    assert tuple(SCHEMA["properties"]["storage"]["enum"]) == STORAGES
    assert set(SCHEMA["$defs"]["file"]["properties"]) == {field.name for field in fields(FileRecord)}
    assert SCHEMA["properties"]["format_version"]["const"] == FORMAT_VERSION
    axes = SCHEMA["properties"]["hook_points"]["items"]["properties"]["axes"]["items"]["enum"]
    known = [point for name in ("base", "llama") for point in family(config_entries(name)).description().hook_points]
    assert set(axes) == {axis for point in known for axis in point.axes}
    cfg = SCHEMA["properties"]["cfg"]
    assert set(cfg["properties"]) <= {field.name for field in fields(ModelConfig)}
    assert set(cfg["required"]) == {field.name for field in fields(ModelConfig) if field.default is MISSING}


def test_a_source_on_the_hub_fits(manifest: dict[str, Any]) -> None:
    manifest["source"] = {"kind": "hub", "id": "openai-community/gpt2", "revision": "main", "commit": "0" * 40}
    VALIDATOR.validate(manifest)


CHANGES: list[Callable[[dict[str, Any]], object]] = [
    lambda m: m.update(more=1),
    lambda m: m.pop("verification"),
    lambda m: m.update(format_version=1),
    lambda m: m.pop("cfg"),
    lambda m: m["weights"]["embed.W_E"].update(view=1),
    lambda m: m["normalizations"]["ln_final"].update(kind="BN"),
    lambda m: m.update(storage="int8"),
    lambda m: m["verification"].update(rounding={"absolute": 0, "relative": 0}),
    lambda m: m["source"].update(path="/home/somebody"),
    lambda m: m["files"].update({"../outside": {"size": 1, "sha256": "0" * 64}}),
    lambda m: m["files"].update({"/outside": {"size": 1, "sha256": "0" * 64}}),
    lambda m: m["files"]["onnx/model.onnx_data"].pop("header_sha256"),
    lambda m: m["files"]["config.json"].update(sha256="none"),
    lambda m: m["files"]["config.json"].update(mtime=0),
    lambda m: m["hook_points"][0]["axes"].append("depth"),
    lambda m: m["verification"]["errors"]["logits"].pop("absolute"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_export_never_writes_does_not_fit(
    manifest: dict[str, Any], change: Callable[[dict[str, Any]], object]
) -> None:
    changed = copy.deepcopy(manifest)
    change(changed)
    assert not VALIDATOR.is_valid(changed)
