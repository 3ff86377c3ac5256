"""Generation on the page: the draws are Python's, and nothing that was generated is lost."""

from __future__ import annotations

import re

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE, number

from onnxlens.plugins.explorer._requests import RunRequest

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
PROMPT = "Once upon a time"


def shown_ids(page):
    found = re.search(r"ids=([\d.]+)", page.url)
    return [int(one) for one in found[1].split(".")] if found else None


def press(page, test_id, way="mouse"):
    if way == "mouse":
        page.get_by_test_id(test_id).click()
    else:
        page.get_by_test_id(test_id).focus()
        page.keyboard.press("Enter")


def set_slider(page, name, value):
    page.get_by_test_id(name).fill(str(value))


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_the_same_seed_gives_the_tokens_of_python(visit, way):
    page, engine = visit(f"text={PROMPT}")
    set_slider(page, "temperature", 0.8)
    set_slider(page, "top_k", 40)
    page.get_by_test_id("seed").fill("7")
    page.get_by_label("How many tokens").fill("6")
    press(page, "generate", way)
    lens = engine._models.first
    expected = lens.generate(PROMPT, max_new_tokens=6, sampler="temperature=0.8 | top_k=40 | multinomial", seed=7)
    ids = [*lens.to_tokens(PROMPT)[0].tolist(), *expected.ids]
    page.get_by_test_id("model").get_by_text(re.compile(rf"tokens: {len(ids)}\b")).wait_for()
    page.get_by_test_id("generate").wait_for()
    assert shown_ids(page) == ids


@pytest.mark.parametrize(
    "shape", [{"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.1}, {"temperature": 1.5, "top_p": 0.8}]
)
def test_the_sliders_keep_what_the_samplers_keep(visit, shape):
    page, engine = visit(f"text={PROMPT}")
    for name, value in shape.items():
        set_slider(page, name, value)
    chain = " | ".join(f"{name}={value}" for name, value in shape.items())
    found = engine.run(RunRequest(text=PROMPT, reads=["chain"], sampler=f"{chain} | multinomial", seed=0)).facts[
        "chain"
    ]
    assert number(page.get_by_test_id("nucleus").text_content()) == found["tokens"]
    explained = engine._models.first.explain_sampling(PROMPT, sampler=f"{chain} | multinomial", seed=0)
    for one in explained.candidates[:3]:
        share = number(page.get_by_test_id(f"next-{one.id}").text_content())
        assert share == pytest.approx(100 * one.probability, rel=0.006)


def test_a_draw_shows_the_random_number_and_where_it_fell(visit):
    page, engine = visit(f"text={PROMPT}")
    page.get_by_test_id("seed").fill("5")
    press(page, "draw")
    page.get_by_test_id("drawn").wait_for()
    said = page.get_by_test_id("drawn").text_content()
    expected = engine._models.first.explain_sampling(PROMPT, sampler="multinomial", seed=5)
    shown = [float(one) for one in re.findall(r"0\.\d{4}", said)]
    assert shown == pytest.approx([expected.number, *expected.interval], abs=5.1e-5)


def test_the_stages_of_a_chain_are_those_of_python(visit):
    page, engine = visit(f"text={PROMPT}&at=tool:sampling")
    chain = "repetition_penalty=1.3 | top_k=8 | temperature=0.7"
    page.get_by_test_id("chain").fill(chain)
    page.get_by_text("RepetitionPenalty").wait_for()
    found = engine.run(RunRequest(text=PROMPT, reads=["chain"], top=10, sampler=chain, seed=0)).facts["chain"]
    rows = page.get_by_test_id("stages").locator("tbody tr")
    for row, first in enumerate(found["logits"]):
        cells = rows.nth(row).locator("td").all_text_contents()
        assert number(cells[0]) == pytest.approx(first["logit"], abs=5.1e-4)
        for stage, logit, share in zip(found["stages"], cells[2::2], cells[3::2], strict=True):
            candidate = stage["candidates"][row]
            if candidate["logit"] is None:
                assert logit == "removed" and number(share) == 0
            else:
                assert number(logit) == pytest.approx(candidate["logit"], abs=5.1e-4)
                assert number(share) == pytest.approx(100 * candidate["after"], rel=0.06)
    assert f"{found['number']:.6f}" in page.get_by_test_id("choice").text_content()


def test_a_chain_that_cannot_be_read_is_a_sentence(visit):
    page, _ = visit(f"text={PROMPT}&at=tool:sampling")
    page.get_by_test_id("chain").fill("top_q=4")
    page.get_by_role("alert").get_by_text("There is no sampler 'top_q'").first.wait_for()


def test_candidates_branch_and_undo_goes_back(visit):
    page, engine = visit(f"text={PROMPT}")
    start = engine.run(RunRequest(text=PROMPT, reads=["next"]))
    first, second = start.arrays["next.ids"][:2].tolist()
    ids = [token["id"] for token in start.facts["tokens"]]
    press(page, f"take-{first}")
    page.get_by_test_id(f"token-{len(ids)}").wait_for()
    assert shown_ids(page) == [*ids, first]
    press(page, "undo")
    page.get_by_test_id(f"token-{len(ids)}").wait_for(state="detached")
    press(page, f"take-{second}", "keyboard")
    page.get_by_test_id(f"token-{len(ids)}").wait_for()
    assert shown_ids(page) == [*ids, second]
    press(page, "tool-continuations")
    assert page.get_by_test_id("node").count() == 3  # the prompt and both branches
    page.get_by_test_id("node").nth(1).click()
    page.wait_for_timeout(300)
    assert shown_ids(page) == [*ids, first]
    page.locator("h1").click()
    page.keyboard.press("Control+z")
    page.wait_for_timeout(300)
    assert shown_ids(page) == [*ids, second]
    press(page, "redo")
    page.wait_for_timeout(300)
    assert shown_ids(page) == [*ids, first]


def test_generation_can_be_stopped(visit):
    page, _ = visit(f"text={PROMPT}&at=tool:sampling")
    page.get_by_label("How many tokens").fill("200")
    page.get_by_test_id("chain").fill("min_new_tokens=200 | multinomial")
    press(page, "generate")
    page.wait_for_timeout(300)
    press(page, "stop")
    page.wait_for_timeout(500)
    count = len(shown_ids(page))
    page.wait_for_timeout(500)
    assert 4 < len(shown_ids(page)) == count < 200


def test_the_game_counts_honestly(visit):
    page, engine = visit(f"text={TEXT}&at=tool:game")
    press(page, "game-begin")
    ids = [token["id"] for token in engine.run(RunRequest(text=TEXT, reads=["norms"])).facts["tokens"]]
    player = bits = 0
    for place in range(2, 6):
        answer = engine.run(RunRequest(ids=ids[: place + 1], reads=["next"]))
        truth = ids[place + 1]
        others = [one for one in answer.arrays["next.ids"].tolist() if one != truth][:3]
        logits = answer.arrays["next.logits"][[truth, *others]].astype(np.float64)
        bits += -np.log2(np.exp(logits[0] - logits.max()) / np.exp(logits - logits.max()).sum())
        guess = truth if place % 2 else others[0]
        player += guess == truth
        press(page, f"choice-{guess}", "keyboard" if place % 2 else "mouse")
        page.get_by_test_id("verdict").wait_for()
        said = page.get_by_test_id("score").text_content()
        assert f"Right out of {place - 1}: you {player}," in said
        assert number(said.partition("pays")[2]) == pytest.approx(bits / (place - 1), abs=0.00501)
        press(page, "game-next")


def test_a_token_can_be_named_to_be_explained(visit):
    page, engine = visit()
    page.get_by_test_id("ask").fill(" John")
    page.keyboard.press("Enter")
    page.get_by_test_id("answer").locator("option:checked", has_text="␣John").wait_for(state="attached")
    token = engine._models.first.to_single_token(" John")
    answer = engine.run(RunRequest(text=TEXT, reads=["effects"], token=token))
    assert number(page.get_by_test_id("difference").text_content()) == pytest.approx(
        answer.facts["effects"]["logit"], abs=0.00501
    )
    page.get_by_test_id("ask").fill(" Johnny Walker")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("tokens:").wait_for()
