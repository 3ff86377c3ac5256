"""Exports of GGUF files: the dequantised model, and refusals of what cannot be read."""

from __future__ import annotations

from pathlib import Path

import llama_oracle
import numpy as np
import pytest
from gguf_files import write_gguf
from yardstick import close

import onnxlens
from onnxlens.export import export
from onnxlens.export._checkpoint import read_checkpoint
from onnxlens.runtime.errors import CheckpointError


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
def test_the_numbers_are_those_of_the_dequantised_weights(tmp_path: Path, kind: str) -> None:
    config, weights = write_gguf(tmp_path / "small.gguf", kind)
    bundle = export(tmp_path / "small.gguf", tmp_path / "small")
    assert bundle.manifest.source == {"kind": "gguf", "id": "small.gguf"}
    lens = onnxlens.load(bundle.path, provider="cpu", threads=1)
    assert lens.cfg.n_key_value_heads == 2
    ids = lens.to_tokens("the cat sat on the mat")
    true = llama_oracle.run(config, weights, ids)
    logits, cache = lens.run_with_cache(ids)
    close(logits, true["logits"])
    for name, value in cache.items():
        close(value, true[name])
    assert lens.to_string(ids) == "the cat sat on the mat"


def test_a_dequantised_model_can_be_stored_as_float16(tmp_path: Path) -> None:
    config, weights = write_gguf(tmp_path / "small.gguf", "Q8_0")
    bundle = export(tmp_path / "small.gguf", tmp_path / "small", storage="float16")
    stored = {name: one.astype(np.float16) if one.ndim == 2 else one for name, one in weights.items()}
    lens = onnxlens.load(bundle.path, provider="cpu", threads=1)
    ids = lens.to_tokens("the cat sat on the mat")
    rounded = {name: one.astype(np.float32) for name, one in stored.items()}
    close(lens.run_with_cache(ids)[0], llama_oracle.run(config, rounded, ids)["logits"])


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_architecture_that_is_not_known(tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", architecture="rwkv7")
    assert refused(tmp_path / "other.gguf").startswith(
        f"{tmp_path / 'other.gguf'} is a GGUF file of the architecture 'rwkv7', and onnxlens knows the families gpt2, "
    )


def test_a_tensor_that_is_missing(tmp_path: Path) -> None:
    write_gguf(tmp_path / "part.gguf", without="layers.1.mlp.up_proj.weight")
    text = refused(tmp_path / "part.gguf")
    assert "1 tensors are missing, the first is 'model.layers.1.mlp.up_proj.weight'" in text


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off(tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.gguf"
    write_gguf(path)
    content = path.read_bytes()
    path.write_bytes(content[: max(4, int(share * len(content)))])
    assert refused(path).startswith(f"{path} is damaged or cut off: ")


def test_a_revision_is_not_for_files(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf")
    with pytest.raises(CheckpointError, match="A revision is for a hub id"):
        read_checkpoint(tmp_path / "small.gguf", revision="main")


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    write_gguf(tmp_path / "small.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "need the packages gguf and accelerate" in refused(tmp_path / "small.gguf")
