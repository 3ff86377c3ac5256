"""Analyses, views and methods of a cache on models with rotary positions, RMS norms, shared keys and gated MLPs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from checkpoints import LLAMAS
from plugin_options import VIEWS
from yardstick import close

import onnxlens
from onnxlens import metrics
from onnxlens.analysis import (
    ablate_heads,
    activation_statistics,
    attention_rollout,
    attribute_logit,
    attribution_patching,
    gradient_times_input,
    head_scores,
    integrated_gradients,
    logit_lens,
    patch_activations,
    patch_path,
    surprisal,
)
from onnxlens.plugins._registry import Registry
from onnxlens.runtime.errors import HookPointError

TEXT, OTHER = "the cat sat on the mat", "the hat sat on the cat"


@pytest.fixture(params=LLAMAS)
def lens(request, bundle):
    return onnxlens.load(bundle(f"{request.param}-gradients"), provider="cpu", threads=1)


def test_parts_add_up_to_the_stream_and_to_the_logit(lens):
    logits, cache = lens.run_with_cache(TEXT)
    end = cache["resid_post", -1]
    for parts in (
        cache.decompose_resid(),
        cache.get_full_resid_decomposition(expand_neurons=False),
        cache.get_full_resid_decomposition(),
        cache.stack_head_results(incl_remainder=True),
        cache.stack_neuron_results(incl_remainder=True),
    ):
        close(parts.sum(axis=0), end, scale=parts)
    parts, labels = cache.decompose_resid(1, mlp_input=True, return_labels=True)
    assert labels == ["embed", "0_attn_out", "0_mlp_out", "1_attn_out"]
    close(parts.sum(axis=0), cache["resid_mid", 1], scale=parts)
    normalized = cache.apply_ln_to_stack(parts, 1, mlp_input=True)
    close(normalized.sum(axis=0), cache["normalized", 1, "ln2"], scale=normalized)
    parts = cache.get_full_resid_decomposition(expand_neurons=False)
    shares = cache.logit_attrs(parts, 7)
    close(shares.sum(axis=0) + cache.logit_bias(7), logits[..., 7], scale=shares)
    directions = np.random.default_rng(1).standard_normal((lens.cfg.d_model, 3)).astype(np.float32)
    projected = cache.get_full_resid_decomposition(apply_ln=True, project_output_onto=directions)
    close(projected.sum(axis=0), cache["normalized"] @ directions, scale=projected)


def test_every_state_of_the_stream_can_be_read_as_logits(lens):
    logits, cache = lens.run_with_cache(TEXT)
    states = cache.accumulated_resid(apply_ln=True)
    close((states[-1] @ lens.W_U)[0], logits[0])
    assert np.array_equal(logit_lens(lens, TEXT).ids[-1, :, 0], logits[0].argmax(-1))


def test_a_logit_is_taken_apart(lens):
    found = attribute_logit(lens, TEXT, neurons=True)
    assert found.pos_embed == 0
    close(np.array([found.total]), np.array([found.logit]), scale=found.heads)
    weights = lens.weights
    assert found.heads.shape == (lens.cfg.n_layers, lens.cfg.n_heads)
    close(found.neurons.sum(axis=1) + _biases(lens, found, weights), found.mlps, scale=found.neurons)


def _biases(lens, found, weights):
    """What each MLP's bias adds to the logit, which is no neuron's."""
    _, cache = lens.run_with_cache(TEXT)
    stack = weights["b_out"][:, np.newaxis, np.newaxis]  # [layers, 1, 1, D]
    stack = np.broadcast_to(stack, (lens.cfg.n_layers, 1, len(found.tokens), lens.cfg.d_model))
    return cache.logit_attrs(np.ascontiguousarray(stack), found.token)[:, 0, -1]


@pytest.mark.parametrize("fold_value_biases", [True, False])
def test_folded_weights_compute_the_folded_activations(lens, fold_value_biases):
    logits, cache = lens.run_with_cache(TEXT)
    folded = cache.folded(fold_value_biases=fold_value_biases)
    weights = folded.facts.weights
    normalized = folded["normalized", 1, "ln1"]  # [1, P, D]
    q = np.einsum("bpd,hde->bphe", normalized, weights["blocks.1.attn.W_Q"]) + weights["blocks.1.attn.b_Q"]
    close(q, folded["q", 1])
    v = np.einsum("bpd,hde->bphe", normalized, weights["blocks.1.attn.W_V"]) + weights["blocks.1.attn.b_V"]
    close(v, folded["v", 1])
    z = folded["z", 1]
    out = np.einsum("bphe,hed->bpd", z, weights["blocks.1.attn.W_O"]) + weights["blocks.1.attn.b_O"]
    close(out, folded["attn_out", 1])
    gate = folded["normalized", 1, "ln2"] @ weights["blocks.1.mlp.W_gate"] + weights["blocks.1.mlp.b_gate"]
    close(gate, folded["pre", 1])
    found = folded["normalized"] @ weights["unembed.W_U"] + weights["unembed.b_U"]
    close(found, logits - logits.mean(axis=-1, keepdims=True), scale=logits)


def test_heads_of_keys_and_values_are_those_that_there_are(lens):
    groups, metric = lens.cfg.n_key_value_heads, metrics.logit(7)
    for hook, heads in (("z", lens.cfg.n_heads), ("k", groups), ("v", groups), ("pattern", lens.cfg.n_heads)):
        found = ablate_heads(lens, TEXT, metric, hook=hook)
        assert found.values.shape == (lens.cfg.n_layers, heads)
        edit = onnxlens.Intervention.zero((hook, 1), heads=heads - 1)
        expected = lens.run_with_cache(TEXT, interventions=edit)[0][0, -1, 7]
        close(found.values[1, -1:], np.array([expected]), scale=found.values)
        patched = patch_activations(lens, TEXT, OTHER, metric, hook=hook)
        assert patched.values.shape == (lens.cfg.n_layers, heads)


def test_weights_by_head_multiply(lens):
    heads, width = lens.cfg.n_heads, lens.cfg.d_model
    assert lens.QK.AB.shape == lens.OV.AB.shape == (lens.cfg.n_layers, heads, width, width)
    head, group = heads - 1, (heads - 1) // (heads // lens.cfg.n_key_value_heads)
    close(lens.OV.AB[1, head], lens.W_V[1, group] @ lens.W_O[1, head])
    assert lens.all_composition_scores("V").shape == (lens.cfg.n_layers, heads) * 2
    assert lens.W_gate.shape == (lens.cfg.n_layers, width, lens.cfg.d_mlp)


def test_what_the_model_does_not_have_is_named(lens):
    assert "hook_pos_embed" not in lens.runner.hook_names and "pos_embed.W_pos" not in lens.weights
    with pytest.raises(HookPointError, match="Unknown hook point 'hook_pos_embed'"):
        lens.run_with_cache(TEXT, names_filter="hook_pos_embed")
    _, cache = lens.run_with_cache(TEXT)
    with pytest.raises(HookPointError, match="'pos_embed' is not short for any hook point of this model"):
        cache["pos_embed"]
    with pytest.raises(AttributeError, match="has no 'W_pos'; "):
        _ = lens.W_pos
    assert not hasattr(lens, "W_E_pos")


def test_analyses_run(lens):
    metric = metrics.logit(7)
    assert attention_rollout(lens, TEXT).values.shape[-1] == len(lens.to_tokens(TEXT)[0])
    assert np.isfinite(surprisal(lens, TEXT).values).any()
    assert head_scores(lens, length=10, count=2).induction.shape == (lens.cfg.n_layers, lens.cfg.n_heads)
    assert activation_statistics(lens, [TEXT, OTHER], "blocks.1.attn.hook_rot_k").mean.size
    product = lens.grad(TEXT, metric=metric).gradients["hook_embed"] * lens.run_with_cache(TEXT)[1]["hook_embed"]
    close(gradient_times_input(lens, TEXT, metric)["hook_embed"], product.sum(axis=-1), scale=product)
    assert integrated_gradients(lens, TEXT, metric, steps=4).scores.shape[-1] == len(lens.to_tokens(TEXT)[0])
    assert attribution_patching(lens, TEXT, OTHER, metric, names_filter="*.hook_rot_q")
    for inputs in ("q", "k", "v"):
        found = patch_path(lens, TEXT, OTHER, metric, sender=(0, 1), receiver=(1, 3), inputs=inputs)
        assert np.isfinite(found.value)


@pytest.mark.parametrize("name", sorted(Registry(find=False).visualizers))
def test_every_view_draws(lens, name):
    rendering = lens.view(name, TEXT, **VIEWS.get(name, {}))
    assert json.loads(rendering.json()) and rendering.text()
    # Files take long, and are made of the same data for all.
    for ending in rendering.formats if lens.cfg.n_key_value_heads == 2 else ():
        assert rendering.encoded(ending)


def test_the_product_of_query_and_key_is_the_score(lens):
    data = json.dumps(lens.view("qkv", TEXT, layer=1, head=lens.cfg.n_heads - 1).data())
    table = next(chart for chart in json.loads(data)["charts"] if "From the pair" in chart["title"])
    scores = [value for what, value in table["rows"] if "score" in what]
    close(np.array(scores[:1]), np.array(scores[1:2]))
