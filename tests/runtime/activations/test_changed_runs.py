"""What parts of the stream do where interventions or functions changed it: they still add up, or it is an error."""

from __future__ import annotations

import numpy as np
import pytest
from yardstick import close

import onnxlens
from onnxlens import Intervention
from onnxlens.runtime.errors import HookPointError, InputError

TEXTS = ["the cat sat", "dog"]
STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")
SUMS = (*STREAM, "hook_attn_out", "hook_mlp_out", "attn.hook_result")
CHANGED = [f"blocks.{layer}.{name}" for layer in (0, 1) for name in SUMS]


@pytest.fixture(scope="module")
def lens(bundle):
    return onnxlens.load(bundle("base"), provider="cpu", threads=1)


def shift(activation, hook):
    return activation + np.float32(0.7)


def places(lens):
    return [(layer, mlp) for layer in range(lens.config.n_layers + 1) for mlp in (False, True)][:-1]


def stream(cache, layer, mlp_input):
    if mlp_input:
        return cache["resid_mid", layer]
    return cache["resid_pre", layer] if layer < 2 else cache["resid_post", 1]


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("function", [False, True])
def test_parts_add_up_to_a_stream_that_was_changed(lens, name, function):
    changes = {"fwd_hooks": [(name, shift)]} if function else {"interventions": Intervention.add(name, 0.7)}
    logits, cache = lens.run_with_cache(TEXTS, names_filter="*", **changes)
    assert cache.changed == {name}
    for layer, mlp_input in places(lens):
        expected = stream(cache, layer, mlp_input)
        for parts in (
            cache.decompose_resid(layer, mlp_input),
            cache.get_full_resid_decomposition(layer, mlp_input, expand_neurons=False),
            cache.get_full_resid_decomposition(layer, mlp_input),
            cache.stack_neuron_results(layer, incl_remainder=True, mlp_input=mlp_input),
        ):
            close(parts.sum(axis=0), expected, scale=parts)
        heads = cache.stack_head_results(layer, incl_remainder=True)
        close(heads.sum(axis=0), stream(cache, layer, False), scale=heads)
    direction = np.random.default_rng(1).standard_normal(32).astype(np.float32)
    whole = cache.get_full_resid_decomposition(project_output_onto=direction)
    close(whole.sum(axis=0), cache["resid_post", 1] @ direction, scale=whole)
    real = cache.attention_mask == 1
    for token in (5, 9):
        parts = cache.get_full_resid_decomposition(expand_neurons=False)
        shares = cache.logit_attrs(parts, token)
        found = shares.sum(axis=0) + cache.logit_bias(token)
        close(found[real], logits[real][:, token], scale=shares)


def test_what_was_added_is_a_part_of_its_own(lens):
    steering = np.linspace(-1, 1, 32, dtype=np.float32)
    edit = Intervention.add("blocks.0.hook_resid_post", steering, positions=-1)
    _, cache = lens.run_with_cache(TEXTS, interventions=edit)
    before, labels = cache.decompose_resid(0, mlp_input=True, return_labels=True)
    assert "change" not in labels
    for parts, labels in (
        cache.decompose_resid(1, return_labels=True),
        cache.get_full_resid_decomposition(expand_neurons=False, return_labels=True),
    ):
        assert labels[-1] == "change"
        close(parts[-1][:, -1], np.broadcast_to(steering, (2, 32)), scale=parts)
        close(parts[-1][:, :-1], np.zeros_like(parts[-1][:, :-1]), scale=parts)
    assert len(before) == 3
    _, labels = cache.decompose_resid(mode="mlp", return_labels=True)
    assert "change" not in labels


def test_what_was_changed_and_not_read_is_named(lens):
    parts = ["hook_*embed", "*_out"]
    edit = Intervention.zero("blocks.0.hook_resid_post")
    _, cache = lens.run_with_cache("the cat", names_filter=parts, interventions=edit)
    with pytest.raises(HookPointError, match=r"'blocks.0.hook_resid_post' was changed, so the stream differs from"):
        cache.decompose_resid()
    cache.decompose_resid(0)
    result = "blocks.1.attn.hook_result"
    _, cache = lens.run_with_cache("the cat", interventions=Intervention.zero(result, heads=2))
    with pytest.raises(
        HookPointError,
        match=(f"'{result}' was changed and not read, so the outputs of the heads of block 1 are unknown"),
    ):
        cache.stack_head_results()
    assert len(cache.stack_head_results(1)) == 4
    edit = Intervention.zero("blocks.1.hook_resid_pre")
    _, cache = lens.run_with_cache("the cat", names_filter=["*resid_post", "blocks.0.*_pre"], interventions=edit)
    with pytest.raises(HookPointError, match=r"'blocks.1.hook_resid_pre' was not read"):
        cache.accumulated_resid(1)


@pytest.mark.parametrize("place", ["ln_final", "blocks.1.ln1", "blocks.0.ln2"])
def test_a_normalised_value_that_was_changed_is_no_sum(lens, place):
    name = f"{place}.hook_normalized"
    _, cache = lens.run_with_cache("the cat", interventions=Intervention.scale(name, 2.0))
    layer = 2 if place == "ln_final" else int(place[7])
    parts = cache.decompose_resid(layer, mlp_input=place.endswith("ln2"))
    with pytest.raises(InputError, match=f"'{name}' was changed, so it is not a sum of parts"):
        cache.apply_ln_to_stack(parts, layer, mlp_input=place.endswith("ln2"))
    if place == "ln_final":
        with pytest.raises(InputError, match=f"'{name}' was changed"):
            cache.logit_attrs(parts, 5)
        cache.accumulated_resid(apply_ln=True)
    else:
        cache.logit_attrs(cache.decompose_resid(), 5)


def test_a_changed_pattern_is_folded_where_its_rows_add_up_to_one(lens):
    pattern = "blocks.0.attn.hook_pattern"
    half = Intervention.scale(pattern, 0.5)
    _, cache = lens.run_with_cache(TEXTS, interventions=half)
    with pytest.raises(
        InputError, match=f"'{pattern}' was changed, and its rows do not add up to one, so value biases"
    ):
        cache.folded()
    assert np.array_equal(cache.folded(fold_value_biases=False)["z", 0], cache["z", 0])
    _, cache = lens.run_with_cache(TEXTS, interventions=half, names_filter="*.hook_z")
    with pytest.raises(InputError, match=f"'{pattern}' was changed, and its rows were not read"):
        cache.folded()
    _, other = lens.run_with_cache(TEXTS, names_filter="*.hook_pattern")
    _, cache = lens.run_with_cache(TEXTS, interventions=Intervention.freeze(other))
    folded = cache.folded()
    z = np.einsum("bhqk,bkhd->bqhd", folded["pattern", 0], folded["v", 0])
    real = cache.attention_mask == 1
    close(z[real], folded["z", 0][real])


def test_a_trace_and_a_generation_say_where_functions_were_called(lens, tmp_path):
    _, cache = lens.run_with_cache("the cat", fwd_hooks=[("blocks.0.hook_resid_post", shift)])
    cache.save(tmp_path / "a.safetensors")
    trace = onnxlens.open_trace(tmp_path / "a.safetensors", model=lens)
    assert trace.called == cache.called == ("blocks.0.hook_resid_post",)
    assert trace.decompose_resid(return_labels=True)[1][-1] == "change"
    generation = lens.generate("the cat", max_new_tokens=2, names_filter="*", fwd_hooks=[("hook_embed", shift)])
    list(generation)
    assert generation.cache.called == ("hook_embed",)
