"""The PyTorch GPT-2 that is exported, in float64 against the oracle and against transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
import torch
from checkpoints import config_entries, family, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel
from yardstick import DOUBLE, SINGLE, close, is_close

from onnxlens.export.families.parts import Decoder

SWITCHES: dict[str, dict[str, Any]] = {
    "as released": {},
    "gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "silu": {"activation_function": "silu"},
    "narrow mlp": {"n_inner": 10},
    "large epsilon": {"layer_norm_epsilon": 0.5},
    "unscaled scores": {"scale_attn_weights": False},
    "scores scaled by block": {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3},
    "both scalings the other way": {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
    "reordered": {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
    "untied": {"tie_word_embeddings": False},
    "one head": {"n_head": 1},
    "heads of width one": {"n_head": 32},
    "one block": {"n_layer": 1},
}


def our_model(entries: dict[str, Any], weights: dict[str, np.ndarray]) -> Decoder:
    model = family(entries).module()
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    model.load_state_dict({"lm_head.weight": state["wte.weight"], **state})
    return model.double().eval()


def run(
    model: Decoder, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, cut: int = 0
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Runs the model on what follows `cut` positions, which a pass of their own puts into the cache."""
    config = model.cfg
    empty = torch.zeros(len(ids), config.n_heads, 0, config.d_head, dtype=torch.float64)
    past = [(empty, empty)] * config.n_layers
    all_ids, all_mask, all_positions = (torch.from_numpy(array) for array in (ids, mask, positions))
    values: dict[str, np.ndarray] = {}

    def tap(name: str, value: torch.Tensor) -> torch.Tensor:
        values[name] = value.numpy()
        return value

    with torch.inference_mode():
        if cut:
            _, past = model(all_ids[:, :cut], all_mask[:, :cut], all_positions[:, :cut], past, lambda _, value: value)
        logits, _ = model(all_ids[:, cut:], all_mask, all_positions[:, cut:], past, tap)
    return logits.numpy(), values


def padded(lengths: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random ids, the mask and the positions of rows that are padded on the left."""
    total = max(lengths)
    mask = (np.arange(total) >= total - np.array(lengths)[:, None]).astype(np.int64)
    ids = np.random.default_rng(seed).integers(0, 300, mask.shape)
    return ids, mask, np.maximum(np.cumsum(mask, axis=1) - 1, 0)


@pytest.mark.parametrize("changes", SWITCHES.values(), ids=SWITCHES)
def test_every_hook_point_is_the_oracles(changes: dict[str, Any]) -> None:
    entries = config_entries(**changes)
    weights = random_weights(entries)
    ids, mask, positions = padded([9, 9])
    expected = oracle.run(entries, weights, ids)
    logits, values = run(our_model(entries, weights), ids, mask, positions)
    close(logits, expected["logits"], within=DOUBLE)
    for name, value in values.items():
        close(value, expected[name], within=DOUBLE, name=name)


@pytest.mark.parametrize("changes", SWITCHES.values(), ids=SWITCHES)
def test_logits_are_transformers(changes: dict[str, Any]) -> None:
    entries = config_entries(**changes)
    weights = random_weights(entries)
    theirs = GPT2LMHeadModel(GPT2Config(**entries, attn_implementation="eager"))
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    head = state.pop("lm_head.weight", state["wte.weight"])
    theirs.load_state_dict({"lm_head.weight": head, **{f"transformer.{name}": v for name, v in state.items()}})
    # With reorder_and_upcast_attn transformers insists on scores in float32.
    exact = not changes.get("reorder_and_upcast_attn")
    theirs.to(torch.float64 if exact else torch.float32).eval()
    ids, mask, positions = padded([11, 11])
    with torch.inference_mode():
        expected = theirs(input_ids=torch.from_numpy(ids)).logits.numpy()
    logits, _ = run(our_model(entries, weights), ids, mask, positions)
    close(logits, expected, within=DOUBLE if exact else SINGLE)


@pytest.mark.parametrize("changed", [name for name in SWITCHES if name != "as released"])
def test_every_switch_changes_the_logits(changed: str) -> None:
    """Else the tests above would compare the same model over and over."""
    changes = SWITCHES[changed]
    ids, mask, positions = padded([9])
    plain, switched = config_entries(), config_entries(**changes)
    released, _ = run(our_model(plain, random_weights(plain)), ids, mask, positions)
    logits, _ = run(our_model(switched, random_weights(switched)), ids, mask, positions)
    assert not is_close(logits, released, within=1e-5)


def test_hook_points_come_in_the_order_of_the_table() -> None:
    entries = config_entries()
    _, values = run(our_model(entries, random_weights(entries)), *padded([4]))
    assert list(values) == [p.name for p in family(entries).description().hook_points if not p.on_request]


def test_what_a_tap_returns_takes_the_values_place() -> None:
    entries = config_entries()
    model = our_model(entries, random_weights(entries))
    ids, mask, positions = (torch.from_numpy(array) for array in padded([6]))
    empty = torch.zeros(1, 4, 0, 8, dtype=torch.float64)
    seen: dict[str, torch.Tensor] = {}

    def without_attention(name: str, value: torch.Tensor) -> torch.Tensor:
        seen[name] = torch.zeros_like(value) if name == "blocks.1.hook_attn_out" else value
        return seen[name]

    with torch.inference_mode():
        model(ids, mask, positions, [(empty, empty)] * 2, without_attention)
    assert torch.equal(seen["blocks.1.hook_resid_mid"], seen["blocks.1.hook_resid_pre"])


ENTRIES = config_entries()
WEIGHTS = random_weights(ENTRIES)


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3), data=st.data())
def test_padding_and_cache_change_nothing(lengths: list[int], data: st.DataObject) -> None:
    """A row padded on the left, and cut anywhere into cache and rest, has the values it has alone."""
    cut = data.draw(st.integers(0, max(lengths) - 1))
    ids, mask, positions = padded(lengths, seed=sum(lengths))
    logits, values = run(our_model(ENTRIES, WEIGHTS), ids, mask, positions, cut)
    axes = {point.name: point.axes for point in family(ENTRIES).description().hook_points} | {"logits": ("", "pos")}
    for row, length in enumerate(lengths):
        pad = max(lengths) - length
        alone = oracle.run(ENTRIES, WEIGHTS, ids[row : row + 1, pad:])
        new = max(cut, pad)  # the row's first real position that is not in the cache
        for name, value in {**values, "logits": logits}.items():
            assert np.isfinite(value).all() or name.endswith("hook_attn_scores"), name
            if axes[name][-2:] == ("query_pos", "key_pos"):
                found, expected = value[row, :, new - cut :, pad:], alone[name][0, :, new - pad :]
                if name.endswith("pattern"):
                    assert not value[row, :, new - cut :, :pad].any(), "attention to padding"
            else:
                found, expected = value[row, new - cut :], alone[name][0, new - pad :]
            close(found, expected, within=DOUBLE, name=name)
