"""The residual stream taken apart: the parts add up, are labelled, and are the oracle's; and so are logits."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints import CONFIGS
from hypothesis import given, settings
from hypothesis import strategies as st
from readings import reading
from yardstick import close

from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime.errors import HookPointError, InputError

ALL = pytest.mark.parametrize("name", CONFIGS)


def stream(values, layer: int, n_layer: int, mlp_input: bool = False) -> np.ndarray:
    if mlp_input:
        return values[f"blocks.{layer}.hook_resid_mid"]
    return (
        values[f"blocks.{layer}.hook_resid_pre"] if layer < n_layer else values[f"blocks.{layer - 1}.hook_resid_post"]
    )


def places(n_layer: int) -> list[tuple[int, bool]]:
    return [(layer, mlp) for layer in range(n_layer + 1) for mlp in (False, True) if layer < n_layer or not mlp]


@ALL
@pytest.mark.parametrize("padded", [False, True])
def test_every_decomposition_adds_up_to_the_stream(name, padded):
    got = reading(name, padded=padded)
    n_layer = got.config["n_layer"]
    for layer, mlp_input in places(n_layer):
        expected = stream(got.true, layer, n_layer, mlp_input)
        close(got.cache.decompose_resid(layer, mlp_input).sum(axis=0), expected)
        for expand in (True, False):
            parts = got.cache.get_full_resid_decomposition(layer, mlp_input, expand_neurons=expand)
            close(parts.sum(axis=0), expected)
        heads, labels = got.cache.stack_head_results(layer, return_labels=True, incl_remainder=True)
        close(heads.sum(axis=0), stream(got.true, layer, n_layer))
        assert len(heads) == len(labels) == layer * got.config["n_head"] + 1
        neurons = got.cache.stack_neuron_results(layer, incl_remainder=True, mlp_input=mlp_input)
        close(neurons.sum(axis=0), expected)


@ALL
@pytest.mark.parametrize("read", ["hook_result", "hook_z"])
def test_heads_and_b_o_add_up_to_the_attention_and_each_equals_the_oracle(name, read):
    other = "hook_z" if read == "hook_result" else "hook_result"
    got = reading(name, without=(other,))
    heads = got.config["n_head"]
    stack, labels = got.cache.stack_head_results(return_labels=True)
    assert labels == [f"L{n}H{h}" for n in range(got.config["n_layer"]) for h in range(heads)]
    for layer in range(got.config["n_layer"]):
        of_layer = stack[layer * heads : (layer + 1) * heads]
        b_o = got.weights[f"h.{layer}.attn.c_proj.bias"]
        close(of_layer.sum(axis=0) + b_o, got.true[f"blocks.{layer}.hook_attn_out"])
        for head in range(heads):
            close(of_layer[head], got.true[f"blocks.{layer}.attn.hook_result"][:, :, head])


@ALL
def test_neurons_and_b_out_add_up_to_the_mlp(name):
    got = reading(name)
    for layer in range(got.config["n_layer"]):
        neurons = got.cache.get_neuron_results(layer)  # [B, P, M, D]
        b_out = got.weights[f"h.{layer}.mlp.c_proj.bias"]
        close(neurons.sum(axis=-2) + b_out, got.true[f"blocks.{layer}.hook_mlp_out"])
        one = got.true[f"blocks.{layer}.mlp.hook_post"][..., [3]] * got.weights[f"h.{layer}.mlp.c_proj.weight"][3]
        close(neurons[..., 3, :], one)


@ALL
@pytest.mark.parametrize("token", [7, "the", np.int64(299)])
def test_attributions_and_the_bias_add_up_to_the_logit(name, token):
    got = reading(name)
    number = token if not isinstance(token, str) else got.cache.facts.token(token)
    expected = got.true["logits"][..., number]
    cache = got.cache
    for stack in (
        cache.decompose_resid(),
        cache.get_full_resid_decomposition(),
        cache.get_full_resid_decomposition(expand_neurons=False),
        cache.stack_head_results(incl_remainder=True),
    ):
        attributions = cache.logit_attrs(stack, token)
        assert attributions.shape == stack.shape[:-1]
        close(attributions.sum(axis=0) + cache.logit_bias(token), expected)


def test_attributions_of_a_difference_are_differences_of_attributions():
    got = reading()
    stack = got.cache.decompose_resid()
    found = got.cache.logit_attrs(stack, 7, 11)
    close(found, got.cache.logit_attrs(stack, 7) - got.cache.logit_attrs(stack, 11))
    logits = got.true["logits"]
    close(found.sum(axis=0) + got.cache.logit_bias(7, 11), logits[..., 7] - logits[..., 11])


def test_tokens_for_rows_and_positions():
    got = reading(batch=3, length=5)
    stack = got.cache.decompose_resid()
    one = np.stack([got.cache.logit_attrs(stack, token) for token in range(20)])  # [token, C, B, P]
    rows, positions = np.arange(3)[:, np.newaxis], np.arange(5)
    grid = np.arange(15).reshape(3, 5)
    close(got.cache.logit_attrs(stack, grid), np.moveaxis(one[grid, :, rows, positions], -1, 0))
    close(
        got.cache.logit_attrs(stack, [2, 4, 9]), np.moveaxis(one[np.array([[2], [4], [9]]), :, rows, positions], -1, 0)
    )
    close(
        got.cache.logit_attrs(stack, [2, 4, 9, 0, 1]),
        np.moveaxis(one[[[2, 4, 9, 0, 1]] * 3, :, rows, positions], -1, 0),
    )
    last = got.cache.decompose_resid(pos_slice=-1)
    close(
        got.cache.logit_attrs(last, [2, 4, 9], pos_slice=-1),
        np.stack([one[t, :, b, -1] for b, t in enumerate((2, 4, 9))], 1),
    )
    close(got.cache.logit_attrs(stack, 6, batch_slice=1), one[6, :, 1])
    close(got.cache.logit_attrs(stack, 6, batch_slice=[2, 0]), one[6][:, [2, 0]])
    close(got.cache.logit_attrs(stack[:, 1], 6, batch_slice=1, has_batch_dim=False), one[6, :, 1])
    assert got.cache.logit_bias(grid).shape == (3, 5)


@ALL
def test_a_part_under_layer_norm_is_its_share_of_the_normalised_stream(name):
    got = reading(name)
    n_layer = got.config["n_layer"]
    for layer, mlp_input in places(n_layer):
        norm = "ln_final" if layer == n_layer else f"blocks.{layer}.ln{2 if mlp_input else 1}"
        expected = got.true[f"{norm}.hook_normalized"]
        for stack in (
            got.cache.decompose_resid(layer, mlp_input, apply_ln=True),
            got.cache.get_full_resid_decomposition(layer, mlp_input, apply_ln=True),
            got.cache.stack_neuron_results(layer, incl_remainder=True, apply_ln=True, mlp_input=mlp_input),
        ):
            close(stack.sum(axis=0), expected, norm)
        accumulated = got.cache.accumulated_resid(layer, mlp_input=mlp_input, apply_ln=layer < n_layer)
        if layer < n_layer:
            close(accumulated[-1], expected, norm)


@ALL
def test_the_last_accumulated_state_under_the_final_norm_gives_the_logits(name):
    got = reading(name)
    states, labels = got.cache.accumulated_resid(apply_ln=True, incl_mid=True, return_labels=True)
    logits = states @ got.cache.facts.weights["W_U"]
    close(logits[-1], got.true["logits"])
    # Each state as if it were the last one.
    middle = got.true["blocks.1.hook_resid_mid"]
    centred = middle - middle.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt(middle.var(axis=-1, keepdims=True) + got.config.get("layer_norm_epsilon", 1e-5))
    close(states[labels.index("1_mid")], normal * got.weights["ln_f.weight"] + got.weights["ln_f.bias"])


def test_labels_are_those_of_transformerlens():
    cache = reading("base").cache
    assert cache.accumulated_resid(return_labels=True)[1] == ["0_pre", "1_pre", "final_post"]
    assert cache.accumulated_resid(1, incl_mid=True, mlp_input=True, return_labels=True)[1] == [
        "0_pre", "0_mid", "1_pre", "1_mid",
    ]  # fmt: skip
    assert cache.accumulated_resid(1, mlp_input=True, return_labels=True)[1] == ["0_pre", "1_pre", "1_mid"]
    assert cache.decompose_resid(return_labels=True)[1] == [
        "embed", "pos_embed", "0_attn_out", "0_mlp_out", "1_attn_out", "1_mlp_out",
    ]  # fmt: skip
    assert cache.decompose_resid(1, True, "attn", incl_embeds=False, return_labels=True)[1] == [
        "0_attn_out",
        "1_attn_out",
    ]
    assert cache.decompose_resid(mode="mlp", incl_embeds=False, return_labels=True)[1] == ["0_mlp_out", "1_mlp_out"]
    assert cache.stack_neuron_results(1, neuron_slice=(2, 6, 2), return_labels=True)[1] == ["L0N2", "L0N4"]
    assert cache.stack_neuron_results(2, neuron_slice=5, incl_remainder=True, return_labels=True)[1] == [
        "L0N5", "L1N5", "remainder",
    ]  # fmt: skip
    full = cache.get_full_resid_decomposition(return_labels=True)[1]
    heads = [f"L{n}H{h}" for n in range(2) for h in range(4)]
    assert full == [*heads, *(f"L{n}N{m}" for n in range(2) for m in range(128)), "embed", "pos_embed", "bias"]
    assert cache.get_full_resid_decomposition(1, True, expand_neurons=False, return_labels=True)[1] == [
        *heads, "0_mlp_out", "embed", "pos_embed", "bias",
    ]  # fmt: skip


def test_labels_name_what_is_stacked():
    got = reading("wide")
    stack, labels = got.cache.get_full_resid_decomposition(return_labels=True)
    close(stack[labels.index("L1H1")], got.true["blocks.1.attn.hook_result"][:, :, 1])
    neuron = got.true["blocks.2.mlp.hook_post"][..., [9]] * got.weights["h.2.mlp.c_proj.weight"][9]
    close(stack[labels.index("L2N9")], neuron)
    close(stack[labels.index("pos_embed")], got.true["hook_pos_embed"])
    stack, labels = got.cache.decompose_resid(return_labels=True)
    close(stack[labels.index("1_mlp_out")], got.true["blocks.1.hook_mlp_out"])


@settings(max_examples=40)
@given(data=st.data())
def test_a_slice_of_positions_is_that_slice_of_everything(data):
    cache = reading(length=6).cache
    part = data.draw(
        st.one_of(
            st.integers(-6, 5),
            st.lists(st.integers(-6, 5), min_size=1, max_size=4),
            st.tuples(st.integers(0, 4), st.integers(5, 9)),
            st.just(slice(None, None, 2)),
            st.just(np.array([1, 3])),
        )
    )
    index = slice(*part) if isinstance(part, tuple) else part
    for method in (
        cache.accumulated_resid,
        cache.decompose_resid,
        cache.stack_head_results,
        cache.stack_neuron_results,
        cache.get_full_resid_decomposition,
    ):
        for apply_ln in (False, True):
            close(method(pos_slice=part, apply_ln=apply_ln), method(apply_ln=apply_ln)[:, :, index])


@settings(max_examples=25)
@given(data=st.data())
def test_a_projection_is_the_product_with_the_whole(data):
    cache = reading("wide").cache
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    directions = rng.normal(size=(32, 3) if data.draw(st.booleans()) else 32)
    layer, mlp_input = data.draw(st.sampled_from(places(3)))
    options = {
        "mlp_input": mlp_input,
        "apply_ln": data.draw(st.booleans()),
        "pos_slice": data.draw(st.sampled_from([None, -1])),
    }
    whole = cache.get_full_resid_decomposition(layer, **options)
    close(cache.get_full_resid_decomposition(layer, project_output_onto=directions, **options), whole @ directions)
    neurons = cache.stack_neuron_results(layer, incl_remainder=True, **options)
    found = cache.stack_neuron_results(layer, incl_remainder=True, project_output_onto=directions, **options)
    close(found, neurons @ directions)
    some = cache.get_neuron_results(1, [4, 2], project_output_onto=directions)
    close(some, cache.get_neuron_results(1, [4, 2]) @ directions)


def test_everything_works_without_the_batch_axis():
    cache, single = reading(batch=1).cache, reading(batch=1).cache.remove_batch_dim()
    for name in ("accumulated_resid", "decompose_resid", "stack_head_results", "stack_neuron_results",
                 "get_full_resid_decomposition"):  # fmt: skip
        expected = getattr(cache, name)(apply_ln=True)
        close(getattr(single, name)(apply_ln=True), expected[:, 0])
    stack = cache.decompose_resid()
    close(single.logit_attrs(stack[:, 0], 3), cache.logit_attrs(stack, 3)[:, 0])
    close(single.logit_attrs(stack[:, 0], np.arange(7)), cache.logit_attrs(stack, np.arange(7)[np.newaxis])[:, 0])


def test_stacked_activations():
    cache = reading("wide").cache
    stack = cache.stack_activation("pattern")
    assert stack.shape == (3, 2, 2, 7, 7)
    np.testing.assert_array_equal(stack[2], cache["blocks.2.attn.hook_pattern"])
    np.testing.assert_array_equal(cache.stack_activation("scale", 2, "ln2")[1], cache["blocks.1.ln2.hook_scale"])


def test_the_stream_at_a_block_may_have_been_read_under_either_name():
    expected = reading().cache.accumulated_resid()
    np.testing.assert_array_equal(reading(without=("1.hook_resid_pre",)).cache.accumulated_resid(), expected)
    np.testing.assert_array_equal(reading(without=("0.hook_resid_post",)).cache.accumulated_resid(), expected)


ERRORS = [
    (lambda c: c.decompose_resid(3), "layer must be 0 to 2, or -1 or None for the final stream, not 3."),
    (lambda c: c.decompose_resid(-2), "layer must be 0 to 2, or -1 or None for the final stream, not -2."),
    (lambda c: c.decompose_resid(True), "layer must be 0 to 2, or -1 or None for the final stream, not True."),
    (lambda c: c.decompose_resid(mlp_input=True), "mlp_input is about a block's MLP; give a layer of 0 to 1 with it."),
    (lambda c: c.decompose_resid(mode="some"), "mode must be 'all', 'mlp' or 'attn', not 'some'."),
    (
        lambda c: c.decompose_resid(0, incl_embeds=False),
        "decompose_resid has nothing to stack: no embeddings, and no 'all' before block 0.",
    ),
    (lambda c: c.stack_head_results(0), "There is no block before block 0; give a layer of at least 1."),
    (
        lambda c: c.stack_activation("q", 0),
        "There is no block before block 0; stack_activation needs a layer of at least 1.",
    ),
    (
        lambda c: c.logit_attrs(c.decompose_resid(pos_slice=-1), 5),
        "A stack of shape [6, 2, 32] does not fit scales of shape [2, 7, 1]; give the pos_slice with which the stack "
        "was made.",
    ),
    (
        lambda c: c.apply_ln_to_stack(c.decompose_resid(pos_slice=[1, 2]), pos_slice=0),
        "A stack of shape [6, 2, 2, 32] does not fit scales of shape [2, 1]; give the pos_slice with which the stack "
        "was made.",
    ),
    (lambda c: c.decompose_resid(pos_slice=7), "pos_slice 7 is out of range: the axis has 7 entries, 0 to 6."),
    (
        lambda c: c.decompose_resid(pos_slice=[0, 9]),
        "pos_slice [0, 9] is out of range: the axis has 7 entries, 0 to 6.",
    ),
    (lambda c: c.decompose_resid(pos_slice=(7, 9)), "pos_slice (7, 9) selects none of the 7 entries of its axis."),
    (lambda c: c.decompose_resid(pos_slice=[]), "pos_slice [] selects none of the 7 entries of its axis."),
    (lambda c: c.decompose_resid(pos_slice=1.5), "pos_slice must be a number, a slice, or a list of numbers, not 1.5."),
    (
        lambda c: c.decompose_resid(pos_slice=True),
        "pos_slice must be a number, a slice, or a list of numbers, not True.",
    ),
    (
        lambda c: c.decompose_resid(pos_slice=()),
        "pos_slice as a tuple is (start, stop) or (start, stop, step), not ().",
    ),
    (lambda c: c.get_neuron_results(0, 128), "neuron_slice 128 is out of range: the axis has 128 entries, 0 to 127."),
    (
        lambda c: c.get_neuron_results(0, project_output_onto=np.ones(5)),
        "project_output_onto must be numbers of shape [32] or [32, n], not [5].",
    ),
    (lambda c: c.apply_ln_to_stack(np.ones((2, 5))), "A stack has the shape [components, ..., 32], not [2, 5]."),
    (lambda c: c.logit_attrs(c.decompose_resid(), 300), "Token id 300 is out of range: this model's ids are 0 to 299."),
    (lambda c: c.logit_attrs(c.decompose_resid(), -1), "Token id -1 is out of range: this model's ids are 0 to 299."),
    (
        lambda c: c.logit_attrs(c.decompose_resid(), 1.5),
        "tokens must be a token's text or id, or ids of shape [B], [P] or [B, P], not 1.5.",
    ),
    (lambda c: c.logit_attrs(c.decompose_resid(), [[1], [2, 3]]), "The rows of tokens have different lengths."),
    (
        lambda c: c.logit_attrs(c.decompose_resid(), 1, [2, 3]),
        "tokens and incorrect_tokens must have one shape, not [] and [2].",
    ),
    (
        lambda c: c.logit_attrs(c.decompose_resid(), [1, 2, 3]),
        "tokens of shape [3] do not fit a stack of shape [6, 2, 7, 32] and scales of shape [2, 7]; give one token, "
        "one per row, or one per row and position.",
    ),
    (
        lambda c: c.logit_attrs(c.decompose_resid(), ""),
        "'' is 0 tokens, and must be one; a leading space often makes the difference.",
    ),
    (
        lambda c: c.logit_attrs(c.decompose_resid(), "the the"),
        "'the the' is 2 tokens ('the', ' the'), and must be one; a leading space often makes the difference.",
    ),
]


@pytest.mark.parametrize(("call", "expected"), ERRORS, ids=[text[:50] for _, text in ERRORS])
def test_what_cannot_be_used_is_named(call, expected):
    with pytest.raises(InputError) as caught:
        call(reading("base").cache)
    assert str(caught.value) == expected


def test_what_was_not_read_is_named():
    cache = reading(without=("hook_z", "hook_result", "ln_final.hook_scale", "0.hook_mlp_out")).cache
    with pytest.raises(HookPointError) as caught:
        cache.stack_head_results()
    assert str(caught.value) == (
        "The heads of block 0 need 'blocks.0.attn.hook_z' (or the larger hook_result), and neither was read; name "
        "it in names_filter."
    )
    with pytest.raises(
        HookPointError, match=r"^'ln_final\.hook_scale' was not read; this cache holds \d+ hook points\."
    ):
        cache.apply_ln_to_stack(np.ones((1, 2, 7, 32), np.float32))
    with pytest.raises(HookPointError, match=r"^'blocks\.0\.hook_mlp_out' was not read; "):
        cache.decompose_resid()


def test_a_cache_that_does_not_know_its_model_says_what_to_do():
    known = reading().cache
    cache = ActivationCache(dict(known), known.tokens)
    for name in ("stack_activation", "accumulated_resid", "decompose_resid", "apply_ln_to_stack"):
        with pytest.raises(InputError) as caught:
            getattr(cache, name)(
                *(["q"] if name == "stack_activation" else [np.ones((1, 32))] if "apply" in name else [])
            )
        assert str(caught.value) == (
            f"{name} needs to know the model, which this cache does not; attach it with cache.with_model(lens)."
        )
    for call in (lambda: cache.logit_attrs(np.ones((1, 32)), 1), lambda: cache.get_neuron_results(0), cache.folded):
        with pytest.raises(InputError, match=r"^\w+ needs the model's weights, which this cache does not have; attach"):
            call()
    np.testing.assert_array_equal(cache.with_model(known.facts).decompose_resid(), known.decompose_resid())
