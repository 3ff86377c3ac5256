"""The page in Chromium: its numbers are the engine's, by mouse and by keyboard, in both languages."""

from __future__ import annotations

import re

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE, number

from onnxlens.plugins.explorer._requests import RunRequest, TokenizeRequest

READS = ["next", "guesses", "effects", "sources"]
pytestmark = NEEDS_PAGE


@pytest.mark.parametrize("name", [None, "llama", "base-float16"])
def test_the_numbers_are_the_engines(visit, bundle, name):
    folder = None if name is None else bundle(name)
    text = "When Mary and John went to the shop, John gave a drink to" if name is None else "the cat sat on the mat"
    page, engine = visit(f"text={text}", folder)
    answer = engine.run(RunRequest(text=text, reads=READS))
    heads, sources = answer.arrays["effects.heads"], answer.arrays["sources"]
    chosen = np.unravel_index(np.abs(heads).argmax(), heads.shape)
    for layer, head in np.ndindex(heads.shape):
        button = page.get_by_test_id(f"head-{layer}-{head}")
        assert abs(number(button.get_attribute("aria-label").partition(":")[2]) - heads[layer, head]) <= 0.00501
        assert (button.get_attribute("aria-pressed") == "true") == ((layer, head) == chosen)
    for state, position in np.ndindex(answer.arrays["guesses.ids"].shape[:2]):
        cell = page.get_by_test_id(f"cell-{state}-{position}")
        best = answer.facts["labels"][str(answer.arrays["guesses.ids"][state, position, 0])]
        label, share = cell.locator("span").all_text_contents()
        assert label == best.replace(" ", "␣")
        assert abs(float(share) - 100 * answer.arrays["guesses.probabilities"][state, position, 0]) <= 0.501
    assert abs(number(page.get_by_test_id("difference").text_content()) - answer.facts["effects"]["logit"]) <= 0.00501
    page.get_by_test_id("arithmetic").wait_for()
    for key in range(sources.shape[2]):
        shown = number(page.get_by_test_id(f"source-{key}").text_content())
        assert abs(shown - sources[(*chosen, key)]) <= 0.00501
    logits = answer.arrays["next.logits"].astype(np.float64)
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    for one in answer.arrays["next.ids"].tolist()[:8]:
        assert number(page.get_by_test_id(f"next-{one}").text_content()) == pytest.approx(
            100 * probabilities[one], rel=0.06
        )
    page.get_by_test_id("top_p").fill("0.9")
    count = int((np.cumsum(-np.sort(-probabilities)) < 0.9).sum()) + 1
    assert page.get_by_test_id("nucleus").text_content().startswith(f"{count} of {len(logits)} ")


def test_the_arithmetic_of_a_pair_adds_up(visit):
    page, engine = visit("at=head:4,1,13,1")
    line = page.get_by_test_id("arithmetic")
    line.wait_for()
    total, divisor, score, count, share = map(float, re.findall(r"-?[\d.]+", line.text_content().replace("−", "-")))
    assert total / divisor == pytest.approx(score, abs=0.01)
    text = "When Mary and John went to the shop, John gave a drink to"
    cache = engine.run(RunRequest(text=text, reads=["blocks.4.attn.*"])).arrays
    assert score == pytest.approx(float(cache["blocks.4.attn.hook_attn_scores"][1, -1, 1]), abs=0.01)
    assert share == pytest.approx(100 * float(cache["blocks.4.attn.hook_pattern"][1, -1, 1]), abs=0.06)
    assert count == 14


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_a_head_is_switched_off_and_on(visit, way):
    page, engine = visit("at=head:4,1")
    page.get_by_test_id("head-line").wait_for()
    toggle = (
        (lambda: page.get_by_role("button", name="(X)").click())
        if way == "mouse"
        else (lambda: page.keyboard.press("x"))
    )
    toggle()
    sentence = page.get_by_test_id("sentence")
    sentence.wait_for()
    edit = {"hook": "blocks.4.attn.hook_z", "operation": "zero", "heads": 1}
    text = "When Mary and John went to the shop, John gave a drink to"
    before = engine.run(RunRequest(text=text, reads=READS))
    after = engine.run(
        RunRequest(text=text, reads=READS, edits=[edit], token=before.facts["token"], against=before.facts["against"])
    )
    shown = [number(one) for one in re.findall(r"[+−][\d.]+", sentence.text_content())]
    assert shown == pytest.approx([one.facts["effects"]["logit"] for one in (before, after)], abs=0.00501)
    assert "zero" in page.url
    toggle()
    sentence.wait_for(state="detached")


def test_typing_updates_the_board_and_the_address(visit):
    page, _ = visit()
    page.get_by_test_id("text").fill("Once upon a time")
    page.get_by_test_id("cell-5-4").wait_for(state="detached")
    assert page.get_by_test_id("cell-5-3").is_visible()
    assert "text=Once+upon+a+time" in page.url
    page.get_by_test_id("next").click()
    page.get_by_test_id("cell-5-4").wait_for()


def test_arrow_keys_move_between_cells(visit):
    page, _ = visit()
    page.get_by_test_id("cell-5-13").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.get_by_test_id("guess-0").wait_for()
    assert page.evaluate("document.activeElement.id") == "cell-4-12"
    assert "at=cell:4,12" in page.url


def test_the_page_speaks_chinese(visit):
    page, _ = visit("lang=zh")
    assert page.evaluate("document.documentElement.lang") == "zh"
    assert "接下来是什么" in page.locator("aside").text_content()
    page.get_by_label("语言").select_option("en")
    assert "What comes next?" in page.locator("aside").text_content()


def test_hostile_text_is_inert(visit):
    text = "<img src=x onerror=alert(1)> {{7*7}} ${x} \u202e"
    page, _ = visit()
    page.get_by_test_id("text").fill(text)
    page.get_by_test_id("cell-5-20").wait_for()
    assert page.locator("img").count() == 0


def test_an_error_of_the_server_is_a_sentence_on_the_page(visit):
    page, _ = visit()
    page.get_by_test_id("text").fill("a " * 400)
    page.get_by_role("alert").get_by_text("positions; shorten it").wait_for()


def test_a_phone_has_room(visit):
    page, _ = visit(viewport={"width": 360, "height": 780})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_address_holds_what_is_set_in_tools_and_panels(visit):
    page, _ = visit("text=When Mary and John went to the shop, John gave a drink to")
    page.get_by_test_id("stage-scaled").check()
    page.get_by_test_id("numbers").check()
    for name, value in (("temperature", "0.5"), ("top_k", "20"), ("min_p", "0.1"), ("seed", "7")):
        page.get_by_test_id(name).fill(value)
    page.get_by_test_id("tool-steer").click()
    page.get_by_test_id("steer-text").fill("love")
    page.get_by_test_id("steer-factor").fill("-2")
    page.get_by_test_id("tool-sweeps").click()
    page.get_by_test_id("sweep-kind").select_option("patch_heads")
    page.get_by_test_id("sweep-other").fill("When Mary and Tom went to the shop, Mary gave a drink to")
    page.wait_for_url(lambda address: "Tom" in address)
    page.reload()
    page.get_by_test_id("sweep-kind").wait_for()
    assert page.get_by_test_id("sweep-kind").input_value() == "patch_heads"
    assert "Tom" in page.get_by_test_id("sweep-other").input_value()
    for name, value in (("temperature", "0.5"), ("top_k", "20"), ("top_p", "1"), ("min_p", "0.1"), ("seed", "7")):
        assert page.get_by_test_id(name).input_value() == value
    page.get_by_test_id("tool-steer").click()
    assert page.get_by_test_id("steer-text").input_value() == "love"
    assert page.get_by_test_id("steer-factor").input_value() == "-2"
    page.get_by_test_id("head-4-1").click()
    assert page.get_by_test_id("stage-scaled").is_checked() and page.get_by_test_id("numbers").is_checked()


def test_settings_of_a_broken_link_are_as_they_begin(visit):
    options = '{"temperature":-5,"top_p":"x","stage":"moon","numbers":7,"seed":1.5,"chain":3,"__proto__":{"min_p":1}}'
    page, _ = visit(f"text=a dog&options={options}")
    page.get_by_test_id("stage-shares").wait_for()
    for name, value in (("temperature", "1"), ("top_p", "1"), ("min_p", "0"), ("seed", "")):
        assert page.get_by_test_id(name).input_value() == value
    assert page.get_by_test_id("stage-shares").is_checked() and not page.get_by_test_id("numbers").is_checked()


def test_x_works_while_a_slider_has_the_focus_and_the_kind_of_a_head_stays(visit):
    page, _ = visit("text=When Mary and John went to the shop, John gave a drink to")
    kind = page.get_by_test_id("kind")
    kind.wait_for()
    said = kind.text_content()
    assert "“␣to” looks most at “␣Mary”" in page.get_by_test_id("kind-else").text_content()
    assert not page.get_by_test_id("with-sliders").count()
    page.get_by_test_id("temperature").fill("1.5")
    page.get_by_test_id("temperature").focus()
    page.keyboard.press("x")
    page.get_by_test_id("sentence").wait_for()
    page.get_by_text("Measured without your edits.").wait_for()
    assert kind.text_content() == said
    assert page.get_by_test_id("with-sliders").count()
    page.get_by_test_id("text").focus()
    page.keyboard.press("End")
    page.keyboard.type("x")  # a letter
    page.get_by_test_id("model").get_by_text("tokens: 15").wait_for()
    assert page.get_by_test_id("sentence").count()


def test_back_goes_to_what_was_looked_at_before(visit):
    page, _ = visit("text=a dog and a cat")
    for name in ("heads", "costs"):
        page.get_by_test_id(f"tool-{name}").click()
        page.wait_for_url(f"**at=tool:{name}")
    page.go_back()
    page.get_by_test_id("heads-table").wait_for()
    page.go_back()
    page.get_by_test_id("head-line").wait_for()
    page.go_forward()
    page.get_by_test_id("heads-table").wait_for()
    assert page.get_by_test_id("text").input_value() == "a dog and a cat"


def test_the_board_of_an_earlier_text_is_shown_as_such(visit):
    page, _ = visit("text=a dog and a cat")
    page.get_by_test_id("text").fill("word " * 300)
    page.get_by_role("alert").get_by_text("301 tokens long").wait_for()
    assert "stale" in page.locator("main").get_attribute("class")
    page.get_by_test_id("text").fill("a dog")
    page.get_by_test_id("model").get_by_text(re.compile(r"tokens: 2\b")).wait_for()
    assert "stale" not in page.locator("main").get_attribute("class")


def test_a_word_is_explained_with_its_space_if_that_is_more_probable(visit):
    page, engine = visit("text=When Mary and John went to the shop, John gave a drink to")
    page.get_by_test_id("ask").fill("John")
    page.get_by_test_id("ask").press("Enter")
    (token,) = engine.tokenize(TokenizeRequest(text=" John"))["tokens"]
    page.wait_for_url(lambda address: f"&token={token['id']}" in address)
