"""The tools and the tour in Chromium: their numbers are the analyses'."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE, number

from onnxlens.analysis import ablate_heads, gradient_times_input, head_scores, patch_activations, surprisal
from onnxlens.metrics import logit_difference
from onnxlens.plugins.explorer._requests import RunRequest

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
OTHER = "When Mary and Tom went to the shop, Mary gave a drink to"
WEB = Path(__file__).parents[3] / "plugins" / "explorer" / "web"


def pair(engine, text=TEXT):
    facts = engine.run(RunRequest(text=text, reads=["effects"])).facts
    return facts["token"], facts["against"]


def test_the_head_finder_ranks_by_each_score(visit):
    page, engine = visit("at=tool:heads")
    lens = engine._models.first
    page.get_by_test_id("induction-4-1").get_by_text(".").wait_for()
    scores = head_scores(lens)
    ablation = -ablate_heads(lens, TEXT, logit_difference(*pair(engine))).effects
    for layer, head in np.ndindex(scores.induction.shape):
        for name, values in (
            ("induction", scores.induction),
            ("previous_token", scores.previous),
            ("ablation", ablation),
        ):
            shown = number(page.get_by_test_id(f"{name}-{layer}-{head}").text_content())
            assert shown == pytest.approx(float(values[layer, head]), abs=0.0051)
    page.get_by_test_id("by-induction").click()
    first = page.get_by_test_id("heads-table").locator("tbody th").first.text_content()
    assert first == "{}.{}".format(*np.unravel_index(scores.induction.argmax(), scores.induction.shape))
    page.get_by_test_id("heads-map").focus()
    page.keyboard.press("Enter")
    assert f"at=head:{first.replace('.', ',')}" in page.url


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_a_patching_sweep_is_a_map(visit, way):
    page, engine = visit("at=tool:sweeps")
    page.get_by_test_id("sweep-other").fill(OTHER)
    if way == "mouse":
        page.get_by_test_id("sweep-run").click()
    else:
        page.get_by_test_id("sweep-other").press("Enter")
    page.get_by_test_id("sweep-map").wait_for()
    found = patch_activations(engine._models.first, TEXT, OTHER, logit_difference(*pair(engine))).recovered
    row, column = np.unravel_index(np.abs(found).argmax(), found.shape)
    said = page.get_by_test_id("sweep-map-said").text_content()
    assert said.startswith(f"block {row}, {column} ")
    assert number(said.rpartition(":")[2]) == pytest.approx(100 * found[row, column], abs=0.51)
    page.get_by_test_id("sweep-map").focus()
    page.keyboard.press("ArrowRight")
    said = page.get_by_test_id("sweep-map-said").text_content()
    assert said.startswith(f"block {row}, {column + 1} ")
    assert number(said.rpartition(":")[2]) == pytest.approx(100 * found[row, column + 1], abs=0.51)


def test_texts_of_different_lengths_cannot_be_patched_and_the_page_says_so(visit):
    page, _ = visit("at=tool:sweeps")
    page.get_by_test_id("sweep-other").fill("too short")
    page.get_by_test_id("sweep-run").click()
    page.get_by_role("alert").get_by_text("tokens").wait_for()


def test_surprisal_is_in_bits(visit):
    page, engine = visit("at=tool:surprisal")
    expected = surprisal(engine._models.first, TEXT)
    page.get_by_test_id("surprisal-13").wait_for()
    for place, value in enumerate(expected.values, 1):
        label = page.get_by_test_id(f"surprisal-{place}").get_attribute("aria-label")
        assert number(label.rpartition(" ")[0].rpartition(" ")[2]) == pytest.approx(value / np.log(2), abs=0.0051)
    page.get_by_test_id("surprisal-5").click()
    said = page.get_by_test_id("surprisal-said").text_content()
    assert f"rank {expected.rank[4] + 1}." in said


def test_gradients_where_the_bundle_has_them(visit, bundle):
    page, engine = visit("text=the cat sat&at=tool:gradient", bundle("base-gradients"))
    metric = logit_difference(*pair(engine, "the cat sat"))
    expected = next(iter(gradient_times_input(engine._models.first, "the cat sat", metric).scores.values()))[0]
    page.get_by_test_id("gradient-0").wait_for()
    shown = [number(page.get_by_test_id(f"gradient-{one}").text_content()) for one in range(len(expected))]
    assert shown == pytest.approx(expected.tolist(), abs=5.1e-4)


def test_a_bundle_without_gradients_says_how_to_get_them(visit, bundle):
    page, _ = visit("text=the cat&at=tool:gradient", bundle("base"))
    assert "--gradients" in page.get_by_test_id("no-gradients").text_content()


def test_costs_are_counted(visit):
    page, engine = visit("at=tool:costs")
    page.get_by_test_id("costs").wait_for()
    config = engine._models.first.config
    mlps = config.n_layers * 14 * 2 * config.d_model * config.d_mlp
    assert page.get_by_test_id("cost-mlp").text_content() == f"{mlps / 1e6:.1f} M"
    assert "KV cache" in page.get_by_test_id("cache-saves").text_content()


def test_a_visualizer_is_shown_in_a_frame_that_reaches_nothing(visit):
    page, _ = visit("at=tool:views", allowed="Content Security Policy")  # which refuses what is tried below
    page.get_by_test_id("visualizer").select_option("attention")
    page.get_by_test_id("draw-view").click()
    frame = page.frame_locator("[data-testid=view]")
    frame.locator("h1, h2").first.wait_for()
    assert "attention pattern" in frame.locator("body").text_content()
    inner = next(one for one in page.frames if one != page.main_frame)
    assert inner.evaluate(
        "(() => { try { return parent.document.title; } catch (error) { return error.name; } })()"
    ) == ("SecurityError")
    assert inner.evaluate("fetch('/api/models').then(() => 'reached', () => 'refused')") == "refused"


LANGUAGES = {code: json.loads((WEB / f"src/lang/{code}/tour.json").read_text()) for code in ("en", "zh")}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", [None, "llama"])
def test_the_tour_says_what_holds_for_the_model_in_each_language(visit, bundle, language, name):
    text = TEXT if name is None else "the cat sat on the mat"
    page, engine = visit(f"lang={language}&text={text}", None if name is None else bundle(name))
    page.get_by_test_id("tour-start").click()
    texts = LANGUAGES[language]
    steps = []
    for number_of_step in range(16):
        step = page.get_by_test_id("tour").get_attribute("data-step")
        steps.append(step)
        page.wait_for_timeout(350)
        said = page.get_by_test_id("tour-text").text_content()
        forms = [value for key, value in texts.items() if key.startswith(f"tour-{step}-") and not key.endswith("title")]
        patterns = [re.sub(r"\\{\w+\\}", ".+", re.escape(form)) for form in forms]
        assert any(re.fullmatch(one, said, re.S) for one in patterns), said
        assert f"tour={number_of_step}" in page.url
        if step == "tokens":
            tokens = engine.run(RunRequest(text=text, reads=["norms"])).facts["tokens"]
            assert str(len(tokens)) in said and str(tokens[1]["id"]) in said
        if step == "attention":
            layer, head, query, key = map(int, re.search(r"at=head:(\d+),(\d+),(\d+),(\d+)", page.url).groups())
            address = f"blocks.{layer}.attn.hook_pattern[{head},{query},{key}]"
            share = float(engine.run(RunRequest(text=text, reads=[address])).arrays[address])
            assert any(abs(float(one) - 100 * share) < 0.06 for one in re.findall(r"(\d+\.\d+) %", said))
        page.get_by_test_id("tour-next").click()
    assert len(set(steps)) == 16
    page.get_by_test_id("tour").wait_for(state="detached")


def test_a_step_of_the_tour_goes_on_when_its_action_is_done(visit):
    page, _ = visit("tour=13")
    assert page.get_by_test_id("tour").get_attribute("data-step") == "sampling"
    page.get_by_test_id("temperature").fill("1.5")
    page.locator("[data-testid=tour][data-step=break]").wait_for()
    page.locator("h1").click()
    page.keyboard.press("x")
    page.locator("[data-testid=tour][data-step=end]").wait_for()
    page.get_by_test_id("tour-text").get_by_text("went from").wait_for()
    page.get_by_test_id("tour-back").click()
    page.locator("[data-testid=tour][data-step=break]").wait_for()
    page.get_by_test_id("tour-skip").click()
    page.get_by_test_id("tour").wait_for(state="detached")
