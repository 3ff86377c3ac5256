"""A saved page: it works from a disk with no request, and answers as the server does."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE, number
from safetensors.numpy import load_file

import onnxlens
from onnxlens.plugins.explorer import Engine
from onnxlens.plugins.explorer._recording import page as page_of
from onnxlens.plugins.explorer._recording import record
from onnxlens.plugins.explorer._requests import RunRequest
from onnxlens.plugins.explorer._server import BUILT

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
BOARD = ["next", "guesses", "effects", "sources"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved page, and the engine that it was recorded from."""
    path = tmp_path_factory.mktemp("saved") / "page <&> name.html"
    with onnxlens.load(provider="cpu", threads=1) as lens:
        engine = Engine(lens)
        path.write_text(page_of(BUILT, *record(engine, TEXT)), encoding="utf-8")
        yield path, engine


@pytest.fixture
def opened(browser, saved):
    """Opens the saved page with the network off; fails on any message or request."""
    said = []
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: one.url.startswith(("file:", "data:", "blob:")) or said.append(one.url))
    page.goto(saved[0].as_uri())
    page.get_by_test_id("difference").wait_for()
    yield page
    context.close()
    assert said == []


def test_it_shows_the_board_of_its_text(opened, saved):
    answer = saved[1].run(RunRequest(text=TEXT, reads=BOARD))
    for state, position in np.ndindex(answer.arrays["guesses.ids"].shape[:2]):
        best = answer.facts["labels"][str(answer.arrays["guesses.ids"][state, position, 0])].replace(" ", "␣")
        assert opened.get_by_test_id(f"cell-{state}-{position}").text_content().strip().startswith(best)
    opened.get_by_test_id("arithmetic").wait_for()


def test_each_head_can_be_switched_off_and_other_edits_name_the_command(opened, saved):
    opened.get_by_test_id("head-line").wait_for()
    opened.keyboard.press("x")
    opened.get_by_test_id("sentence").wait_for()
    edit = {"hook": "blocks.4.attn.hook_z", "operation": "zero", "heads": 1}
    before = saved[1].run(RunRequest(text=TEXT, reads=BOARD)).facts
    asked = RunRequest(text=TEXT, reads=BOARD, edits=[edit], token=before["token"], against=before["against"])
    said = opened.get_by_test_id("sentence").text_content()
    shown = number(said.partition(" to ")[2])
    assert shown == pytest.approx(saved[1].run(asked).facts["effects"]["logit"], abs=0.0051)
    opened.get_by_test_id("scale").fill("-1")
    opened.get_by_role("alert").get_by_text(f"onnxlens explore -m 'tiny' '{TEXT}'").wait_for()


def test_another_text_names_the_command(opened):
    opened.get_by_test_id("text").fill("something else")
    opened.get_by_role("alert").get_by_text("This page is a recording.").wait_for()


ENGINES = """async ([requests]) => {
  const answer = (found) => ({
    facts: found.facts,
    arrays: Object.fromEntries(Object.entries(found.arrays).map(([name, one]) => [name, [one.shape, [...one.data]]])),
  });
  const found = [];
  for (const [method, request] of requests) found.push(answer(await window.onnxlensEngine[method](request)));
  return found;
}"""


def test_both_engines_answer_the_same(opened, saved, visit):
    server, engine = visit()
    facts = engine.run(RunRequest(text=TEXT, reads=["norms"])).facts
    ids = [token["id"] for token in facts["tokens"]]
    pair = {"token": facts["token"], "against": facts["against"]}
    head = [{"hook": "blocks.3.attn.hook_z", "heads": 0, "operation": "zero"}]
    requests = [
        ["run", {"text": TEXT, "reads": BOARD}],
        ["run", {"ids": ids, "reads": ["ranks", "norms"], "position": 4}],
        ["run", {"ids": ids, "reads": ["guesses"], "position": 13, "positions": [2, 5]}],
        ["run", {"ids": ids, "reads": BOARD, "edits": head, **pair}],
        ["run", {"ids": ids, "reads": ["blocks.2.attn.hook_q[3,1]", "blocks.0.mlp.hook_post[:,7]", "blocks.4.attn.*"]}],
        ["run", {"ids": ids, "reads": ["surprisal", "neurons", "logits[13]", "logits[2,5]"]}],
        ["run", {"ids": ids, "reads": ["unembedded"], "directions": ["blocks.4.attn.hook_result[13,1]"]}],
        ["sweep", {"ids": ids, "kind": "ablate_heads", **pair}],
        ["sweep", {"ids": ids, "kind": "head_scores"}],
    ]
    answers = [page.evaluate(ENGINES, [requests]) for page in (server, opened)]
    for request, live, recorded in zip(requests, *answers, strict=True):
        assert set(live["arrays"]) == set(recorded["arrays"]), request
        for name, (shape, values) in live["arrays"].items():
            assert recorded["arrays"][name][0] == shape, (request, name)
            assert recorded["arrays"][name][1] == pytest.approx(values, rel=1e-5, abs=1e-5), (request, name)
        for name in {"token", "against", "position"}.intersection(live["facts"]):
            assert recorded["facts"][name] == live["facts"][name]
        if "promoted" in live["facts"]:
            assert recorded["facts"]["promoted"] == live["facts"]["promoted"]


def test_the_command_writes_the_same_file_twice(command, tmp_path):
    for name in ("a.html", "b.html"):
        assert command("explore", "a cat", "--save", str(tmp_path / name)).code == 0
    first = (tmp_path / "a.html").read_bytes()
    assert first == (tmp_path / "b.html").read_bytes()
    assert b"a cat" in first and len(first) < 6e6
    ran = command("explore", "a cat", "--save", str(tmp_path / "page.pdf"))
    assert ran.code == 1 and "name it page.html" in ran.err


def test_hostile_text_is_inert_in_the_file(browser, tmp_path):
    text = "</script><img src=x onerror=alert(1)><!-- <script>"
    with onnxlens.load(provider="cpu", threads=1) as lens:
        (tmp_path / "page.html").write_text(page_of(BUILT, *record(Engine(lens), text)), encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.get_by_test_id("difference").wait_for()
    assert page.locator("img").count() == 0
    assert page.get_by_test_id("text").input_value() == text
    page.close()


def test_tensors_pictures_and_code_are_taken_away(visit, tmp_path):
    page, engine = visit("at=tool:export")
    address = "blocks.2.attn.hook_pattern[1]"
    expected = engine.run(RunRequest(text=TEXT, reads=[address])).arrays[address]
    page.get_by_test_id("export-address").fill(address)

    def download(test_id):
        with page.expect_download() as found:
            page.get_by_test_id(test_id).click()
        path = tmp_path / found.value.suggested_filename
        found.value.save_as(path)
        return path

    (array,) = np.load(download("export-npz")).values()
    assert np.array_equal(array, expected)
    assert np.array_equal(load_file(download("export-safetensors"))[address], expected)
    lines = download("export-csv").read_text().splitlines()
    assert lines[0] == "query_pos,key_pos,value"
    table = np.array([[float(one) for one in line.split(",")] for line in lines[1:]])
    assert np.allclose(table[:, 2].reshape(expected.shape), expected, rtol=1e-7)
    svg = download("export-board-svg")
    png = download("export-board-png")
    assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 20_000
    alone = page.context.browser.new_page()
    alone.goto(svg.as_uri())
    assert "Mary" in alone.locator("svg").first.text_content()
    alone.close()
    scope = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(page.get_by_test_id("export-python").text_content(), scope)
    scope["lens"].close()
    assert "Mary" in printed.getvalue()
