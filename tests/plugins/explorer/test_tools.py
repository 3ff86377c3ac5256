"""The tools in Chromium: their numbers are the analyses', by mouse and by keyboard."""

from __future__ import annotations

import re

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE, number

from onnxlens.analysis import ablate_heads, gradient_times_input, head_scores, patch_activations, surprisal
from onnxlens.metrics import logit_difference
from onnxlens.plugins.explorer._requests import RunRequest, SweepRequest

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
OTHER = "When Mary and John went to the shop, Mary gave a drink to"  # which the page proposes
LLAMA_TEXT, LLAMA_OTHER = "the cat sat on the mat", "the cat sat on the cat"
EDIT = {"hook": "blocks.4.attn.hook_z", "operation": "zero", "heads": 1}


def pair(engine, text=TEXT):
    facts = engine.run(RunRequest(text=text, reads=["effects"])).facts
    return facts["token"], facts["against"]


def opened(visit, bundle, name, state):
    """The page with a text for a bundle, its engine and model, and the text."""
    text = TEXT if name is None else LLAMA_TEXT
    page, engine = visit(f"text={text}&{state}", None if name is None else bundle(name))
    return page, engine, engine._models.first, text


def cells(page, testid, shape, count, seed=0):
    """Some cells of a map, chosen by seed, with what the page says about them, read with the keyboard."""
    chosen = page.get_by_test_id(testid)
    chosen.focus()
    found = []
    size = shape[0] * shape[1]
    for place in np.random.default_rng(seed).choice(size, min(count, size), replace=False):
        row, column = divmod(int(place), shape[1])
        for key, times in (("Home", 1), ("PageUp", 1), ("ArrowDown", row), ("ArrowRight", column)):
            for _ in range(times):
                page.keyboard.press(key)
        found.append((row, column, page.get_by_test_id(f"{testid}-said").text_content()))
    return found


@pytest.mark.parametrize("name", [None, "llama"])
def test_the_head_finder_has_each_score_of_each_head(visit, bundle, name):
    page, engine, lens, text = opened(visit, bundle, name, "at=tool:heads")
    token, against = pair(engine, text)
    page.locator("[data-testid^=induction-]").first.get_by_text(".").wait_for()
    page.locator("[data-testid^=ablation-]").first.get_by_text(".").wait_for()
    if lens.config.n_layers * lens.config.n_heads > 16:
        page.get_by_test_id("heads-table-all").click()
    known = head_scores(lens, length=min(50, (lens.config.n_ctx - 1) // 2))
    here = engine.sweep(SweepRequest(text=text, kind="head_scores")).arrays
    expected = {
        "effect": engine.run(RunRequest(text=text, reads=["effects"])).arrays["effects.heads"],
        "ablation": -ablate_heads(lens, text, logit_difference(token, against)).effects,
        "induction": known.induction,
        "previous_token": known.previous,
        "duplicate_token": known.duplicate,
        "distance": here["distance"],
        "entropy": here["entropy"],
    }
    for score, values in expected.items():
        for layer, head in np.ndindex(values.shape):
            shown = number(page.get_by_test_id(f"{score}-{layer}-{head}").text_content())
            assert shown == pytest.approx(float(values[layer, head]), abs=0.0051), (score, layer, head)


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_heads_are_sorted_from_either_end_and_open(visit, way):
    page, engine = visit("at=tool:heads")
    scores = head_scores(engine._models.first).induction
    page.locator("[data-testid^=induction-]").first.get_by_text(".").wait_for()
    heading = page.get_by_test_id("by-induction")

    def press():
        if way == "mouse":
            heading.click()
        else:
            heading.press("Enter")

    first = page.get_by_test_id("heads-table").locator("tbody th").first
    press()
    assert first.text_content() == "{}.{}".format(*np.unravel_index(scores.argmax(), scores.shape))
    assert heading.locator("xpath=..").get_attribute("aria-sort") == "descending"
    press()
    assert heading.locator("xpath=..").get_attribute("aria-sort") == "ascending"
    layer, head = map(int, first.text_content().split("."))
    assert scores[layer, head] <= scores.min() + 0.001
    if way == "mouse":
        first.get_by_role("button").click()
        assert f"at=head:{layer},{head}" in page.url
    else:
        page.get_by_test_id("heads-map").focus()  # its cursor is at the largest value
        page.keyboard.press("Enter")
        assert "at=head:{},{}".format(*np.unravel_index(scores.argmax(), scores.shape)) in page.url


@pytest.mark.parametrize("name", [None, "llama"])
@pytest.mark.parametrize(
    "kind", ["ablate_heads", "ablate_mlps", "patch_resid_pre", "patch_attn_out", "patch_mlp_out", "patch_heads"]
)
def test_each_sweep_is_a_map_of_the_analysis(visit, bundle, name, kind):
    page, engine, lens, text = opened(visit, bundle, name, "at=tool:sweeps")
    metric = logit_difference(*pair(engine, text))
    page.get_by_test_id("sweep-kind").select_option(kind)
    is_patch = kind.startswith("patch")
    if is_patch:
        page.get_by_test_id("sweep-other").fill(OTHER if name is None else LLAMA_OTHER)
    page.get_by_test_id("sweep-run").click()
    page.get_by_test_id("sweep-map").wait_for()
    if is_patch:
        hook = "z" if kind == "patch_heads" else kind.removeprefix("patch_")
        found = patch_activations(lens, text, OTHER if name is None else LLAMA_OTHER, metric, hook=hook)
        expected = 100 * found.recovered
        shown = re.findall(r"is ([+−][\d.]+) in|and ([+−][\d.]+) in", page.get_by_test_id("sweep-facts").text_content())
        values = [number(one or other) for one, other in shown]
        assert values == pytest.approx([found.clean, found.corrupted], abs=0.0051)
    else:
        ablation = ablate_heads(lens, text, metric, hook="z" if kind == "ablate_heads" else "mlp_out")
        expected = np.atleast_2d(-ablation.effects.T).T
        shown = number(page.get_by_test_id("sweep-facts").text_content().rpartition(" is ")[2])
        assert shown == pytest.approx(ablation.baseline, abs=0.0051)
    for row, column, said in cells(page, "sweep-map", expected.shape, 12):
        assert said.startswith(f"block {row}, ")
        assert number(said.rpartition(":")[2]) == pytest.approx(
            expected[row, column], abs=0.51 if is_patch else 0.0051
        ), said


def test_a_click_on_a_map_goes_to_the_place(visit):
    page, _ = visit("at=tool:sweeps")
    page.get_by_test_id("sweep-run").click()
    canvas = page.get_by_test_id("sweep-map").locator("canvas")
    canvas.wait_for()
    box = canvas.bounding_box()
    at = {"x": (9.5 / 14) * box["width"], "y": (2.5 / 5) * box["height"]}
    canvas.hover(position=at)
    assert page.get_by_test_id("sweep-map-said").text_content().startswith("block 2, 9 ")
    canvas.click(position=at)
    assert "at=cell:2,9" in page.url


def test_the_page_proposes_a_text_to_patch_from(visit):
    page, _ = visit("at=tool:sweeps")
    page.get_by_test_id("sweep-compare").wait_for()
    assert page.get_by_test_id("sweep-other").input_value() == OTHER
    page.get_by_test_id("sweep-compare").click()
    page.get_by_test_id("comparison").wait_for()
    assert "other=When+Mary+and+John+went+to+the+shop,+Mary" in page.url
    assert page.get_by_test_id("sweep-other").input_value() == OTHER


def test_a_sweep_can_be_stopped(visit):
    page, _ = visit("at=tool:sweeps")
    page.get_by_test_id("sweep-compare").wait_for()
    page.route("**/api/sweep", lambda route: None)  # which is never answered
    page.get_by_test_id("sweep-run").click()
    page.get_by_role("progressbar").wait_for()
    page.get_by_test_id("sweep-stop").click()
    page.get_by_test_id("sweep-run").wait_for()
    assert page.get_by_test_id("sweep-map").count() == 0
    assert page.get_by_role("alert").filter(has_text=".").count() == 0


def test_a_map_of_another_run_says_so(visit):
    page, _ = visit("at=tool:sweeps")
    page.get_by_test_id("sweep-kind").select_option("ablate_heads")
    page.get_by_test_id("sweep-run").click()
    page.get_by_test_id("sweep-map").wait_for()
    page.get_by_test_id("text").fill("When Mary and Tom went to the shop, Tom gave a drink to")
    page.get_by_test_id("sweep-facts").get_by_text("another run").wait_for()


def test_texts_of_different_lengths_cannot_be_patched_and_the_page_says_so(visit):
    page, _ = visit("at=tool:sweeps")
    page.get_by_test_id("sweep-other").fill("too short")
    page.get_by_test_id("sweep-other").press("Enter")
    page.get_by_role("alert").get_by_text("tokens").wait_for()


@pytest.mark.parametrize("name", [None, "llama"])
def test_surprisal_is_in_bits(visit, bundle, name):
    page, _, lens, text = opened(visit, bundle, name, "at=tool:surprisal")
    expected = surprisal(lens, text)
    page.get_by_test_id(f"surprisal-{len(expected.values)}").wait_for()
    for place, value in enumerate(expected.values, 1):
        label = page.get_by_test_id(f"surprisal-{place}").get_attribute("aria-label")
        assert number(label.rpartition(" ")[0].rpartition(" ")[2]) == pytest.approx(value / np.log(2), abs=0.0051)
    said = page.get_by_test_id("surprisal-mean").text_content()
    mean, perplexity = (float(one) for one in re.findall(r"\d+\.\d+", said))
    assert mean == pytest.approx(expected.values.mean() / np.log(2), abs=0.0051)
    assert perplexity == pytest.approx(np.exp(expected.values.mean()), rel=1e-3, abs=0.051)
    largest = max(4, expected.values.max() / np.log(2))
    legend = page.get_by_test_id("surprisal-legend").text_content()
    assert float(re.findall(r"\d+\.\d+", legend)[0]) == pytest.approx(largest, abs=0.051)


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_a_token_of_the_surprisal_names_what_was_expected_and_is_explained(visit, way):
    page, engine = visit("at=tool:surprisal")
    expected = surprisal(engine._models.first, TEXT)
    page.get_by_test_id("surprisal-5").wait_for()
    if way == "mouse":
        page.get_by_test_id("surprisal-5").click()
    else:
        page.get_by_test_id("surprisal-0").focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
    assert f"rank {expected.rank[4] + 1}." in page.get_by_test_id("surprisal-said").text_content()
    page.get_by_test_id("surprisal-expected").wait_for()
    assert "position=4" in page.url
    answer = engine.run(RunRequest(text=TEXT, reads=["next"], position=4))
    logits = answer.arrays["next.logits"].astype(np.float64)
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    items = page.get_by_test_id("surprisal-expected").locator("li").all_text_contents()
    for one, said in zip(answer.arrays["next.ids"][:5].tolist(), items, strict=True):
        assert said.startswith(answer.facts["labels"][str(one)].replace(" ", "␣"))
        assert number(said.rpartition(" %")[0].rpartition(" ")[2]) == pytest.approx(100 * shares[one], rel=0.06)


def test_surprisal_of_a_long_text(visit):
    text = " ".join([TEXT + " Mary."] * 14)
    page, engine = visit(f"text={text}&at=tool:surprisal")
    expected = surprisal(engine._models.first, text)
    count = len(expected.values)
    assert count > 200
    page.get_by_test_id(f"surprisal-{count}").wait_for()
    assert page.locator("[data-testid^=surprisal-][tabindex='0']").count() == 1  # the others are reached by arrows
    for place in np.random.default_rng(0).choice(count, 20, replace=False).tolist():
        label = page.get_by_test_id(f"surprisal-{place + 1}").get_attribute("aria-label")
        shown = number(label.rpartition(" ")[0].rpartition(" ")[2])
        assert shown == pytest.approx(expected.values[place] / np.log(2), abs=0.0051)


def test_a_text_of_one_token_has_no_surprisal(visit):
    page, _ = visit("text=Once&at=tool:surprisal")
    assert "no predictions" in page.get_by_test_id("surprisal-mean").text_content()


@pytest.mark.parametrize("name", [None, "base-gradients"])
def test_gradients_where_the_bundle_has_them(visit, bundle, name):
    page, engine, lens, text = opened(visit, bundle, name, "at=tool:gradient")
    metric = logit_difference(*pair(engine, text))
    expected = next(iter(gradient_times_input(lens, text, metric).scores.values()))[0]
    page.get_by_test_id("gradient-0").wait_for()
    shown = [number(page.get_by_test_id(f"gradient-{one}").text_content()) for one in range(len(expected))]
    assert shown == pytest.approx(expected.tolist(), abs=5.1e-4)
    total = number(page.get_by_test_id("gradient-sum").text_content())
    assert total == pytest.approx(float(expected.sum(dtype=np.float64)), abs=6e-4)
    page.get_by_test_id("gradient-token-1").press("Enter")
    assert "at=token:1" in page.url


def test_a_bundle_without_gradients_says_how_to_get_them(visit, bundle):
    page, _ = visit("text=the cat&at=tool:gradient", bundle("base"))
    assert "--gradients" in page.get_by_test_id("no-gradients").text_content()


def metric(value):
    """A number with three digits and a prefix, as the page writes it."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            scaled = float(f"{value / size:.3g}")
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {prefix}"
    return str(value)


@pytest.mark.parametrize("name", [None, "llama"])
def test_costs_are_counted_and_measured(visit, bundle, name):
    page, engine, lens, text = opened(visit, bundle, name, "at=tool:costs")
    page.get_by_test_id("costs").wait_for()
    parts = engine.run(RunRequest(text=text, reads=["costs"])).facts["costs"]["parts"]
    for kind in {one["part"].rpartition(".")[2] for one in parts}:
        total = sum(one["multiply_adds"] for one in parts if one["part"].rpartition(".")[2] == kind)
        assert page.get_by_test_id(f"cost-{kind}").text_content() == metric(total)
        assert re.fullmatch(r"[\d.]+ (ms|µs)", page.get_by_test_id(f"seconds-{kind}").text_content())
    whole, cached = (sum(one[entry] for one in parts) for entry in ("multiply_adds", "multiply_adds_cached"))
    assert page.get_by_test_id("cost-total").text_content() == metric(whole)
    said = page.get_by_test_id("cache-saves").text_content()
    assert "KV cache" in said and f"with {whole / cached:.1f} times fewer multiply-adds" in said
    totals = page.get_by_test_id("costs").locator("tfoot").text_content()
    assert metric(lens.runner.bundle.manifest.parameters) in totals


def test_the_cost_of_a_text_that_fills_the_model(visit, bundle):
    limit = 48
    page, engine = visit(f"ids={'.'.join(['7'] * limit)}&text=x&at=tool:costs", bundle("base"))
    assert engine._models.first.config.n_ctx == limit
    page.get_by_test_id("costs").wait_for()
    assert f"fills the {limit} positions" in page.get_by_test_id("cache-saves").text_content()


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_a_visualizer_is_shown_with_its_options(visit, way):
    page, _ = visit(f"at=tool:views&edits={[EDIT]!r}".replace("'", '"'))
    page.get_by_test_id("visualizer").select_option("mlp")
    page.get_by_test_id("option-layer").fill("4")
    page.get_by_test_id("option-neurons").fill("3")
    if way == "mouse":
        page.get_by_test_id("draw-view").click()
    else:
        page.get_by_test_id("option-neurons").press("Enter")
    frame = page.frame_locator("[data-testid=view]")
    frame.locator("svg.main-svg").first.wait_for()  # Plotly has drawn
    assert "MLP of block 4" in frame.locator("h1").text_content()
    assert "the 3 strongest" in frame.locator("h1").text_content()
    page.get_by_test_id("visualizer").select_option("attention")
    assert page.get_by_test_id("option-layer").input_value() == ""
    page.get_by_test_id("option-values").select_option("scores")


def test_the_error_of_a_visualizer_is_shown(visit):
    page, _ = visit("at=tool:views")
    page.get_by_test_id("visualizer").select_option("patching")
    page.get_by_test_id("draw-view").click()
    assert page.get_by_test_id("option-corrupted").evaluate("field => field.validity.valueMissing")
    page.get_by_test_id("option-corrupted").fill("short")
    page.get_by_test_id("draw-view").click()
    page.get_by_role("alert").get_by_text("tokens").wait_for()


def test_a_visualizer_is_in_a_frame_that_reaches_nothing(visit):
    page, _ = visit("at=tool:views", allowed="Content Security Policy")  # which refuses what is tried below
    page.get_by_test_id("visualizer").select_option("attention")
    page.get_by_test_id("draw-view").click()
    frame = page.frame_locator("[data-testid=view]")
    frame.locator("h1, h2").first.wait_for()
    assert page.get_by_test_id("view").get_attribute("sandbox") == "allow-scripts"
    inner = next(one for one in page.frames if one != page.main_frame)
    tries = {
        "parent.document.title": "SecurityError",
        "parent.location.hash": "SecurityError",
        "top.localStorage": "SecurityError",
        "localStorage": "SecurityError",
        "document.cookie": "SecurityError",
    }
    for tried, refused in tries.items():
        code = f"(() => {{ try {{ return String({tried}); }} catch (error) {{ return error.name; }} }})()"
        assert inner.evaluate(code) == refused, tried
    assert inner.evaluate("fetch('/api/models').then(() => 'reached', () => 'refused')") == "refused"
    assert inner.evaluate("origin") == "null"
