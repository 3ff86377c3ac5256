"""Weights by TransformerLens's names: its shapes, its numbers, views of the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import processed
import pytest
from checkpoints import CONFIGS, config_entries, family, random_weights

from onnxlens._catalog import SHIPPED, places
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._bundle.named_weights import NamedWeights
from onnxlens.runtime.errors import InputError


def described(entries: dict[str, Any]) -> ModelDescription:
    return family(entries).description()


def make(name: str) -> tuple[NamedWeights, dict[str, np.ndarray]]:
    config = config_entries(name)
    stored = random_weights(config)
    return NamedWeights(stored, described(config)), processed.named(config, stored)


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle(places()["shipped"] / SHIPPED)


@pytest.mark.parametrize("name", CONFIGS)
def test_each_weight_is_cut_from_the_checkpoint(name):
    weights, true = make(name)
    assert set(weights) == set(true)
    assert len(weights) == len(list(weights)) == len(true)
    for key, value in true.items():
        np.testing.assert_array_equal(weights[key], value, err_msg=key)
        assert weights[key].dtype == np.float32, key
        assert not weights[key].flags.writeable, key


def test_short_and_stacked_names():
    weights, true = make("wide")
    for short, key in {
        "W_E": "embed.W_E",
        "W_pos": "pos_embed.W_pos",
        "W_U": "unembed.W_U",
        "b_U": "unembed.b_U",
    }.items():
        np.testing.assert_array_equal(weights[short], true[key])
    for short in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"):
        np.testing.assert_array_equal(weights[short], [true[f"blocks.{n}.attn.{short}"] for n in range(3)])
    for short in ("W_in", "b_in", "W_out", "b_out"):
        np.testing.assert_array_equal(weights[short], [true[f"blocks.{n}.mlp.{short}"] for n in range(3)])
        assert not weights[short].flags.writeable
    assert "W_Q" in weights and "W_E" in weights and "W_Q" not in list(weights)


def test_all_but_stacks_share_memory_with_what_is_stored():
    config = config_entries("untied")
    stored = random_weights(config)
    weights = NamedWeights(stored, described(config))
    for key in weights:
        shares = any(np.shares_memory(weights[key], value) for value in stored.values())
        assert shares == (key != "unembed.b_U"), key
    assert stored["wte.weight"].flags.writeable


def test_those_of_a_bundle_are_memory_mapped_and_explain_what_is_read(shipped):
    weights = shipped.named_weights
    assert repr(weights) == "NamedWeights(86 weights of 5 blocks)"
    norm = weights["blocks.0.ln1.w"]
    assert isinstance(norm, np.memmap)
    assert not norm.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        norm[0] = 1
    # The unembedding is tied to the embedding.
    np.testing.assert_array_equal(weights["W_U"], weights["W_E"].T)


def test_the_hash_of_a_model_is_of_weights_and_graph(shipped):
    import dataclasses

    again = Bundle(shipped.path)
    assert again.model_hash == shipped.model_hash
    assert len(shipped.model_hash) == 64
    for name, changes in {
        "onnx/model.onnx_data": True, "onnx/model_hooks.onnx": True, "tokenizer.json": False, "config.json": False
    }.items():  # fmt: skip
        other = Bundle(shipped.path)
        record = dataclasses.replace(other.manifest.files[name], sha256="0" * 64)
        other.manifest.files[name] = record
        assert (other.model_hash != shipped.model_hash) is changes, name


UNKNOWN = {
    "blocks.2.attn.W_Q": (
        "Unknown weight 'blocks.2.attn.W_Q': this model has blocks 0 to 1. Did you mean 'blocks.1.attn.W_Q'?"
    ),
    "blocks.0.attn.W_q": (
        "Unknown weight 'blocks.0.attn.W_q'. Did you mean 'blocks.0.attn.W_Q'? list(weights) has all names."
    ),
    "W_e": "Unknown weight 'W_e'. Did you mean 'W_E'? list(weights) has all names.",
    "blocks.00.attn.W_Q": "Unknown weight 'blocks.00.attn.W_Q'. Did you mean ",
    "?": "Unknown weight '?'. list(weights) has all names.",
    3: "Unknown weight 3. list(weights) has all names.",
}


@pytest.mark.parametrize(("name", "text"), UNKNOWN.items(), ids=map(str, UNKNOWN))
def test_an_unknown_weight_is_named_with_the_nearest(name, text):
    weights, _ = make("base")
    with pytest.raises(InputError) as caught:
        weights[name]
    assert str(caught.value).startswith(text)
    assert name not in weights
    assert weights.get(name) is None
