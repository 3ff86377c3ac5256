"""The built-in visualizers: what they show is what the model computed, and what they refuse is said in a sentence."""

from __future__ import annotations

import copy
import dataclasses
import html
import inspect
import io
import json
import math

import matplotlib.image
import numpy as np
import pytest
from yardstick import close, is_close, probable, ranks_of

import onnxlens
from onnxlens import metrics
from onnxlens._lens import Lens
from onnxlens.analysis import ablate_heads, attention_rollout, attribute_logit, logit_lens, patch_activations, surprisal
from onnxlens.plugins._drawing.labels import visible
from onnxlens.plugins._registry import Registry
from onnxlens.plugins.visualizers.builtin import VISUALIZERS
from onnxlens.runtime._interventions.intervention_files import write_interventions
from onnxlens.runtime._interventions.interventions import Intervention
from onnxlens.runtime.errors import ContextLengthError, InputError, PluginError

TEXT = "the cat sat on the cat"
OTHER = "the sat sat on the cat"


@pytest.fixture
def lens(runner) -> Lens:
    return Lens(runner("base"), Registry(find=False))


def cached(lens: Lens, name: str) -> np.ndarray:
    return lens.run_with_cache(TEXT, names_filter=name)[1][name][0]


def label(lens: Lens, token: int) -> str:
    """A token as pictures call it: bytes that are no letter by themselves as escapes."""
    text = lens.tokenizer.token_bytes(token).decode("utf-8", "backslashreplace")
    return visible(text)


def test_embedding(lens):
    stripes, lengths, near = lens.view("embedding", TEXT, position=1, nearest=4).charts
    token, place = cached(lens, "hook_embed"), cached(lens, "hook_pos_embed")
    close(stripes.panels[""], np.stack([token[1], place[1], token[1] + place[1]]))
    close([row[3] for row in lengths.rows], np.linalg.norm(token, axis=-1))
    embeddings = lens.weights["W_E"].astype(np.float64)
    own = int(lens.to_tokens(TEXT)[0, 1])
    cosine = embeddings @ embeddings[own] / np.linalg.norm(embeddings, axis=-1) / np.linalg.norm(embeddings[own])
    best = [one for one in np.argsort(-cosine, kind="stable").tolist() if one != own][:4]
    assert [row[1] for row in near.rows] == best
    close([row[2] for row in near.rows], cosine[best])


def test_qkv(lens):
    each, _, _, pair, table = lens.view("qkv", TEXT, layer=1, head=2, query=4, key=1).charts
    arrays = [cached(lens, f"blocks.1.attn.hook_{name}")[:, 2] for name in "qkv"]
    for panel, expected in zip(each.panels.values(), arrays, strict=True):
        close(panel, expected)
    close(pair.panels[""][0], arrays[0][4] * arrays[1][1])
    score, pattern = (cached(lens, f"blocks.1.attn.hook_{name}")[2, 4, 1] for name in ("attn_scores", "pattern"))
    values = [row[1] for row in table.rows]
    close(values[0], arrays[0][4] @ arrays[1][1], scale=arrays[0][4] * arrays[1][1])
    close(values[1:3], [score, score])
    close(values[3:], [pattern])


def test_a_masked_pair_is_said_to_be(lens):
    table = lens.view("qkv", TEXT, query=0, key=3).charts[-1]
    assert table.rows[2][1] == "masked: the key is later"
    assert table.rows[3][1] == 0


def test_rollout(lens):
    rolled, distance, entropy = lens.view("rollout", TEXT).charts
    expected = attention_rollout(lens, TEXT).values[-1]
    close(np.nan_to_num(rolled.panels[""]), np.tril(expected))
    pattern = cached(lens, "blocks.1.attn.hook_pattern")[0].astype(np.float64)
    far = [sum(w * (q - k) for k, w in enumerate(row)) for q, row in enumerate(pattern)]
    close(distance.panels[""][1, 0], np.mean(far))
    wide = [-sum(w * math.log(w) for w in row if w > 0) for row in pattern]
    close(entropy.panels[""][1, 0], np.mean(wide))


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [
        ({"layer": 0}, "blocks.0.hook_resid_pre", "blocks.0.ln1"),
        ({"which": "ln2", "layer": -1}, "blocks.1.hook_resid_mid", "blocks.1.ln2"),
        ({"which": "ln_final"}, "blocks.1.hook_resid_post", "ln_final"),
    ],
)
def test_layernorm(lens, options, before, after):
    first, second, table = lens.view("layernorm", TEXT, position=2, **options).charts
    close(first.panels[""][0], cached(lens, before)[2])
    close(second.panels[""][0], cached(lens, f"{after}.hook_normalized")[2])
    close(np.array([row[3] for row in table.rows]), cached(lens, f"{after}.hook_scale")[:, 0])
    close(np.array([row[2] for row in table.rows]), cached(lens, before).mean(-1))


def test_mlp(lens):
    maps, _ = lens.view("mlp", TEXT, layer=1, neurons=7).charts
    inside, outside = (cached(lens, f"blocks.1.mlp.hook_{name}") for name in ("pre", "post"))
    chosen = [int(label.split()[1]) for label in maps.rows]
    assert set(chosen) == set(np.argsort(-np.abs(outside).max(0))[:7].tolist())
    close(maps.panels["into the GELU"], inside[:, chosen].T)
    close(maps.panels["out of the GELU"], outside[:, chosen].T)


def test_residual(lens):
    lengths, share, way = lens.view("residual", TEXT).charts
    assert lengths.rows == ["embed", "pos_embed", "0_attn", "0_mlp", "1_attn", "1_mlp"]
    close(lengths.panels[""][2], np.linalg.norm(cached(lens, "blocks.0.hook_attn_out"), axis=-1))
    close(share.panels[""].sum(0), np.ones(share.panels[""].shape[1]), scale=share.panels[""])
    for line in way.lines.values():
        close(line[-1], 1)


def test_logit_lens(lens):
    shown = lens.view("logit-lens", TEXT)  # as a command is written
    expected = logit_lens(lens, TEXT, top=1)
    first, second = shown.panels.values()
    close(first, expected.probabilities[:, :, 0])
    close(second, expected.probability)
    last = [label(lens, token) for token in expected.ids[-1, :, 0].tolist()]
    assert shown.notes["probability of the most probable"][-1] == last
    assert shown.notes["probability of the final prediction"][-1] == ["#0"] * len(last)


def test_logit_lens_watches_tokens(lens):
    shown = lens.view("logit_lens", TEXT, watch=[" cat", " sat", " cat"])
    expected = logit_lens(lens, TEXT, watch=[" cat", lens.to_single_token(" sat")])
    assert list(shown.panels)[2:] == ["probability of ␣cat", "probability of ␣sat"]
    for place, name in enumerate(list(shown.panels)[2:]):
        close(shown.panels[name], expected.watched_probability[:, :, place])
        assert shown.notes[name] == [[f"#{one}" for one in row] for row in expected.watched_rank[:, :, place]]
    last = lens.run(lens.to_tokens(TEXT)).logits[0].astype(np.float64)  # [P, V]
    own = last[:, expected.watched[0]]
    chances = np.exp(own) / np.exp(last).sum(-1)
    probable(expected.watched_probability[-1, :, 0], chances, last)
    assert ranks_of(expected.watched_rank[-1, :, 0], np.exp(last) / np.exp(last).sum(-1, keepdims=True), chances)


def test_tokens_say_how_a_word_came_about(lens):
    text = "unbelievable cats é"
    tokens, steps = lens.view("tokens", text, word=0, colour="nothing").charts
    ids = lens.to_tokens(text)[0].tolist()
    assert tokens.details["id"] == ids
    assert bytes.fromhex("".join(tokens.details["bytes"])) == text.encode()
    assert steps.rows[0] == [0, None, None, " · ".join("unbelievable")]
    pieces = steps.rows[-1][-1].split(" · ")
    assert "".join(pieces) == "unbelievable"
    assert pieces == lens.to_str_tokens(text)[: len(pieces)]
    assert len(steps.rows) == 1 + len("unbelievable") - len(pieces)  # each step has one piece less, but for doubles
    with pytest.raises(InputError, match="word must be one of the text's"):
        lens.view("tokens", text, word=len(ids))
    with pytest.raises(InputError, match="These ids are not the tokens of their text"):
        lens.view("tokens", [lens.to_single_token("t"), lens.to_single_token("he")], word=0)


def test_attribution(lens):
    waterfall, heads, *tokens = lens.view("attribution", TEXT).charts
    token = int(lens.run(lens.to_tokens(TEXT)).logits[0, -1].argmax())
    logit = float(lens.run(lens.to_tokens(TEXT)).logits[0, -1, token])
    parts = dict(waterfall.lists[""])
    close(sum(parts.values()), logit, scale=[*parts.values()])
    close(heads.panels[""][1].sum(), parts["block 1 attention"], scale=heads.panels[""])
    assert (
        waterfall.scale.signs
        == heads.scale.signs
        == (f"supports {label(lens, token)}", f"opposes {label(lens, token)}")
    )
    assert all(chart.scale == heads.scale for chart in tokens)


def test_attribution_has_one_scale_of_colours(bundle):
    opened = onnxlens.load(bundle("base-gradients"), provider="cpu", threads=1)
    _, heads, tokens = opened.view("attribution", TEXT).charts
    assert heads.scale == tokens.scale
    assert heads.limits[1] == pytest.approx(max(np.abs(heads.panels[""]).max(), np.abs(tokens.values).max(), 0.1))


def test_predictions(lens):
    bars, ladder, table = lens.view("predictions", TEXT, top=5).charts
    expected = lens.predict(TEXT, top=5)
    close([value for _, value in bars.lists[""]], [one.probability for one in expected.top])
    logits = lens.run(lens.to_tokens(TEXT)).logits[0].astype(np.float64)
    order = np.argsort(-logits[-1])[:5]
    for row, temperature in zip(ladder.panels[""], (0.25, 0.5, 0.75, 1.0, 1.5, 2.0), strict=True):
        powers = np.exp((logits[-1] - logits[-1].max()) / temperature)
        close(row, (powers / powers.sum())[order])
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    close(np.array([row[3] for row in table.rows]), -(shares * np.log(shares)).sum(-1))


def test_what_samples_takes_the_options_of_generate_with_the_same_defaults():
    options = inspect.signature(Lens.generate).parameters
    for kind in (VISUALIZERS["sampling"], VISUALIZERS["generation"]):
        for name in ("temperature", "top_k", "top_p", "sampler", "seed"):
            assert getattr(kind(), name) == options[name].default


def test_what_samples_chooses_as_generate_does(lens):
    options = {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "seed": 4}
    (expected,) = lens.generate(TEXT, max_new_tokens=1, **options)
    view = lens.view("sampling", TEXT, **options)
    assert "top_k=20, top_p=0.9, temperature=0.7, seed 4" in view.title
    assert lens.view("generation", TEXT, max_new_tokens=1, **options).data()
    assert lens.explain_sampling(TEXT, **options).chosen.id == expected.id
    drawn = VISUALIZERS["sampling"](top_k=5)
    assert drawn.sampling["seed"] == drawn.sampling["seed"]  # one for all drawings
    with pytest.raises(InputError, match="Give either a sampler, or temperature"):
        lens.view("sampling", TEXT, sampler="top_k=3", temperature=0.5)


def test_sampling(lens):
    chain = "top_k=9 | temperature=0.7"
    why = lens.explain_sampling(TEXT, sampler=chain, seed=4)
    stages, bars, draw = lens.view("sampling", TEXT, sampler=chain, seed=4).charts
    assert [row[1] for row in stages.rows] == [one.tokens for one in why.stages]
    assert [row[3] for row in stages.rows] == [one.removed for one in why.stages]
    left = [value for _, value in bars.lists["left by the samplers"]]
    assert left[: len(why.candidates)] == [one.probability for one in why.candidates]
    model = [value for _, value in bars.lists["by the model"]]
    close(model[: len(why.candidates)], [one.model_probability for one in why.candidates])
    assert draw.level == (why.number, "the random number")
    ends = draw.start + np.cumsum([value for _, value in draw.lists[""]])
    hit = int((ends > why.number).argmax())
    assert draw.lists[""][hit][0] == label(lens, why.chosen.id)
    close(ends[hit], why.interval[1])


def test_sampling_shows_before_and_after_on_one_axis(lens):
    _, bars, draw = lens.view("sampling", TEXT, seed=4).charts
    (axes,) = bars.figure().axes
    assert [len(group) for group in axes.containers] == [len(bars.lists["by the model"])] * 2
    assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 1
    (upright,) = [line for line in draw.figure().axes[0].lines if list(line.get_linestyle()) != ["-"]][-1:]
    assert upright.get_xdata() == [draw.level[0]] * 2
    page = bars.part()
    assert [trace.visible for trace in page.data] == [True, True]
    assert page.layout.xaxis.range == (0, 1)


def test_sampling_shows_the_tokens_around_the_draw_where_many_are_left(lens):
    why = lens.explain_sampling(TEXT, sampler="temperature=2", seed=1)
    draw = lens.view("sampling", TEXT, sampler="temperature=2", seed=1).charts[-1]
    assert len(draw.lists[""]) == 40 < why.tokens
    ends = draw.start + np.cumsum([value for _, value in draw.lists[""]])
    starts = np.concatenate([[draw.start], ends[:-1]])
    hit = [label for label, _ in draw.lists[""]].index(draw.marked[0])
    close([starts[hit], ends[hit]], why.interval)


def test_surprisal(lens):
    shown, expected = lens.view("surprisal", TEXT, alternatives=2), surprisal(lens, TEXT)
    assert math.isnan(shown.values[0])
    close(shown.values[1:], expected.values)
    assert shown.details["rank"] == [None, *expected.rank.tolist()]
    assert shown.details["expected"][1].count("%") == 2
    assert f"perplexity {expected.perplexity:.2f}" in shown.title


def test_ablation(lens):
    token = lens.to_str_tokens(TEXT)[1]
    for options, metric in (
        ({"token": token}, metrics.log_probability(token)),
        ({"token": token, "against": "a"}, metrics.logit_difference(token, "a")),
    ):
        shown = lens.view("ablation", TEXT, operation="mean", **options)
        found = ablate_heads(lens, TEXT, metric, operation="mean")
        close(shown.panels[""], found.baseline - found.values)  # what is lost without a head supports the answer
        assert shown.scale.signs[0] == f"supports {visible(token)}"
        assert shown.scale.signs[1] == ("supports a" if "against" in options else f"opposes {visible(token)}")


def test_ablation_of_nothing_is_pale(lens):
    """The darkest colour is not the largest number, however small that is."""
    with lens.hooks(interventions=Intervention.scale("blocks.*.attn.hook_z", 1e-4)):
        shown = lens.view("ablation", TEXT)
    assert np.abs(shown.panels[""]).max() < 0.01
    assert shown.limits == (-0.1, 0.1)


def test_what_is_not_named_is_what_moves_the_prediction_most(lens):
    found = attribute_logit(lens, TEXT)
    token = label(lens, found.token)
    layer, head = np.unravel_index(np.abs(found.heads).argmax(), found.heads.shape)
    chosen, named = lens.view("qkv", TEXT), lens.view("qkv", TEXT, layer=int(layer), head=int(head))
    for one, two in zip(chosen.charts[0].panels.values(), named.charts[0].panels.values(), strict=True):
        np.testing.assert_array_equal(one, two)
    change = f"{found.heads[layer, head]:+.2f}"
    because = f"which of all heads changes the logit of {token} most, by {change}"
    assert chosen.title == f"{named.title}, {because}"
    best = int(np.abs(found.heads[1]).argmax())
    assert f"block 1, head {best}, which of all heads of block 1" in lens.view("qkv", TEXT, layer=1).title
    for view, options, values in (
        ("mlp", {}, found.mlps),
        ("layernorm", {"which": "ln2"}, found.mlps),
        ("layernorm", {}, found.heads.sum(-1)),
    ):
        block = int(np.abs(values).argmax())
        chosen, named = lens.view(view, TEXT, **options), lens.view(view, TEXT, layer=block, **options)
        assert f"block {block}, which of all blocks'" in chosen.title
        assert f"the logit of {token} most, by {values[block]:+.2f}" in chosen.title
        assert json.loads(chosen.charts[0].json()) == json.loads(named.charts[0].json())


def test_what_is_not_named_is_chosen_in_the_changed_run(lens):
    with lens.hooks(fwd_hooks=[("blocks.0.attn.hook_z", lambda values, hook: values * 0)]):
        queries = lens.view("qkv", TEXT)
        assert lens.view("qkv", TEXT, layer=0, head=0).charts[0].panels.keys() == queries.charts[0].panels.keys()
    assert ": queries, keys and values, block 1, head" in queries.title  # those of block 0 add nothing any more


def test_every_picture_and_page_says_what_it_is_of(lens):
    with lens.hooks(interventions=Intervention.scale("blocks.0.hook_resid_post", 2.0)):
        changed = lens.view("attention", TEXT, layer=1).caption
    shown = lens.view("attention", TEXT, layer=1)
    count = len(lens.to_str_tokens(TEXT))
    prompt = f"Prompt, {count} tokens: '{TEXT}'; View: Attention(layer=1, head=None, values='pattern')"
    assert shown.caption == f"Model: {lens.runner.bundle.name}; {prompt}"
    assert changed == f"Model: {lens.runner.bundle.name}, changed by lens.hooks; {prompt}"
    assert f"<footer>{html.escape(shown.caption)}</footer>" in shown.encoded("html").decode()
    plain = copy.copy(shown)
    plain.caption = ""
    heights = [matplotlib.image.imread(io.BytesIO(one.encoded("png"))).shape[0] for one in (shown, plain)]
    assert heights[0] > heights[1] + 10
    assert "<footer>" not in plain.encoded("html").decode()
    assert len(lens.view("tokens", TEXT * 20, colour="nothing").caption) < 1_000


@pytest.mark.parametrize("hook", ["resid_mid", "z"])
def test_patching(lens, hook):
    clean, corrupted = (lens.run(lens.to_tokens(text)).logits[0, -1] for text in (TEXT, OTHER))
    order = lens.to_str_tokens(np.argsort(-np.abs(clean - corrupted)).tolist())  # those whose probability differs first
    token = next(text for text in order if "\ufffd" not in text and len(lens.tokenizer.encode(text)) == 1)
    shown = lens.view("patching", TEXT, corrupted=OTHER, hook=hook, token=token)
    expected = patch_activations(lens, TEXT, OTHER, metrics.log_probability(token), hook=hook)
    close(shown.panels[""], expected.recovered)


def test_patching_divides_by_no_tiny_difference(lens):
    """Shares of a difference that is as good as nothing would be noise of any size."""
    with lens.hooks(interventions=Intervention.scale("blocks.*.attn.hook_z", 1e-3)):
        shown = lens.view("patching", TEXT, corrupted=OTHER, token="a")
        expected = patch_activations(lens, TEXT, OTHER, metrics.log_probability("a"))
    assert 0 < abs(expected.clean - expected.corrupted) < 0.1
    close(shown.panels[""], expected.values - expected.corrupted)
    assert "too small for shares" in shown.title
    assert shown.unit == "change of the log-probability (nats) of a"
    assert shown.limits == (-0.1, 0.1)


def test_patching_a_long_text_puts_neighbours_in_together(lens):
    token = lens.to_str_tokens(TEXT)[1]
    ids, other = (np.resize(lens.to_tokens(text)[0], 34) for text in (TEXT, OTHER))
    shown = lens.view("patching", ids, corrupted=lens.to_string(other), token=token)
    expected = patch_activations(lens, ids, other, metrics.log_probability(token), span=4)
    close(shown.panels[""], expected.recovered)
    assert shown.column_axis == "4 tokens together" and len(shown.columns) == 9
    pieces = [(visible(one), visible(two)) for one, two in zip(*map(lens.to_str_tokens, (ids, other)), strict=True)]
    assert "".join(shown.columns) == "".join(one if one == two else f"{one}/{two}" for one, two in pieces)
    alone = lens.view("patching", ids, corrupted=lens.to_string(other), token=token, span=1)
    assert alone.panels[""].shape == (lens.config.n_layers, 34) and alone.column_axis == "token"


def test_flow(lens):
    picture, table = lens.view("flow", TEXT).charts
    assert table.rows[-1][2] == sum(array.size for array in lens.runner.bundle.weights.values())
    lengths = picture.data()["lengths"]
    close(lengths["mlp_out"][1], np.linalg.norm(cached(lens, "blocks.1.hook_mlp_out"), axis=-1).mean())
    figure = picture.figure()
    drawn = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(drawn[3], cached(lens, "blocks.0.hook_resid_pre"))


def test_compare_two_texts(lens):
    first, second, difference = lens.view(
        "compare", TEXT, of="attention", options={"layer": 1}, other_text=OTHER
    ).charts
    for chart, text in ((first, TEXT), (second, OTHER)):
        own = lens.view("attention", text, layer=1)
        for name, panel in own.panels.items():
            np.testing.assert_array_equal(chart.panels[name], panel)
    for name, panel in difference.panels.items():
        close(panel, second.panels[name].astype(np.float64) - first.panels[name])
    assert difference.rows[:2] == ["the", "␣cat/␣sat"]  # what is taken away, and from what


def test_compare_with_a_change(lens, tmp_path):
    path = tmp_path / "edits.json"
    path.write_text(json.dumps([{"hook": "blocks.0.attn.hook_z", "operation": "zero"}]))
    first, second, difference = lens.view("compare", TEXT, of="surprisal", interventions=str(path)).charts
    assert not is_close(first.values[1:], second.values[1:])
    close(difference.values[1:], second.values[1:] - first.values[1:])


def test_compare_what_draws_no_charts(runner, tmp_path):
    path = tmp_path / "plain.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom onnxlens.plugins import Rendering, Visualizer, hookimpl\n\n"
        "ONNXLENS_PLUGIN_API = 1\n\n\nclass Drawn(Rendering):\n    def data(self):\n        return 1\n\n\n"
        '@dataclass\nclass Plain(Visualizer):\n    """Plain."""\n\n    def hook_points(self, config):\n'
        "        return []\n\n    def draw(self, view):\n        return Drawn()\n\n\n"
        '@hookimpl\ndef register_visualizers(register):\n    register("plain", Plain)\n'
    )
    with pytest.raises(InputError, match=r"^plain draws no charts of onnxlens\.plugins\.charts, so compare cannot"):
        Lens(runner("base"), Registry([path])).view("compare", TEXT, of="plain", other_text=OTHER)


def test_compare_tokens_of_texts_of_two_lengths(lens):
    shown = lens.view("compare", TEXT, of="tokens", other_text="the cat").charts
    assert [chart.title.split(":")[0] for chart in shown] == ["first", "second"]  # and no difference


def test_compare_two_models(lens, bundle):
    other = onnxlens.load(bundle("scaled"), provider="cpu", threads=1)
    shown = lens.view("compare", TEXT, of="surprisal", other_model=str(bundle("scaled"))).charts
    first, second, difference = (chart.values for chart in shown)
    np.testing.assert_array_equal(first, lens.view("surprisal", TEXT).values)
    np.testing.assert_array_equal(second, other.view("surprisal", TEXT).values)
    np.testing.assert_array_equal(difference, second - first)
    assert np.nanmax(np.abs(difference)) > 0.1


def test_compare_subtracts_what_belongs_together(lens, tmp_path):
    path = tmp_path / "edits.json"
    write_interventions([Intervention.zero("blocks.0.attn.hook_z")], path)
    shown = lens.view("compare", TEXT, of="mlp", options={"layer": 1, "neurons": 5}, interventions=str(path)).charts
    first, second, difference = shown[:3]
    hook = "blocks.1.mlp.hook_post"
    before = cached(lens, hook)
    with lens.hooks(interventions=str(path)):
        changes = cached(lens, hook) - before  # [P, M]
    largest = np.argsort(-np.abs(changes).max(0), kind="stable")[:5].tolist()
    assert difference.rows == [f"neuron {neuron}" for neuron in largest]  # whether the two show them or not
    close(difference.panels["out of the GELU"], changes[:, largest].T)
    assert first.rows != second.rows
    other = lens.view("compare", TEXT, of="attribution", other_text="the sat sat on the mat").charts
    units = [chart.unit for chart in other]
    assert any(unit.startswith("difference") for unit in units) == (units[0] == units[1])


def test_compare_finds_the_largest_change_in_the_full_vocabulary(lens, tmp_path):
    """A token that is among the most probable of one only is the largest change, and is there."""
    path = tmp_path / "edits.json"
    write_interventions([Intervention.scale("blocks.1.hook_resid_post", -3.0)], path)
    shown = lens.view("compare", TEXT, options={"top": 3}, interventions=str(path)).charts
    first, second, bars = shown[:3]
    before = lens.predict(TEXT).probabilities
    with lens.hooks(interventions=str(path)):
        changes = lens.predict(TEXT).probabilities - before
    largest = np.argsort(-np.abs(changes), kind="stable")[:3].tolist()
    assert [name for name, _ in bars.lists[""]] == [label(lens, token) for token in largest]
    close([value for _, value in bars.lists[""]], changes[largest])
    assert set(dict(bars.lists[""])) - set(dict(first.lists[""])) and set(dict(bars.lists[""])) - set(
        dict(second.lists[""])
    )
    ladder = next(chart for chart in shown if chart.title.startswith("second − first") and hasattr(chart, "panels"))
    assert ladder.columns == [name for name, _ in bars.lists[""]]
    close(ladder.panels[""][3], changes[largest])  # at temperature 1
    assert bars.limits == (-1.0, 1.0) == ladder.limits


def test_compare_subtracts_no_probabilities_of_different_tokens(lens, tmp_path):
    path = tmp_path / "edits.json"
    write_interventions([Intervention.scale("blocks.1.hook_resid_post", -3.0)], path)
    options = {"of": "logit_lens", "options": {"watch": [" cat"]}, "interventions": str(path)}
    first, second, difference = lens.view("compare", TEXT, **options).charts
    best, final, watched = difference.panels
    names = [np.array(chart.notes[best]) for chart in (first, second)]
    same = names[0] == names[1]
    assert same.any() and not same.all()
    np.testing.assert_array_equal(np.isfinite(difference.panels[best]), same)
    close(difference.panels[best][same], (second.panels[best] - first.panels[best])[same])
    is_final = np.broadcast_to(names[0][-1] == names[1][-1], same.shape)
    np.testing.assert_array_equal(np.isfinite(difference.panels[final]), is_final)
    assert np.isfinite(difference.panels[watched]).all()


def test_compare_two_continuations_subtracts_only_the_same_tokens(lens):
    options = {"of": "generation", "options": {"max_new_tokens": 6}, "other_text": "the dog"}
    for chart in lens.view("compare", "the cat", **options).charts:
        if chart.title.startswith("second − first"):
            places = chart.places if hasattr(chart, "places") else chart.tokens
            values = next(iter(chart.lines.values())) if hasattr(chart, "lines") else chart.values
            assert all(math.isnan(value) for place, value in zip(places, values, strict=True) if "/" in place)


def test_scores_are_divided_as_the_model_divides_them(bundle):
    scaled = onnxlens.load(bundle("scaled"), provider="cpu", threads=1)  # by the number of the block, too
    last = scaled.config.n_layers - 1
    *_, table = scaled.view("qkv", TEXT, layer=last, query=-1, key=0).charts
    close(table.rows[1][1], table.rows[2][1])
    products, masked, _ = scaled.view("attention", TEXT, layer=last, head=0, values="steps").charts
    seen = np.isfinite(masked.panels[""])
    close(products.panels[""][seen], masked.panels[""][seen])


def test_flow_counts_all_parameters(lens, bundle):
    for name in ("base", "untied"):
        opened = onnxlens.load(bundle(name), provider="cpu", threads=1)
        table = opened.view("flow", TEXT).charts[-1]
        assert table.rows[-1][2] == sum(value.size for value in opened.runner.bundle.weights.values())


def test_flow_needs_no_open_model_but_has_to_know_which(lens):
    class Unopened(VISUALIZERS["flow"]):
        def draw(self, view):
            unknown = view.cache.with_model(view.lens)
            unknown.facts = None
            with pytest.raises(InputError, match=r"needs to know the model; attach it with cache.with_model\(lens\)"):
                super().draw(dataclasses.replace(view, cache=unknown, lens=None))
            return super().draw(dataclasses.replace(view, lens=None))

    assert lens.view(Unopened(), TEXT).charts[-1].rows == lens.view("flow", TEXT).charts[-1].rows


def test_activation_functions_are_called_by_their_names(bundle):
    shown = onnxlens.load(bundle("scaled"), provider="cpu", threads=1).view("mlp", TEXT).charts
    assert list(shown[0].panels) == ["into the SiLU", "out of the SiLU"]


def test_generation(lens):
    options = {"sampler": "top_k=20", "seed": 3, "max_new_tokens": 5}
    text, sure, entropy, table = lens.view("generation", TEXT, **options).charts
    tokens = list(lens.generate(TEXT, **options))
    assert [visible(one) for one in text.tokens[-len(tokens) :]] == [label(lens, token.id) for token in tokens]
    assert len(table.rows) == len(sure.places) == len(tokens)
    close(text.values[-1], -math.log(table.rows[-1][2]))
    assert entropy.lines["entropy as sampled"].tolist() == [row[4] for row in table.rows]


@pytest.mark.parametrize("name", ["generation", "surprisal", "tokens"])
def test_surprisal_has_the_same_colours_in_every_text(lens, name):
    """A likely token is pale, even where all are likely."""
    shown = lens.view(name, TEXT)
    text = shown.charts[0] if name == "generation" else shown
    assert text.limits == (0.0, 10.0)
    assert text.scale.tint(-math.log(0.94)) == text.scale.tint(0.06) != text.scale.tint(1.0)
    assert "from 0 (light) to 10 or more (dark)" in text.encoded("txt").decode().replace("\n", " ")


def test_probabilities_have_the_same_axes_in_every_picture(lens):
    bars, ladder, _ = lens.view("predictions", TEXT).charts
    sure = lens.view("generation", TEXT, max_new_tokens=3).charts[1]
    assert bars.limits == ladder.limits == sure.limits == (0.0, 1.0)
    assert lens.view("rollout", TEXT).charts[0].limits == (0.0, 1.0)
    assert lens.view("attention", TEXT, layer=0, head=0, values="lines").limits == (0.0, 1.0)


@pytest.mark.parametrize("name", ["generation", "sampling"])
def test_a_text_that_the_model_cannot_read_whole_is_refused(lens, name):
    with pytest.raises(ContextLengthError, match="tokens long, and this model has 48 positions; shorten it"):
        lens.view(name, "a" * 49)
    assert lens.view(name, "a" * 48).encoded("txt")


def test_generation_is_shown_as_it_comes(lens):
    rendering = lens.view("generation", TEXT, max_new_tokens=4, seed=1)
    frames = list(rendering.frames())
    assert len(frames) == 4
    assert len(rendering.charts[-1].rows) == 4
    assert lens.view("attention", TEXT).frames() is None


def test_views_obey_an_enclosing_block(lens):
    with lens.hooks(fwd_hooks=[("hook_embed", lambda values, hook: values * 0)]):
        stripes = lens.view("embedding", TEXT, nearest=0).charts[0]
        changed = lens.view("logit_lens", TEXT)
    assert not stripes.panels[""][0].any()
    assert not is_close(changed.panels["probability of the final prediction"], logit_lens(lens, TEXT).probability)


def test_parts_of_a_changed_stream_still_add_up(lens):
    double = Intervention.scale("blocks.0.hook_resid_post", 2.0)
    with lens.hooks(interventions=double):
        waterfall = lens.view("attribution", TEXT).charts[0]
        lengths, share, _ = lens.view("residual", TEXT).charts
        logits = lens.run(lens.to_tokens(TEXT)).logits[0, -1]
    parts = [value for _, value in waterfall.lists[""]]
    close(sum(parts), logits.max(), scale=parts)
    assert waterfall.lists[""][-1][0] == "changes of the stream"
    assert lengths.rows[-1] == "change"
    close(share.panels[""].sum(0), np.ones(share.panels[""].shape[1]), scale=share.panels[""])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("embedding", {"position": 99}, "position must be one of the text's "),
        ("qkv", {"head": 4}, "head must be one of this model's, -4 to 3, not 4."),
        ("qkv", {"key": -99}, "key must be one of the text's "),
        ("layernorm", {"layer": 2}, "layer must be one of this model's, -2 to 1, not 2."),
        ("layernorm", {"which": "ln_final", "layer": 0}, "ln_final comes after all blocks, so it takes no layer"),
        ("mlp", {"neurons": 0}, "mlp: neurons must be a whole number of at least 1, not 0."),
        ("attribution", {"token": "the cat sat"}, "'the cat sat' is 3 tokens ("),
        ("predictions", {"position": -99}, "position must be one of the text's "),
        ("sampling", {"sampler": "top_q=1"}, "There is no sampler 'top_q'."),
        ("patching", {}, "patching: it needs the option corrupted."),
        ("patching", {"corrupted": "the"}, "corrupted must have as many tokens as the text, "),
        ("compare", {}, "compare needs one of other_text, other_model and interventions, and none of them was given."),
        (
            "compare",
            {"other_text": "a", "other_model": "b"},
            "compare needs one of other_text, other_model and interventions, and other_text and other_model were",
        ),
        ("compare", {"of": "compare", "other_text": "a"}, "compare cannot compare itself"),
        ("compare", {"of": "surprise", "other_text": "a"}, "There is no visualizer 'surprise'."),
        ("compare", {"of": "mlp", "options": {"lair": 1}, "other_text": "a"}, "mlp has no option 'lair'"),
        (
            "generation",
            {"max_new_tokens": 0},
            "generation: max_new_tokens must be a whole number of at least 1, not 0.",
        ),
    ],
)
def test_wrong_options(lens, name, options, expected):
    with pytest.raises((InputError, PluginError)) as caught:
        lens.view(name, TEXT, **options)
    assert str(caught.value).startswith(expected)


def test_every_visualizer_is_tested_here():
    here = globals()
    elsewhere = {"attention", "tokens"}  # in files of their own
    missing = [
        name
        for name in VISUALIZERS
        if name not in elsewhere and not any(test.startswith(f"test_{name}") for test in here)
    ]
    assert missing == []
