"""Analyses of the model that ships: identities that must hold, and what is known to be inside it."""

from __future__ import annotations

import json

import numpy as np
import oracle
import pytest
from yardstick import DOUBLE, close, is_close, probable, ranks_of

import onnxlens
from onnxlens import Intervention
from onnxlens._lens import Lens
from onnxlens.analysis import _sweeps as sweeps
from onnxlens.analysis import (
    ablate_heads,
    activation_statistics,
    attention_rollout,
    attribute_logit,
    head_scores,
    logit_lens,
    patch_activations,
    patch_path,
    surprisal,
)
from onnxlens.analysis._sweeps import sweep
from onnxlens.metrics import Metric, log_probability, logit, logit_difference, loss
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime.errors import HookPointError, InputError

CLEAN = "When Mary and John went to the shop, John gave a drink to"
CORRUPTED = "When Mary and John went to the shop, Mary gave a drink to"
METRIC = logit_difference(" Mary", " John")


@pytest.fixture(scope="module")
def lens():
    return onnxlens.load(provider="cpu", threads=1)


@pytest.fixture(scope="module")
def truth(lens):
    """Every value of the clean text in float64."""
    config = json.loads((lens.runner.bundle.path / "config.json").read_text(encoding="utf-8"))
    weights = {name: value.astype(np.float64) for name, value in lens.runner.bundle.weights.items()}
    return config, weights, oracle.run(config, weights, lens.to_tokens(CLEAN))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_the_logit_lens_is_the_end_of_the_model_on_each_state(lens, truth):
    config, weights, values = truth
    found = logit_lens(lens, CLEAN, top=3)
    layers = lens.config.n_layers
    names = [*(f"blocks.{n}.hook_resid_pre" for n in range(layers)), f"blocks.{layers - 1}.hook_resid_post"]
    final = values["logits"][0].argmax(-1)
    for state, name in enumerate(names):
        x = values[name][0]
        normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config["layer_norm_epsilon"])
        logits = (normal * weights["ln_f.weight"] + weights["ln_f.bias"]) @ weights["wte.weight"].T
        expected = softmax(logits)
        best = np.sort(expected, -1)[:, ::-1][:, :3]
        probable(found.probabilities[state], best, logits)
        own = expected[np.arange(len(final)), final]
        probable(found.probability[state], own, logits)
        assert ranks_of(found.rank[state], expected, own)
        entropy = -(expected * np.log(expected)).sum(-1)
        close(found.entropy[state], entropy, scale=logits)
    assert found.labels[-1] == "final_post"
    assert (found.ids[-1, :, 0] == final).all()
    assert (found.rank[-1] == 0).all()


@pytest.mark.parametrize("against", [None, " John"])
@pytest.mark.parametrize("position", [-1, 3])
def test_the_parts_of_a_logit_add_up_to_it(lens, truth, against, position):
    _, weights, values = truth
    found = attribute_logit(lens, CLEAN, " Mary", against, position=position, neurons=True)
    logits = values["logits"][0, position]
    close(found.logit, logits[found.token] - (logits[found.against] if against else 0), scale=logits)
    close(found.total, found.logit, scale=[*found.heads.ravel(), *found.mlps, *logits])
    direction = weights["wte.weight"][found.token] - (weights["wte.weight"][found.against] if against else 0)
    direction = direction * weights["ln_f.weight"]
    direction = (direction - direction.mean()) / values["ln_final.hook_scale"][0, position]
    for layer in range(lens.config.n_layers):
        results = values[f"blocks.{layer}.attn.hook_result"][0, position]  # [H, D]
        close(found.heads[layer], results @ direction, scale=np.abs(results) @ np.abs(direction))
        out = values[f"blocks.{layer}.hook_mlp_out"][0, position]
        close(found.mlps[layer], out @ direction, scale=np.abs(out) @ np.abs(direction))
        rows = weights[f"h.{layer}.mlp.c_proj.weight"] @ direction
        neurons = values[f"blocks.{layer}.mlp.hook_post"][0, position] * rows
        close(found.neurons[layer], neurons)
    assert attribute_logit(lens, CLEAN).token == lens.predict(CLEAN).top[0].id


@pytest.mark.parametrize(
    "name",
    ["blocks.1.hook_resid_post", "blocks.3.hook_attn_out", "blocks.2.attn.hook_result", "blocks.0.hook_resid_pre",
     "blocks.4.hook_mlp_out", "blocks.2.attn.hook_pattern", "ln_final.hook_scale"],
)  # fmt: skip
@pytest.mark.parametrize("function", [False, True])
def test_the_parts_of_a_logit_add_up_to_it_in_a_changed_run(lens, name, function):
    hooks = [(name, lambda activation, hook: activation * np.float32(0.5))] if function else []
    with lens.hooks(hooks, interventions=() if function else Intervention.scale(name, 0.5)):
        found = attribute_logit(lens, CLEAN, " Mary", " John")
        logits = lens.predict(CLEAN).logits
    close(found.logit, logits[found.token] - logits[found.against], scale=logits)
    close(found.total, found.logit, scale=[*found.heads.ravel(), *found.mlps, *logits])
    sums = ("resid_post", "resid_pre", "attn_out")
    assert is_close(found.change, 0, scale=logits) != name.endswith(sums)


def test_what_a_change_leaves_no_parts_of_is_refused(lens):
    with lens.hooks(interventions=Intervention.scale("ln_final.hook_normalized", 0.5)):
        with pytest.raises(InputError, match=r"'ln_final.hook_normalized' was changed, so it is not a sum"):
            attribute_logit(lens, CLEAN)
        with pytest.raises(InputError, match=r"'ln_final.hook_normalized' is changed; call it outside of the block"):
            logit_lens(lens, CLEAN)
    with (
        lens.hooks(interventions=Intervention.zero("blocks.1.hook_mlp_out")),
        pytest.raises(InputError, match=r"'blocks.1.hook_mlp_out' is changed, so neurons do not add up to their MLP"),
    ):
        attribute_logit(lens, CLEAN, neurons=True)


def test_an_ablation_is_an_intervention_for_each_head(lens):
    for operation in ("zero", "mean"):
        found = ablate_heads(lens, CLEAN, METRIC, operation=operation)
        _, cache = lens.run_with_cache(CLEAN, names_filter="blocks.*.attn.hook_z")
        for layer in range(lens.config.n_layers):
            for head in range(lens.config.n_heads):
                name = f"blocks.{layer}.attn.hook_z"
                edit = (
                    Intervention.zero(name, heads=head)
                    if operation == "zero"
                    else Intervention.mean(name, cache, heads=head)
                )
                logits = lens.predict(CLEAN, interventions=edit).logits
                expected = logits[lens.to_tokens(" Mary")[0, 0]] - logits[lens.to_tokens(" John")[0, 0]]
                close(found.values[layer, head], expected, scale=logits)
        assert np.array_equal(found.effects, found.values - found.baseline)
    reference = ["Tom gave Lucy a book.", "The function returns a list."]
    assert not is_close(ablate_heads(lens, CLEAN, METRIC, operation="mean", reference=reference).values, found.values)


@pytest.mark.parametrize(("hook", "name"), [("result", "attn.hook_result"), ("mlp.post", "mlp.hook_post")])
def test_what_else_is_ablated_is_an_intervention_too(lens, hook, name):
    is_head = hook == "result"
    for operation in ("zero", "mean"):
        found = ablate_heads(lens, CLEAN, METRIC, hook=hook, operation=operation)
        assert found.axes == (("layer", "head") if is_head else ("layer",))
        where = {"heads": 3} if is_head else {}
        full = f"blocks.2.{name}"
        _, cache = lens.run_with_cache(CLEAN, names_filter=full)
        edit = Intervention.zero(full, **where) if operation == "zero" else Intervention.mean(full, cache, **where)
        logits = lens.predict(CLEAN, interventions=edit).logits
        expected = logits[lens.to_tokens(" Mary")[0, 0]] - logits[lens.to_tokens(" John")[0, 0]]
        close(found.values[(2, 3) if is_head else 2], expected, scale=logits)
    zero, z = (ablate_heads(lens, CLEAN, METRIC, hook=one) for one in (hook, "z"))
    if is_head:  # a head that writes nothing is a head whose z is 0
        close(zero.values, z.values, scale=logits)


def test_prompts_in_a_batch_are_measured_each_and_on_average(lens):
    texts = [CLEAN, "When Mary and John went to the shop, Mary gave a drink to", "Tom met Lucy, and Lucy met"]
    metric = logit_difference([" Mary", " John", " Tom"], [" John", " Mary", " Lucy"])
    together, logits = ablate_heads(lens, texts, metric), lens.predict(CLEAN).logits
    for row, (text, a, b) in enumerate(zip(texts, metric.a, metric.b, strict=True)):
        alone = ablate_heads(lens, text, logit_difference(a, b))
        close(together.each[row], alone.values, scale=logits)
        close(together.baselines[row], alone.baseline, scale=logits)
        np.testing.assert_array_equal(together.tokens[row], alone.tokens)
        assert alone.each.shape == (1, *alone.values.shape)
    close(together.values, together.each.mean(axis=0), scale=logits)
    close(together.effects, together.values - together.baselines.mean(), scale=logits)


@pytest.mark.parametrize("options", [{}, {"hook": "result"}, {"hook": "mlp.post", "span": 5}])
def test_pairs_in_a_batch_are_patched_each_and_on_average(lens, options):
    clean, corrupted = [CLEAN, CORRUPTED], [CORRUPTED, CLEAN]
    metric = logit_difference([" Mary", " John"], [" John", " Mary"])
    together, logits = patch_activations(lens, clean, corrupted, metric, **options), lens.predict(CLEAN).logits
    for row in range(2):
        one = logit_difference(metric.a[row], metric.b[row])
        alone = patch_activations(lens, clean[row], corrupted[row], one, **options)
        close(together.each[row], alone.values, scale=logits)
        close(together.clean_each[row], alone.clean, scale=logits)
        close(together.corrupted_each[row], alone.corrupted, scale=logits)
    close(together.values, together.each.mean(axis=0), scale=logits)
    whole = together.clean_each.mean() - together.corrupted_each.mean()
    close(together.recovered, (together.values - together.corrupted_each.mean()) / whole, scale=logits / whole)


@pytest.mark.parametrize("hook", ["result", "mlp.post", "mlp.pre"])
def test_what_else_is_patched_is_an_intervention_too(lens, hook):
    found = patch_activations(lens, CLEAN, CORRUPTED, METRIC, hook=hook)
    name = f"blocks.2.{'attn.hook_result' if hook == 'result' else hook.replace('.', '.hook_')}"
    _, cache = lens.run_with_cache(CLEAN, names_filter=name)
    where = {"heads": 1} if hook == "result" else {"positions": 9}
    logits = lens.predict(CORRUPTED, interventions=Intervention.patch(name, cache, **where)).logits
    expected = logits[lens.to_tokens(" Mary")[0, 0]] - logits[lens.to_tokens(" John")[0, 0]]
    close(found.values[2, 1 if hook == "result" else 9], expected, scale=logits)


def test_a_function_of_the_logits_is_a_metric_where_no_gradient_is_needed(lens):
    mary, john = lens.to_single_token(" Mary"), lens.to_single_token(" John")

    def difference(logits):
        assert logits.shape[0] == 1
        return logits[0, -1, mary] - logits[0, -1, john]

    for analyse in (
        lambda metric: ablate_heads(lens, CLEAN, metric).values,
        lambda metric: ablate_heads(lens, [CLEAN, CLEAN[:20]], metric).each,
        lambda metric: patch_activations(lens, CLEAN, CORRUPTED, metric).values,
        lambda metric: [patch_path(lens, CLEAN, CORRUPTED, metric, sender=(2, 0), receiver="logits").value],
        lambda metric: lens.grad([CLEAN, CLEAN[:20]], metric=metric, names_filter=None).value,
    ):
        close(analyse(difference), analyse(METRIC), scale=lens.predict(CLEAN).logits)
    for needs_one in (difference, Metric(lambda logits: logits[:, -1, mary])):
        with pytest.raises(InputError, match="gradient"):
            lens.grad(CLEAN, metric=needs_one)


def test_patching_everything_that_differs_restores_everything(lens):
    stream = patch_activations(lens, CLEAN, CORRUPTED, METRIC)
    size = lens.predict(CLEAN).logits / (stream.clean - stream.corrupted)  # shares are rounded as logits are
    differing = int(np.flatnonzero(stream.clean_tokens != stream.corrupted_tokens)[0])
    close(stream.recovered[0, differing], 1, scale=size)  # before block 0, only this token differs
    close(stream.recovered[0, :differing], np.zeros(differing), scale=size)
    last = patch_activations(lens, CLEAN, CORRUPTED, METRIC, hook="resid_post")
    close(last.recovered[-1, -1], 1, scale=size)  # after the last block, only the last position
    close(last.recovered[-1, :-1], np.zeros(last.recovered.shape[1] - 1), scale=size)
    assert stream.axes == ("layer", "pos")
    assert stream.values.shape == (lens.config.n_layers, lens.to_tokens(CLEAN).shape[1])


@pytest.mark.parametrize("hook", ["resid_mid", "z"])
def test_neighbouring_positions_are_patched_together(lens, hook):
    by_position = {"by_position": True} if hook == "z" else {}
    found = patch_activations(lens, CLEAN, CORRUPTED, METRIC, hook=hook, span=4, **by_position)
    length = lens.to_tokens(CLEAN).shape[1]
    assert found.span == 4 and found.values.shape[:2] == (lens.config.n_layers, -(-length // 4)) and length % 4
    name = f"blocks.2.{'attn.' if hook == 'z' else ''}hook_{hook}"
    _, cache = lens.run_with_cache(CLEAN, names_filter=name)
    for entry in range(found.values.shape[1]):
        where = {"positions": list(range(4 * entry, min(4 * entry + 4, length)))} | (
            {"heads": 2} if by_position else {}
        )
        logits = lens.predict(CORRUPTED, interventions=Intervention.patch(name, cache, **where)).logits
        expected = logits[lens.to_tokens(" Mary")[0, 0]] - logits[lens.to_tokens(" John")[0, 0]]
        close(found.values[2, entry][2 if by_position else ...], expected, scale=logits)


@pytest.mark.parametrize("hook", ["z", "pattern", "q"])
def test_a_head_is_patched_at_all_positions_or_at_one(lens, hook):
    found = patch_activations(lens, CLEAN, CORRUPTED, METRIC, hook=hook, by_position=True)
    assert found.axes == ("layer", "pos", "head")
    name = f"blocks.2.attn.hook_{hook}"
    _, cache = lens.run_with_cache(CLEAN, names_filter=name)
    whole = patch_activations(lens, CLEAN, CORRUPTED, METRIC, hook=hook)
    for where, value in (({"positions": 9}, found.values[2, 9, 1]), ({}, whole.values[2, 1])):
        logits = lens.predict(CORRUPTED, interventions=Intervention.patch(name, cache, heads=1, **where)).logits
        expected = logits[lens.to_tokens(" Mary")[0, 0]] - logits[lens.to_tokens(" John")[0, 0]]
        close(value, expected, scale=logits)


def test_the_direct_path_to_the_logits_is_the_difference_in_direct_attribution_before_normalisation(lens, truth):
    """From a head of the last layer, nothing but the direct path exists: patching the path is patching the head."""
    layer, logits = lens.config.n_layers - 1, lens.predict(CLEAN).logits
    for head in range(lens.config.n_heads):
        path = patch_path(lens, CLEAN, CORRUPTED, METRIC, sender=(layer, head), receiver="logits")
        swapped = patch_activations(lens, CORRUPTED, CLEAN, METRIC, hook="z")
        close(path.value, swapped.values[layer, head], scale=logits)
        close([path.clean, path.corrupted], [swapped.corrupted, swapped.clean], scale=logits)


def path_patched(lens, truth, sender, receiver, inputs, *, mlps=True):
    """The same as `patch_path`, with the oracle; without `mlps`, through none of them."""
    config, weights, clean = truth
    changed = oracle.run(config, weights, lens.to_tokens(CORRUPTED))

    def send(name, value):
        if name.endswith("mlp_out"):
            return value if mlps else clean[name]
        if not name.endswith("hook_z"):
            return value
        sent = clean[name].copy()
        if name == f"blocks.{sender[0]}.attn.hook_z":
            sent[:, :, sender[1]] = changed[name][:, :, sender[1]]
        return sent

    heard = oracle.run(config, weights, lens.to_tokens(CLEAN), change=send)

    def receive(name, value):
        if name in [f"blocks.{receiver[0]}.attn.hook_{one}" for one in inputs]:
            value = value.copy()
            value[:, :, receiver[1]] = heard[name][:, :, receiver[1]]
        return value

    if receiver != "logits":
        heard = oracle.run(config, weights, lens.to_tokens(CLEAN), change=receive)
    logits = heard["logits"][0, -1]
    return logits[lens.to_tokens(" Mary")[0, 0]] - logits[lens.to_tokens(" John")[0, 0]]


@pytest.mark.parametrize("inputs", ["q", "k", "v", "qkv", "logits"])
def test_a_path_to_a_receiver_equals_the_oracle_and_leads_through_mlps(lens, truth, inputs):
    """From each head of two layers to heads of later ones, next to it and further away; or to the logits."""
    last, heads = lens.config.n_layers - 1, lens.config.n_heads
    pairs = [((layer, head), (later, (head + 1) % heads)) for head in range(heads)
             for layer, later in ((0, 1), (0, last), (last - 2, last - 1), (last - 2, last))]  # fmt: skip
    moved = through_mlps = 0.0
    for sender, receiver in pairs:
        options = {"inputs": inputs}
        if inputs == "logits":
            receiver, options = "logits", {}
        found = patch_path(lens, CLEAN, CORRUPTED, METRIC, sender=sender, receiver=receiver, **options)
        expected = path_patched(lens, truth, sender, receiver, inputs)
        close(found.value, expected, scale=truth[2]["logits"], name=f"{sender} to {receiver}")
        moved = max(moved, abs(expected - found.clean))
        without = path_patched(lens, truth, sender, receiver, inputs, mlps=False)
        through_mlps = max(through_mlps, abs(expected - without))
    assert min(moved, through_mlps) > 5e-3  # so that another path would be noticed


def test_a_path_from_what_does_not_differ_changes_nothing(lens):
    same = patch_path(lens, CLEAN, CLEAN, METRIC, sender=(0, 0), receiver=(1, 0), inputs="qkv")
    close(same.value, same.clean, scale=lens.predict(CLEAN).logits)


def test_the_ends_of_a_path_may_be_numbers_of_numpy(lens):
    first, *_, last = np.argwhere(np.ones((lens.config.n_layers, lens.config.n_heads)))
    found = patch_path(lens, CLEAN, CORRUPTED, METRIC, sender=first, receiver=last)
    expected = patch_path(lens, CLEAN, CORRUPTED, METRIC, sender=tuple(first), receiver=tuple(last.tolist()))
    assert found == expected


def test_rollout_multiplies_attention_and_keeps_all_mass_on_what_was_read(lens, truth):
    _, _, values = truth
    found = attention_rollout(lens, CLEAN)
    expected = np.eye(found.values.shape[1])
    for layer in range(lens.config.n_layers):
        mean = values[f"blocks.{layer}.attn.hook_pattern"][0].mean(0)
        expected = (0.5 * mean + 0.5 * np.eye(len(mean))) @ expected
        close(found.values[layer], expected)
    close(found.values.sum(-1), np.ones(found.values.shape[:-1]))
    assert (np.triu(found.values[-1], 1) == 0).all()


def without(lens, heads, count=8):
    """The share of repeated tokens that are predicted without some heads."""
    edits = [Intervention.zero(f"blocks.{layer}.attn.hook_z", heads=head) for layer, head in heads]
    with lens.hooks(interventions=edits):
        return head_scores(lens, count=count).accuracy


def test_the_induction_heads_are_found_and_without_them_the_skill_is_gone(lens):
    """Heads 1, 2 and 3 of layer 4 copy, head 1 of layer 3 half as strongly: each makes up for the others."""
    scores = head_scores(lens, count=8)
    assert scores.accuracy > 0.9
    strong = [(int(n), int(h)) for n, h in np.argwhere(scores.induction > 0.3)]
    assert strong == [(3, 1), (4, 1), (4, 2), (4, 3)]
    assert scores.induction[4, 1:].min() > 0.9
    assert without(lens, strong) < 0.05
    assert without(lens, strong[1:]) < 0.1


def test_the_best_induction_head_is_missed_a_little_and_nearly_enough_alone(lens):
    """Of 3136 predictions, two more in a hundred fail without it, which chance does not do; alone, it keeps most."""
    scores = head_scores(lens, count=64)
    best = tuple(int(i) for i in np.unravel_index(scores.induction.argmax(), scores.induction.shape))
    assert best == (4, 3)
    others = [(3, 1), (4, 1), (4, 2)]
    assert 0.01 < scores.accuracy - without(lens, [best], count=64) < 0.05
    assert without(lens, others) > 0.7
    assert without(lens, [*others, best]) < 0.05


def test_an_analysis_is_of_the_model_as_a_block_of_hooks_changes_it(lens):
    edit = Intervention.scale("blocks.1.hook_mlp_out", 0.5)
    logits, _ = lens.run_with_cache(CLEAN, interventions=edit)
    ids = lens.to_tokens(CLEAN)[0]
    with lens.hooks(interventions=edit):
        losses, found = surprisal(lens, CLEAN), ablate_heads(lens, CLEAN, METRIC)
        last, attributed = logit_lens(lens, CLEAN, top=1), attribute_logit(lens, CLEAN, " Mary")
        statistics = activation_statistics(lens, [CLEAN], "blocks.1.hook_mlp_out")
    last_head = (lens.config.n_layers - 1, lens.config.n_heads - 1)  # what comes before it is changed, too
    both = [edit, Intervention.zero(f"blocks.{last_head[0]}.attn.hook_z", heads=last_head[1])]
    own = np.log(softmax(logits[0, :-1].astype(float)))[np.arange(len(ids) - 1), ids[1:]]
    close(losses.values, -own, scale=logits)
    mary, john = (lens.to_tokens(name)[0, 0] for name in (" Mary", " John"))
    close(found.baseline, logits[0, -1, mary] - logits[0, -1, john], scale=logits)
    without = lens.predict(CLEAN, interventions=both).logits
    close(found.values[last_head], without[mary] - without[john], scale=logits)
    assert (last.ids[-1, :, 0] == logits[0].argmax(-1)).all()
    close(attributed.logit, logits[0, -1, mary], scale=logits)
    _, cache = lens.run_with_cache(CLEAN, interventions=edit, names_filter="blocks.1.hook_mlp_out")
    close(statistics.mean, cache["mlp_out", 1][0].mean(0))


def test_the_position_of_the_second_name_carries_the_indirect_object(lens):
    found = patch_activations(lens, CLEAN, CORRUPTED, METRIC)
    assert found.clean > 0 > found.corrupted
    differing = int(np.flatnonzero(found.clean_tokens != found.corrupted_tokens)[0])
    assert found.recovered[: lens.config.n_layers, [differing, -1]].max(axis=1).min() > 0.5  # there, then at the end


def test_surprisal_is_computed_from_the_logits_of_the_model(lens, truth):
    _, _, values = truth
    ids = lens.to_tokens(CLEAN)[0]
    probabilities = softmax(values["logits"][0, :-1])
    own = probabilities[np.arange(len(ids) - 1), ids[1:]]
    found = surprisal(lens, CLEAN)
    close(found.values, -np.log(own), scale=values["logits"])
    assert ranks_of(found.rank, probabilities, own)
    close(found.entropy, -(probabilities * np.log(probabilities)).sum(-1), scale=values["logits"])
    close(found.loss, -np.log(own).mean(), scale=values["logits"])
    assert found.perplexity == pytest.approx(np.exp(found.loss))


def test_statistics_of_many_texts_are_those_of_all_positions_at_once(lens):
    texts = [CLEAN, "Once upon a time", "The function returns a list of tokens.", [5], CLEAN]
    name = "blocks.1.mlp.hook_post"
    every = [lens.run_with_cache(text, names_filter=name)[1][name][0].astype(np.float64) for text in texts]
    joined = np.concatenate(every)
    found = activation_statistics(lens, iter(texts), name, units=[3, 7], top=2)
    close(found.mean, joined.mean(0), within=DOUBLE)
    close(found.variance, joined.var(0), within=DOUBLE)
    assert np.array_equal(found.maximum, joined.max(0).astype(np.float32))
    assert np.array_equal(found.minimum, joined.min(0).astype(np.float32))
    assert (found.count, found.texts) == (len(joined), 5)
    for unit in (3, 7):
        best = sorted(((float(v[:, unit].max()), n) for n, v in enumerate(every)), reverse=True)[:2]
        assert [(context.value, context.text) for context in found.top[unit]] == best
        for context in found.top[unit]:
            assert every[context.text][context.position, unit] == context.value


@pytest.mark.parametrize(("rows", "most"), [(1, 7), (2, 12), (1000, 2)])
def test_a_sweep_opens_few_graphs_and_none_twice(lens, rows, most, monkeypatch):
    expected = ablate_heads(lens, CLEAN, loss())
    monkeypatch.setattr(sweeps, "_MOST", rows * len(expected.tokens))
    opened = []
    for kept in (1, 100):
        other = Lens(Runner(lens.runner.bundle, provider="cpu", threads=1, max_sessions=kept))
        found = ablate_heads(other, CLEAN, loss())
        close(found.values, expected.values, scale=lens.predict(CLEAN).logits)
        opened.append(other.runner._requests.open.cache_info().misses)
    assert opened[0] == opened[1] <= most


@pytest.mark.parametrize("metric", [logit(" Mary"), log_probability(" Mary"), loss(), logit(" Mary", position=4),
                                    Metric(lambda logits: logits.max((1, 2)), lambda logits: logits)])  # fmt: skip
@pytest.mark.parametrize("most", [1, 100, 10_000], ids=["a pass for each run", "some", "one pass"])
def test_a_sweep_measures_what_single_runs_do(lens, metric, most, monkeypatch):
    monkeypatch.setattr(sweeps, "_MOST", most)
    monkeypatch.setattr(sweeps, "_MIXED", most)
    ids = lens.to_tokens(CLEAN)
    changes = [
        [],
        [Intervention.zero("blocks.0.mlp.hook_post", neurons=range(100))],
        [Intervention.scale("hook_embed", 0.5)],
        [Intervention.scale("ln_final.hook_normalized", 0.5)],
        [Intervention.scale("blocks.3.hook_mlp_out", 0.5), Intervention.zero("blocks.1.attn.hook_z", heads=1)],
    ]
    for block in reversed(range(lens.config.n_layers)):  # a pass may start at any of them
        for kind in ("resid_pre", "attn_out", "resid_post"):
            changes.append([Intervention.scale(f"blocks.{block}.hook_{kind}", 0.5)])
            places = [9, -1] if kind == "attn_out" else slice(3 * block, None)  # or after the first tokens
            changes.append([Intervention.scale(f"blocks.{block}.hook_{kind}", 0.5, positions=places)])
    found = sweep(lens, ids, changes, metric)
    from onnxlens._measuring import Measure

    measure = Measure(metric, lens.tokenizer, lens.config.d_vocab, 1)
    for value, change in zip(found, changes, strict=True):
        logits = lens.run_with_hooks(ids, [], interventions=change)
        close(value, measure.value(logits, ids, np.ones_like(ids))[0], scale=logits)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda lens: logit_lens(lens, [CLEAN, CLEAN]), "logit_lens takes one text at a time, not 2."),
        (lambda lens: logit_lens(lens, CLEAN, top=0), "top must be a whole number from 1 to"),
        (lambda lens: attribute_logit(lens, CLEAN, " Mary and"), "' Mary and' is 2 tokens (' Mary', ' and')"),
        (lambda lens: attribute_logit(lens, CLEAN, -3), "A token is a text, or an id from 0 to"),
        (lambda lens: attribute_logit(lens, CLEAN, position=99), "position must be a whole number from -"),
        (lambda lens: ablate_heads(lens, CLEAN, METRIC, operation="nothing"), "must be 'zero' or 'mean', not"),
        (lambda lens: ablate_heads(lens, CLEAN, METRIC, reference=CLEAN), "A reference is for operation='mean'"),
        (lambda lens: ablate_heads(lens, CLEAN, "loss"), "metric must be one of onnxlens.metrics"),
        (lambda lens: ablate_heads(lens, CLEAN, Metric), "metric must be one of onnxlens.metrics"),
        (lambda lens: ablate_heads(lens, CLEAN, loss), "The metric 'loss' raised TypeError: "),
        (lambda lens: ablate_heads(lens, CLEAN, np.sum, hook="mlp_post"), "Did you mean 'mlp.post'"),
        (lambda lens: ablate_heads(lens, CLEAN, lambda logits: logits), "The metric '<lambda>' must return one number"),
        (lambda lens: ablate_heads(lens, [CLEAN] * 2, logit([" a"])), "names 1 tokens, one for each row, and there a"),
        (lambda lens: patch_activations(lens, [CLEAN], CORRUPTED, METRIC), "Give two texts, or two lists of them"),
        (lambda lens: patch_activations(lens, [CLEAN] * 2, [CLEAN], METRIC), "for each clean one, not 1 for 2."),
        (lambda lens: patch_activations(lens, [CLEAN, "a"], [CLEAN, "a"], METRIC), "must have equally many tokens; th"),
        (lambda lens: patch_activations(lens, CLEAN, "Mary", METRIC), "must have the same number of tokens; they have"),
        (lambda lens: patch_activations(lens, CLEAN, CORRUPTED, METRIC, hook="x"), "hook must be one of resid_pre,"),
        (lambda lens: patch_activations(lens, CLEAN, CORRUPTED, METRIC, span=0), "span must be a whole number of"),
        (lambda lens: patch_activations(lens, CLEAN, CORRUPTED, METRIC, hook="z", span=2), "'z' is patched at all at"),
        (lambda lens: patch_activations(lens, CLEAN, CLEAN, METRIC).recovered, "nothing can be restored."),
        (lambda lens: patch_activations(lens, CLEAN, CLEAN, METRIC, by_position=True), "by_position is for heads."),
        (lambda lens: patch_path(lens, CLEAN, CORRUPTED, METRIC, sender=(1, 0), receiver=(1, 1)), "in a later layer"),
        (lambda lens: patch_path(lens, CLEAN, CORRUPTED, METRIC, sender=(99, 0), receiver="logits"), "The sender m"),
        (lambda lens: patch_path(lens, CLEAN, CORRUPTED, METRIC, sender=(0, 0), receiver=(1, 1), inputs=()), "inp"),
        (lambda lens: head_scores(lens, length=500), "length must be a whole number from 2 to"),
        (lambda lens: head_scores(lens, count=0), "count must be a whole number of at least 1, not 0."),
        (lambda lens: surprisal(lens, [5]), "give a text of at least two tokens."),
        (lambda lens: activation_statistics(lens, [], "hook_embed"), "There is no text to take statistics of."),
        (lambda lens: activation_statistics(lens, [CLEAN], "blocks.*.hook_mlp_out"), "takes one hook point, and"),
        (lambda lens: activation_statistics(lens, [CLEAN], "blocks.0.attn.hook_pattern"), "a value for each pair of"),
        (lambda lens: activation_statistics(lens, [CLEAN], "hook_embed", units=[-1]), "has units 0 to"),
        (lambda lens: activation_statistics(lens, [CLEAN], "blocks.0.attn.hook_z", units=[1]), "several axes of units"),
    ],
)  # fmt: skip
def test_what_cannot_be_analysed_is_refused_in_a_sentence(lens, call, text):
    with pytest.raises(InputError) as refused:
        call(lens)
    assert text in str(refused.value)


def test_an_unknown_hook_point_is_named(lens):
    with pytest.raises(HookPointError, match=r"Unknown hook point 'blocks.0.hook_x'"):
        activation_statistics(lens, [CLEAN], "blocks.0.hook_x")
