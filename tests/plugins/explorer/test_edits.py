"""Edits on the page: each does what the same intervention does, and can be taken along."""

from __future__ import annotations

import contextlib
import io
import json
import re
from urllib.parse import unquote_plus

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE, number
from yardstick import close

import onnxlens
from onnxlens.plugins.explorer._requests import RunRequest

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
OTHER = "When Mary and Tom went to the shop, Mary gave a drink to"


def edits_of(page):
    """The edits in the address of the page."""
    found = re.search(r"edits=([^&]*)", page.url)
    return json.loads(unquote_plus(found[1])) if found else []


def check(page, engine, interventions, text=TEXT):
    """The page's sentence says what the same interventions do in Python."""
    lens = engine._models.first
    facts = engine.run(RunRequest(text=text, reads=["effects"])).facts
    token, against = facts["token"], facts["against"]
    logits = [lens.predict(text, interventions=made).logits.astype(np.float64) for made in ((), interventions)]
    expected = [one[token] - one[against] for one in logits]
    page.wait_for_timeout(400)
    said = re.findall(r"[+\u2212]\d+\.\d+", page.get_by_test_id("sentence").text_content())
    assert [number(one) for one in said] == pytest.approx(expected, abs=0.0051)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("head:4,1", lambda make: make("blocks.4.attn.hook_z", heads=1)),
        ("mlp:3", lambda make: make("blocks.3.hook_mlp_out")),
        ("neuron:4,630", lambda make: make("blocks.4.mlp.hook_post", neurons=630)),
        ("cell:2,1", lambda make: make("blocks.2.hook_resid_pre", positions=1)),
    ],
)
@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_what_is_selected_is_switched_off(visit, state, expected, way):
    page, engine = visit(f"at={state}")
    if way == "mouse":
        page.get_by_test_id("switch").click()
    else:
        page.get_by_test_id("switch").wait_for()
        page.keyboard.press("x")
    page.get_by_test_id("sentence").wait_for()
    check(page, engine, [expected(onnxlens.Intervention.zero)])
    page.get_by_test_id("switch").click()
    page.get_by_test_id("sentence").wait_for(state="detached")
    assert edits_of(page) == []


def test_a_head_is_scaled_averaged_and_its_pattern_frozen(visit):
    page, engine = visit("at=head:4,1")
    hook = "blocks.4.attn.hook_z"
    page.get_by_test_id("scale").fill("-1")
    page.get_by_test_id("sentence").wait_for()
    check(page, engine, [onnxlens.Intervention.scale(hook, -1, heads=1)])
    page.get_by_test_id("scale").fill("1")  # 1 changes nothing, so there is no edit
    page.get_by_test_id("sentence").wait_for(state="detached")
    page.get_by_test_id("mean").click()
    page.get_by_test_id("sentence").wait_for()
    _, cache = engine._models.first.run_with_cache(TEXT, names_filter=hook)
    check(page, engine, [onnxlens.Intervention.mean(hook, cache, heads=1)])
    page.get_by_text("Remove all").click()
    page.get_by_test_id("freeze").click()
    page.get_by_test_id("sentence").wait_for()
    assert edits_of(page) == [{"hook": "blocks.4.attn.hook_pattern", "heads": 1, "operation": "freeze"}]
    said = page.get_by_test_id("sentence").text_content()
    first, second = re.findall(r"[+\u2212]\d+\.\d+", said)
    assert first == second  # a pattern frozen to itself changes nothing


def test_a_share_of_a_pattern_is_set(visit):
    page, engine = visit("at=head:4,1,13,1")
    page.get_by_test_id("share").fill("0.25")
    page.keyboard.press("Enter")
    page.get_by_test_id("sentence").wait_for()
    place = {"heads": 1, "positions": 13, "keys": 1}
    check(page, engine, [onnxlens.Intervention.replace("blocks.4.attn.hook_pattern", 0.25, **place)])


def test_a_token_is_replaced_in_place(visit):
    page, engine = visit("at=token:3")
    page.get_by_test_id("replace-token").fill(" Tom")
    page.keyboard.press("Enter")
    page.get_by_test_id("token-3").get_by_text("Tom").wait_for()
    ids = engine._models.first.to_tokens(TEXT)[0].tolist()
    ids[3] = engine._models.first.to_single_token(" Tom")
    answer = engine.run(RunRequest(ids=ids, reads=["effects"]))
    assert number(page.get_by_test_id("difference").text_content()) == pytest.approx(
        answer.facts["effects"]["logit"], abs=0.0051
    )


@pytest.mark.parametrize("way", ["form", "drag"])
def test_a_state_of_the_other_text_is_patched_in(visit, way):
    page, engine = visit(f"other={OTHER}&at=cell:3,9", viewport={"width": 1280, "height": 1600})  # both are in view
    page.get_by_test_id("other-cell-3-9").wait_for()
    if way == "form":
        page.get_by_test_id("patch").click()
    else:
        page.get_by_test_id("other-cell-3-9").drag_to(page.get_by_test_id("cell-3-9"))
    page.get_by_test_id("sentence").wait_for()
    hook = "blocks.3.hook_resid_pre"
    _, cache = engine._models.first.run_with_cache(OTHER, names_filter=hook)
    check(page, engine, [onnxlens.Intervention.patch(hook, cache, positions=9)])


def test_a_steering_vector_is_added(visit):
    page, engine = visit("at=tool:steer")
    page.get_by_test_id("steer-text").fill("I am happy")
    page.get_by_test_id("steer-minus").fill("I am sad")
    page.get_by_test_id("steer-factor").fill("2")
    page.get_by_test_id("steer").click()
    page.get_by_test_id("sentence").wait_for()
    hook = "blocks.2.hook_resid_pre"
    lens = engine._models.first
    happy, sad = (lens.run_with_cache(text, names_filter=hook)[1][hook][0, -1] for text in ("I am happy", "I am sad"))
    check(page, engine, [onnxlens.Intervention.add(hook, happy - sad, factor=2)])


def test_an_edit_is_switched_off_for_now_and_its_factor_changed(visit):
    page, engine = visit('at=head:4,1&edits=[{"hook":"blocks.4.attn.hook_z","heads":1,"operation":"scale","factor":2}]')
    page.get_by_test_id("sentence").wait_for()
    page.get_by_label("Factor").fill("0.5")
    page.keyboard.press("Enter")
    check(page, engine, [onnxlens.Intervention.scale("blocks.4.attn.hook_z", 0.5, heads=1)])
    page.get_by_role("checkbox").first.uncheck()
    page.get_by_test_id("sentence").wait_for(state="detached")
    assert edits_of(page)[0]["off"] is True
    page.get_by_role("checkbox").first.check()
    page.get_by_test_id("sentence").wait_for()


EDITS = [
    {"hook": "blocks.4.attn.hook_z", "heads": 1, "operation": "zero"},
    {"hook": "blocks.2.hook_mlp_out", "operation": "mean"},
    {"hook": "blocks.3.attn.hook_pattern", "heads": 2, "operation": "freeze"},
    {"hook": "blocks.1.hook_resid_pre", "positions": 9, "operation": "patch", "from": {"text": OTHER, "position": 3}},
    {
        "hook": "blocks.2.hook_resid_pre",
        "operation": "add",
        "factor": 0.5,
        "from": {"text": "I am happy", "minus": "I am sad", "position": -1},
    },
]


def test_the_python_and_the_json_of_edits_make_the_same_run(visit, command, tmp_path):
    page, engine = visit(f"edits={json.dumps(EDITS)}")
    page.get_by_text("Export these edits").click()
    expected = engine.run(RunRequest(text=TEXT, edits=EDITS, reads=["next"])).arrays["next.logits"]
    code = page.get_by_test_id("edits-python").text_content()
    scope = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, scope)
    close(scope["lens"].predict(scope["text"], interventions=scope["interventions"]).logits, expected)
    scope["lens"].close()
    with page.expect_download() as download:
        page.get_by_test_id("edits-json").click()
    download.value.save_as(tmp_path / "edits.json")
    ran = command("predict", TEXT, "--intervene", str(tmp_path / "edits.json"), "--json")
    assert ran.code == 0
    best = json.loads(ran.out)["top"][0]
    assert best["id"] == expected.argmax()
    assert best["logit"] == pytest.approx(float(expected.max()), abs=1e-3)
