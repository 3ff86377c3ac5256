"""What the engine answers equals what the lens and the analyses give."""

from __future__ import annotations

import json

import numpy as np
import pytest
from yardstick import close

import onnxlens
from onnxlens.analysis import (
    ablate_heads,
    attribute_logit,
    gradient_times_input,
    head_scores,
    logit_lens,
    patch_activations,
    surprisal,
)
from onnxlens.metrics import logit_difference
from onnxlens.plugins.explorer import Engine, _sweeps
from onnxlens.plugins.explorer._engine import EXAMPLES
from onnxlens.plugins.explorer._requests import (
    ContinueRequest,
    ModelRequest,
    RunRequest,
    SweepRequest,
    TokenizeRequest,
    ViewRequest,
)
from onnxlens.runtime.errors import BundleError, InputError, OnnxLensError

TEXT = "When Mary and John went to the shop, John gave a drink to"
OTHER = "When Mary and Tom went to the shop, Mary gave a drink to"
BOARD = ["next", "guesses", "effects", "sources"]


@pytest.fixture(scope="module")
def lens():
    with onnxlens.load(provider="cpu", threads=1) as opened:
        yield opened


def test_a_run_has_what_it_reads(lens):
    reads = [*BOARD, "blocks.3.attn.hook_pattern"]
    answer = Engine(lens).run(RunRequest(text=TEXT, reads=reads, top=4))
    facts, arrays = answer.facts, answer.arrays
    token, against = facts["token"], facts["against"]
    assert [lens.to_string([one]) for one in (token, against)] == [" Mary", " James"]  # not "Mary", without a space
    assert [one["id"] for one in facts["tokens"]] == lens.to_tokens(TEXT)[0].tolist()
    assert "".join(one["label"] for one in facts["tokens"]) == TEXT
    prediction = lens.predict(TEXT, top=4)
    close(arrays["next.logits"], prediction.logits)
    likeliest = lens.predict(TEXT, top=len(arrays["next.ids"])).top
    assert len(likeliest) >= 20  # whatever the number of guesses
    assert arrays["next.ids"].tolist() == [one.id for one in likeliest]
    guesses = logit_lens(lens, TEXT, top=4, watch=[token])
    assert np.array_equal(arrays["guesses.ids"], guesses.ids)
    close(arrays["guesses.probabilities"], guesses.probabilities)
    assert facts["states"] == list(guesses.labels)
    parts = attribute_logit(lens, TEXT, token, against)
    close(arrays["effects.heads"], parts.heads)
    close(arrays["sources"].sum(-1), parts.heads, scale=np.abs(arrays["sources"]).sum(-1).max())
    rest = facts["effects"]
    total = arrays["effects.heads"].sum() + arrays["effects.mlps"].sum() + sum(rest[name] for name in list(rest)[:4])
    close(total, rest["logit"], scale=np.abs(parts.mlps).max())
    _, cache = lens.run_with_cache(TEXT, names_filter="blocks.3.attn.hook_pattern")
    assert np.array_equal(arrays["blocks.3.attn.hook_pattern"], cache["pattern", 3][0])
    named = {str(one) for one in [token, against, *arrays["next.ids"].tolist(), *np.unique(guesses.ids).tolist()]}
    assert set(facts["labels"]) == named


def test_an_answer_is_kept_and_the_least_recently_used_goes_first(lens):
    engine = Engine(lens)
    engine.prepare()
    asked = RunRequest(text=EXAMPLES[0], reads=BOARD)
    first = engine.run(asked)
    assert engine.run(asked) is first
    for number in range(100):
        engine.run(RunRequest(ids=[number], reads=["norms"]))
        assert engine.run(asked) is first
    assert engine.model(ModelRequest())["examples"] == list(EXAMPLES)


@pytest.mark.parametrize("texts", [[TEXT, TEXT + " Mary", TEXT], [TEXT, OTHER, "When", TEXT + " Mary and went"]])
def test_guesses_of_a_growing_text_are_those_of_the_whole(lens, texts):
    engine = Engine(lens)
    for text in texts:
        found = engine.run(RunRequest(text=text, reads=["guesses"])).arrays
        guesses = logit_lens(lens, text, top=5)
        close(found["guesses.probabilities"], guesses.probabilities)
        assert (found["guesses.ids"] == guesses.ids).mean() > 0.99  # but for ties within rounding


@pytest.mark.parametrize("position", [0, 7, -1])
def test_a_long_text_is_read_in_two_passes_with_the_same_numbers(lens, position):
    text = " ".join([TEXT] * 6)
    answer = Engine(lens).run(RunRequest(text=text, reads=BOARD, position=position))
    facts = answer.facts
    parts = attribute_logit(lens, text, facts["token"], facts["against"], position=position)
    close(answer.arrays["effects.heads"], parts.heads)
    sources = answer.arrays["sources"]
    close(sources.sum(-1), parts.heads, scale=np.abs(sources).sum(-1).max())


def test_addresses_name_parts_of_activations_and_weights(lens):
    reads = ["blocks.4.attn.hook_q[13,1]", "blocks.4.attn.W_Q[1,:,5]", "hook_embed[2:4,-1]", "logits[-1]", "ln_final.w"]
    found = Engine(lens).run(RunRequest(text=TEXT, reads=reads)).arrays
    logits, cache = lens.run_with_cache(TEXT, remove_batch_dim=True)
    assert np.array_equal(found[reads[0]], cache["q", 4][13, 1])
    assert np.array_equal(found[reads[1]], lens.weights["blocks.4.attn.W_Q"][1, :, 5])
    assert np.array_equal(found[reads[2]], cache["embed"][2:4, -1])
    close(found[reads[3]], logits[0, -1])
    assert np.array_equal(found[reads[4]], lens.weights["ln_final.w"])
    # A number is a product of others, down to the weights.
    q = (
        Engine(lens)
        .run(
            RunRequest(
                text=TEXT, reads=["blocks.4.ln1.hook_normalized[13]", "blocks.4.ln1.w", "blocks.4.ln1.b", reads[1]]
            )
        )
        .arrays
    )
    normalized, w, b, column = q.values()
    close((normalized * w + b) @ column + lens.weights["blocks.4.attn.b_Q"][1, 5], cache["q", 4][13, 1, 5])


def test_ranks_norms_and_surprisal_are_those_of_the_analyses(lens):
    answer = Engine(lens).run(RunRequest(text=TEXT, reads=["ranks", "norms", "surprisal", "neurons"], position=4))
    token = answer.facts["token"]
    guesses = logit_lens(lens, TEXT, watch=[token])
    close(answer.arrays["ranks.probabilities"], guesses.watched_probability[:, 4, 0])
    assert np.array_equal(answer.arrays["ranks"], guesses.watched_rank[:, 4, 0])
    _, cache = lens.run_with_cache(TEXT, remove_batch_dim=True)
    close(answer.arrays["norms"][3], np.linalg.norm(cache["resid_pre", 3], axis=-1))
    close(answer.arrays["surprisal"], surprisal(lens, TEXT).values)
    assert np.array_equal(answer.arrays["surprisal.ranks"], surprisal(lens, TEXT).rank)
    parts = attribute_logit(lens, TEXT, token, answer.facts["against"], position=4, neurons=True)
    close(answer.arrays["neurons"], parts.neurons)


def test_a_sampler_chain_is_shown_stage_by_stage(lens):
    chain = "top_k=5 | temperature=2.0 | top_p=0.9"
    answer = Engine(lens).run(RunRequest(text=TEXT, reads=["chain"], sampler=chain, seed=11))
    found = answer.facts["chain"]
    expected = lens.explain_sampling(TEXT, sampler=chain, seed=11)
    assert found["token"] == expected.chosen.id == lens.generate(TEXT, max_new_tokens=1, sampler=chain, seed=11).ids[0]
    assert (found["number"], found["interval"]) == (expected.number, list(expected.interval))
    assert [one["sampler"] for one in found["stages"]] == [one.sampler for one in expected.stages]
    for one, stage in zip(found["stages"], expected.stages, strict=True):
        assert (one["tokens"], one["removed"]) == (stage.tokens, stage.removed)
        for candidate in one["candidates"]:
            assert (candidate["logit"] is None) == (candidate["after"] == 0)
    for one, following in zip(found["stages"], found["stages"][1:], strict=False):
        assert [c["after"] for c in one["candidates"]] == [c["before"] for c in following["candidates"]]
    assert json.dumps(answer.facts)


def test_directions_promote_the_tokens_of_their_logits(lens):
    direction = "blocks.2.mlp.W_out[7]"
    found = Engine(lens).run(RunRequest(text=TEXT, reads=["unembedded"], directions=[direction])).facts["promoted"]
    vector = lens.weights["blocks.2.mlp.W_out"][7].astype(np.float64)
    logits = ((vector - vector.mean()) * lens.weights["ln_final.w"]) @ lens.weights["W_U"]
    assert [one["id"] for one in found[0]["most"]] == np.argsort(-logits)[:10].tolist()
    assert [one["id"] for one in found[0]["least"]] == np.argsort(logits)[:10].tolist()
    close([one["logit"] for one in found[0]["most"]], np.sort(logits)[::-1][:10])


def test_costs_count_every_weight_once_for_each_token(lens):
    found = Engine(lens).run(RunRequest(text=TEXT, reads=["costs"])).facts["costs"]
    parts = {one["part"]: one for one in found["parts"]}
    config = lens.config
    attention = 4 * config.d_model * config.n_heads * config.d_head
    looked = 2 * config.n_heads * config.d_head * sum(range(1, 15))  # each query looks at itself and those before it
    assert parts["blocks.0.attn"]["multiply_adds"] == 14 * attention + looked
    assert parts["blocks.0.mlp"]["multiply_adds"] == 14 * 2 * config.d_model * config.d_mlp
    assert parts["blocks.0.mlp"]["multiply_adds_cached"] == 2 * config.d_model * config.d_mlp
    assert parts["unembed"]["multiply_adds"] == config.d_model * config.d_vocab  # of the last token
    assert found["kv_cache_bytes"] == 2 * config.n_layers * config.n_heads * config.d_head * 14 * 4
    assert found["seconds"] > 0 and found["seconds_cached"] > 0
    assert all(part["seconds"] > 0 for part in parts.values())


@pytest.mark.parametrize("name", [None, "base", "llama"])
def test_costs_have_every_parameter_once(bundle, name):
    with onnxlens.load(None if name is None else bundle(name), provider="cpu", threads=1) as lens:
        found = Engine(lens).run(RunRequest(ids=[1, 2, 3], reads=["costs"])).facts["costs"]["parts"]
        assert sum(part["parameters"] for part in found) == lens.runner.bundle.manifest.parameters
        assert all(part["seconds"] >= 0 for part in found)


def test_words_have_the_merges_that_made_their_tokens(bundle, lens):
    found = Engine(lens).tokenize(TokenizeRequest(text="the drinks 日本"))
    assert [place for word in found["words"] for place in word["tokens"]] == list(range(len(found["tokens"])))
    for word in found["words"]:
        tokens = [found["tokens"][place]["bytes"] for place in word["tokens"]]
        assert bytes.fromhex("".join(tokens)).decode() == word["text"]
        if word["merges"]:
            assert word["merges"][-1]["pieces"] == tokens


@pytest.mark.parametrize("asked", [{"text": ""}, {"ids": [5, 5, 5]}, {"text": "<|endoftext|> a"}])
def test_any_text_and_ids_are_tokenized(lens, asked):
    found = Engine(lens).tokenize(TokenizeRequest(**asked))
    assert found["tokens"] and all(set(word["tokens"]) <= set(range(len(found["tokens"]))) for word in found["words"])


def test_gradients_are_those_of_the_analysis(bundle):
    with onnxlens.load(bundle("base-gradients"), provider="cpu", threads=1) as lens:
        answer = Engine(lens).run(RunRequest(text="the cat sat", reads=["gradient"]))
        metric = logit_difference(answer.facts["token"], answer.facts["against"])
        expected = next(iter(gradient_times_input(lens, "the cat sat", metric).scores.values()))[0]
        close(answer.arrays["gradient"], expected)
        assert Engine(lens).model(ModelRequest())["has_gradients"]


def test_models_are_opened_when_they_are_asked_for(lens, bundle):
    def opener(name):
        return onnxlens.load(bundle(name), provider="cpu", threads=1)

    engine = Engine(lens, ["base", "llama", "wide", "tiny"], opener)
    assert engine.models()[0] == {"name": "tiny", "isOpen": True}
    assert [one["isOpen"] for one in engine.models()] == [True, False, False, False]
    for name in ("base", "llama", "wide", "base"):
        assert engine.model(ModelRequest(model=name))["name"] == name
        assert engine.run(RunRequest(model=name, text="a cat", reads=["next"])).facts["tokens"]
    assert sum(one["isOpen"] for one in engine.models()) == 3
    with pytest.raises(BundleError, match=r"^There is no model 'bas'; there are tiny, base, llama, wide\."):
        engine.model(ModelRequest(model="bas"))
    engine.close()
    assert sum(one["isOpen"] for one in engine.models()) == 1


def test_a_visualizer_gives_its_page(lens):
    page = Engine(lens).view(ViewRequest(text=TEXT, visualizer="tokens", options={"colour": "norm"}))
    assert page == lens.view("tokens", TEXT, colour="norm").html()


@pytest.mark.parametrize(
    ("edit", "same"),
    [
        ({"operation": "mean"}, lambda cache: cache["z", 3].mean(0)),
        ({"operation": "patch", "from": {"text": OTHER}}, lambda cache: None),
    ],
)
def test_edits_take_their_values_from_runs(lens, edit, same):
    edit = {"hook": "blocks.3.attn.hook_z", **edit}
    found = Engine(lens).run(RunRequest(text=TEXT, reads=["next", "blocks.3.attn.hook_z"], edits=[edit])).arrays
    _, cache = lens.run_with_cache(TEXT, names_filter="blocks.3.attn.hook_z")
    _, other = lens.run_with_cache(OTHER, names_filter="blocks.3.attn.hook_z")
    if edit["operation"] == "mean":
        expected = onnxlens.Intervention.mean("blocks.3.attn.hook_z", cache)
    else:
        expected = onnxlens.Intervention.patch("blocks.3.attn.hook_z", other)
        assert np.array_equal(found["blocks.3.attn.hook_z"], other["blocks.3.attn.hook_z"][0])
    close(found["next.logits"], lens.predict(TEXT, interventions=[expected]).logits)


def test_a_steering_vector_is_the_difference_of_two_texts(lens):
    hook = "blocks.2.hook_resid_pre"
    edit = {"hook": hook, "operation": "add", "factor": 3.0}
    edit["from"] = {"text": TEXT, "minus": "Once upon a time", "position": -1}
    found = Engine(lens).run(RunRequest(text=OTHER, reads=["next"], edits=[edit])).arrays
    values = [lens.run_with_cache(text, names_filter=hook)[1][hook][0, -1] for text in (TEXT, "Once upon a time")]
    steered = onnxlens.Intervention.add(hook, values[0] - values[1], factor=3.0)
    close(found["next.logits"], lens.predict(OTHER, interventions=[steered]).logits)


def test_a_state_of_another_text_is_put_at_a_position(lens):
    hook = "blocks.2.hook_resid_pre"
    edit = {"hook": hook, "operation": "patch", "positions": 9, "from": {"text": "a John", "position": 1}}
    found = Engine(lens).run(RunRequest(text=TEXT, reads=[hook], edits=[edit])).arrays[hook]
    _, other = lens.run_with_cache("a John", names_filter=hook, remove_batch_dim=True)
    assert np.array_equal(found[9], other[hook][1])


def test_a_cell_of_a_pattern_can_be_replaced(lens):
    hook = "blocks.1.attn.hook_pattern"
    edit = {"hook": hook, "operation": "replace", "heads": 2, "positions": 5, "keys": 1, "value": 0.5}
    found = Engine(lens).run(RunRequest(text=TEXT, reads=[hook], edits=[edit])).arrays[hook]
    _, cache = lens.run_with_cache(TEXT, names_filter=hook, remove_batch_dim=True)
    expected = cache[hook].copy()
    expected[2, 5, 1] = 0.5
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["patch_resid_pre", "patch_heads"])
def test_patching_sweeps_are_the_share_that_is_restored(lens, kind):
    token, against = lens.to_single_token(" Mary"), lens.to_single_token(" Tom")
    asked = SweepRequest(text=TEXT, other=OTHER, token=token, against=against, kind=kind)
    answer = Engine(lens).sweep(asked)
    hook = {"patch_resid_pre": "resid_pre", "patch_heads": "z"}[kind]
    expected = patch_activations(lens, TEXT, OTHER, logit_difference(token, against), hook=hook)
    close(answer.arrays["effects"], expected.recovered)


@pytest.mark.parametrize("kind", ["ablate_heads", "ablate_mlps", "patch_resid_pre", "patch_heads"])
def test_a_sweep_can_be_asked_for_in_parts(lens, kind):
    asked = {"text": TEXT, "token": 1080, "against": 7, "kind": kind}
    asked |= {"other": OTHER} if kind.startswith("patch") else {}
    engine = Engine(lens)
    whole = engine.sweep(SweepRequest(**asked)).arrays["effects"]
    parts = [engine.sweep(SweepRequest(**asked, layers=layers)).arrays["effects"] for layers in ([0, 1], [2], [3, 4])]
    close(np.concatenate(parts), whole, scale=np.abs(whole).max())
    with pytest.raises(InputError, match="layers must be some of 0 to 4, not \\[5\\]"):
        engine.sweep(SweepRequest(**asked, layers=[5]))


@pytest.mark.parametrize("largest", [None, 1])
def test_distance_and_entropy_of_heads_are_those_of_the_patterns(lens, monkeypatch, largest):
    if largest is not None:  # one layer in a pass, as with a long text
        monkeypatch.setattr(_sweeps, "_LARGEST_PASS", largest)
    found = Engine(lens).sweep(SweepRequest(text=TEXT, kind="head_scores")).arrays
    _, cache = lens.run_with_cache(TEXT, names_filter="*.hook_pattern", remove_batch_dim=True)
    pattern = np.stack([cache["pattern", layer] for layer in range(lens.config.n_layers)]).astype(np.float64)
    places = np.arange(14)
    close(found["distance"], (pattern * (places[:, None] - places).clip(0)).sum(-1).mean(-1))
    close(found["entropy"], -np.where(pattern > 0, pattern * np.log(pattern + (pattern == 0)), 0).sum(-1).mean(-1))
    close(found["induction"], head_scores(lens).induction)


def test_an_edit_changes_the_run(lens):
    edit = {"hook": "blocks.4.attn.hook_z", "operation": "zero", "heads": 1}
    answer = Engine(lens).run(RunRequest(text=TEXT, reads=["next", "effects"], edits=[edit]))
    close(answer.arrays["next.logits"], lens.predict(TEXT, interventions=onnxlens.Intervention.from_dict(edit)).logits)
    assert answer.arrays["effects.heads"][4, 1] == 0


def test_a_sweep_is_the_effect_of_each_head(lens):
    token, against = lens.to_single_token(" Mary"), lens.to_single_token(" John")
    answer = Engine(lens).sweep(SweepRequest(text=TEXT, token=token, against=against, kind="ablate_heads"))
    found = ablate_heads(lens, TEXT, logit_difference(token, against))
    close(answer.arrays["effects"], -found.effects)


def test_a_continuation_is_that_of_generate(lens):
    tokens = list(Engine(lens).continuation(ContinueRequest(text=TEXT, max_new_tokens=5, top_k=40, seed=3)))
    expected = lens.generate(TEXT, max_new_tokens=5, top_k=40, seed=3)
    assert "".join(token["text"] for token in tokens) == expected.text
    assert {token["seed"] for token in tokens} == {3}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "Give either text or ids."),
        ({"text": "a", "ids": [1]}, "Give either text or ids."),
        ({"ids": [10**6]}, "Token id 1000000 is out of range"),
        ({"text": "a", "top": 0}, "top must be from 1 to 100, not 0."),
        ({"text": "a", "position": 5}, "position must be from -1 to 0, not 5."),
        ({"text": "a", "reads": ["hook_x"]}, "Unknown hook point or weight 'hook_x'"),
        ({"text": "a", "edits": [{"hook": "hook_embed"}]}, "An intervention needs the entry 'operation'."),
        ({"text": "a " * 300}, "The text is"),
        (
            {"text": "a", "reads": ["hook_embed[0,0,0]"]},
            "hook_embed has the shape [1, 256], so its",
        ),
        ({"text": "a", "reads": ["hook_embed[4]"]}, "Place 4 is outside of axis 0 of hook_embed, which has 1 entries."),
        ({"text": "a", "reads": ["hook_embed[x]"]}, "'x' is no place of an axis"),
        ({"text": "a", "reads": ["*.hook_q[0]"]}, "*.hook_q[0] names several hook points; places are for one."),
        ({"text": "a", "token": -1}, "Token id -1 is out of range"),
        ({"text": "a", "model": "none"}, "There is no model 'none'"),
        (
            {"text": "a", "reads": ["unembedded"], "directions": ["ln_final.hook_scale[0]"]},
            "ln_final.hook_sc",
        ),
        ({"text": "a", "reads": ["chain"], "sampler": "top_q=1"}, "There is no sampler 'top_q'"),
        ({"text": "a", "edits": [{"hook": "hook_embed", "operation": "add", "from": {}}]}, "'from' of an edit needs"),
        (
            {"text": "a", "edits": [{"hook": "hook_embed", "operation": "zero"}] * 300},
            "A request has",
        ),
    ],
)
def test_what_cannot_be_run_is_an_error(lens, asked, expected):
    with pytest.raises((InputError, OnnxLensError)) as caught:
        Engine(lens).run(RunRequest(**asked))
    assert str(caught.value).startswith(expected)


def test_a_family_with_shared_keys_and_rotated_positions(bundle):
    with onnxlens.load(bundle("llama"), provider="cpu", threads=1) as lens:
        reads = [*BOARD, "ranks", "norms", "surprisal", "neurons", "costs", "*.hook_rot_q"]
        answer = Engine(lens).run(RunRequest(text="the cat sat", reads=reads))
        length = len(answer.facts["tokens"])
        assert answer.arrays["sources"].shape == (lens.config.n_layers, lens.config.n_heads, length)
        assert answer.facts["effects"]["pos_embed"] == 0
        close(
            answer.arrays["sources"].sum(-1),
            answer.arrays["effects.heads"],
            scale=np.abs(answer.arrays["sources"]).max(),
        )
        shares = logit_lens(lens, "the cat sat").probabilities
        close(answer.arrays["guesses.probabilities"], shares)


def test_visualizers_show_the_same_numbers(lens):
    """What a visualizer and the page both show comes from one function."""
    engine = Engine(lens)
    pair = {"token": " Mary", "against": " James"}
    ids = {name: int(lens.to_tokens(text)[0, 0]) for name, text in pair.items()}
    answer = engine.run(RunRequest(text=TEXT, reads=[*BOARD, "surprisal", "blocks.4.attn.hook_pattern"], **ids))
    effects, facts = answer.arrays["effects.heads"], answer.facts["effects"]

    def same(shown, value):
        assert np.array_equal(np.asarray(shown, np.float32), np.asarray(value, np.float32))

    waterfall, heads, *_ = lens.view("attribution", TEXT, **pair).charts
    same(heads.panels[""], effects)
    parts = dict(waterfall.lists[""])
    same([parts[f"block {layer} MLP"] for layer in range(5)], answer.arrays["effects.mlps"])
    same(parts["token embedding"], facts["embed"])
    same(parts["biases"], facts["biases"])
    ablation = lens.view("ablation", TEXT, **pair)
    same(ablation.panels[""], engine.sweep(SweepRequest(text=TEXT, kind="ablate_heads", **ids)).arrays["effects"])
    patching = lens.view("patching", TEXT, corrupted=OTHER, hook="resid_pre", **pair)
    swept = engine.sweep(SweepRequest(text=TEXT, kind="patch_resid_pre", other=OTHER, **ids))
    same(patching.panels[""], swept.arrays["effects"])
    _, distance, entropy = lens.view("rollout", TEXT).charts
    scores = engine.sweep(SweepRequest(text=TEXT, kind="head_scores")).arrays
    same(distance.panels[""], scores["distance"])
    same(entropy.panels[""], scores["entropy"])
    same(lens.view("surprisal", TEXT).values[1:], answer.arrays["surprisal"])
    states = lens.view("logit_lens", TEXT).panels["probability of the most probable"]
    close(answer.arrays["guesses.probabilities"][:, :, 0], states)  # several positions together, which round otherwise
    attention = lens.view("attention", TEXT, layer=4, head=1)
    (shown,) = attention.panels.values()
    same(np.nan_to_num(shown), answer.arrays["blocks.4.attn.hook_pattern"][1])
