"""A recorded page: it works from a disk with no request, and answers as the server does."""

from __future__ import annotations

import json
import shlex
import subprocess

import numpy as np
import pytest
from explorer_engines import ENGINES, same
from explorer_page import NEEDS_PAGE, number

import onnxlens
from onnxlens.plugins.explorer import Engine
from onnxlens.plugins.explorer._recording import page as page_of
from onnxlens.plugins.explorer._recording import record
from onnxlens.plugins.explorer._requests import ModelRequest, RunRequest, TokenizeRequest
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
def opened(from_disk, saved):
    """The saved page."""
    return from_disk(saved[0])


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
    scaled = {"hook": "blocks.4.attn.hook_z", "heads": 1, "operation": "scale", "factor": -1}
    opened.get_by_role("alert").get_by_text("onnxlens explore -m 'tiny' --edits ").wait_for()
    command = shlex.split(opened.get_by_role("alert").text_content().partition("run: ")[2])
    assert command[:4] == ["onnxlens", "explore", "-m", "tiny"] and command[-1] == TEXT
    assert scaled in json.loads(command[5])


def test_another_text_names_the_command(opened):
    opened.get_by_test_id("text").fill("something else")
    command = "onnxlens explore -m 'tiny' 'something else'"
    opened.get_by_role("alert").get_by_text(f"This page is a recording. To see this, run: {command}").wait_for()


@pytest.fixture
def asked(saved):
    """Requests of many kinds, which both engines must answer alike."""
    facts = saved[1].run(RunRequest(text=TEXT, reads=["norms"])).facts
    ids = [token["id"] for token in facts["tokens"]]
    pair = {"token": facts["token"], "against": facts["against"]}
    head = [{"operation": "zero", "heads": 0, "hook": "blocks.3.attn.hook_z"}]
    mlp = [{"hook": "blocks.1.hook_mlp_out", "operation": "zero"}]
    neuron = int(np.abs(saved[1].run(RunRequest(text=TEXT, reads=["neurons"])).arrays["neurons"][2]).argmax())
    model = saved[1].model(ModelRequest())
    points = [point["name"] for point in model["hook_points"]]
    return [
        ["model", "tiny"],
        ["tokenize", {"text": TEXT}],
        ["tokenize", {"ids": ids}],
        ["run", {"text": TEXT, "reads": BOARD}],
        ["run", {"text": TEXT, "model": "tiny", "reads": BOARD, "position": -14, "top": 3}],
        ["run", {"ids": ids, "reads": ["ranks", "norms"], "position": 4}],
        ["run", {"ids": ids, "reads": [*BOARD, "neurons"], "position": -2}],
        ["run", {"ids": ids, "reads": ["guesses"], "position": 13, "positions": [2, 5]}],
        ["run", {"ids": ids, "reads": BOARD, "edits": head, **pair}],
        ["run", {"ids": ids, "reads": [*BOARD, "ranks", "norms", "edits"], "edits": mlp, **pair}],
        ["run", {"ids": ids, "reads": points}],
        ["run", {"ids": ids, "reads": ["blocks.2.attn.hook_q[3,1]", "blocks.0.mlp.hook_post[:,7]", "blocks.4.attn.*"]}],
        ["run", {"ids": ids, "reads": ["blocks.0.hook_resid_pre[2:5,:3]", "blocks.0.attn.hook_pattern[1,7,2]"]}],
        ["run", {"ids": ids, "reads": ["ln_final.w", "blocks.1.attn.b_Q[2]", "blocks.0.ln1.b[3:6]"]}],
        ["run", {"ids": ids, "reads": ["surprisal", "neurons", "logits[13]", "logits[2,5]", "edits"]}],
        ["run", {"ids": ids, "reads": ["chain", "next"], "sampler": "multinomial", "seed": 0, "top": 10}],
        ["run", {"ids": ids, "reads": ["unembedded"], "directions": ["blocks.4.attn.hook_result[13,1]"]}],
        ["run", {"ids": ids, "reads": ["unembedded"], "directions": [f"blocks.2.mlp.W_out[{neuron}]"]}],
        ["sweep", {"ids": ids, "kind": "ablate_heads", **pair}],
        ["sweep", {"ids": ids, "kind": "ablate_mlps", **pair}],
        ["sweep", {"ids": ids, "kind": "head_scores"}],
        ["continue", {"ids": ids, "sampler": "greedy", "seed": 0, "max_new_tokens": 3}],
        ["run", {"ids": [*ids, facts["token"]], "reads": BOARD}],
    ]


def test_both_engines_answer_the_same(opened, asked, visit):
    server, _ = visit()
    answers = [page.evaluate(ENGINES, [asked]) for page in (server, opened)]
    compared = sum(
        same(*answer, request, own=("examples",))
        for request, answer in zip(asked, zip(*answers, strict=True), strict=True)
    )
    assert compared > 100_000


def test_a_token_that_an_answer_names_is_known_by_text_and_id(opened, saved):
    (live,) = saved[1].tokenize(TokenizeRequest(text=" James"))["tokens"]
    for request in ({"text": " James"}, {"ids": [live["id"]]}):
        (found,) = opened.evaluate(ENGINES, [[["tokenize", request]]])
        assert found["facts"]["tokens"] == [live]


def test_what_was_not_recorded_is_a_sentence_with_the_command(opened, saved):
    facts = saved[1].run(RunRequest(text=TEXT, reads=["norms"])).facts
    ids = [token["id"] for token in facts["tokens"]]
    off = [{"hook": "blocks.4.attn.hook_z", "heads": 1, "operation": "zero"}]
    add = [{"hook": "blocks.1.hook_resid_pre", "operation": "add", "from": {"text": "it's", "position": -1}}]
    own = ["-m", "tiny", TEXT]
    requests = {
        # An edit that was recorded for the pair of the text alone: what is most probable with it is another question.
        "no pair": ["run", {"ids": ids, "reads": BOARD, "edits": off}, ["-m", "tiny", "--edits", off, TEXT]],
        "another token": ["run", {"ids": ids, "reads": BOARD, "token": 5}, own],
        "a matrix": ["run", {"ids": ids, "reads": ["blocks.0.attn.W_Q[1,:,5]"]}, own],
        "more guesses": ["run", {"ids": ids, "reads": ["guesses"], "top": 50}, own],
        "an activation of an edit": ["run", {"ids": ids, "reads": ["hook_embed"], "edits": off, "token": 1}, None],
        "another edit": ["run", {"text": TEXT, "reads": BOARD, "edits": add}, ["-m", "tiny", "--edits", add, TEXT]],
        "part of the text": ["run", {"ids": ids[:3], "reads": ["next"]}, ["-m", "tiny", "When Mary and"]],
        "a quote": ["run", {"text": "it's $(a) `b`", "reads": []}, ["-m", "tiny", "it's $(a) `b`"]],
        "lines": ["run", {"text": "a\nb\t'\\\x1b[0m", "reads": []}, ["-m", "tiny", "a\nb\t'\\\x1b[0m"]],
        "an option": ["tokenize", {"text": "--help me"}, ["-m", "tiny", "--", "--help me"]],
        "a model": ["model", "other", ["-m", "other", TEXT]],
        "a view": ["view", {"text": TEXT, "visualizer": "attention"}, own],
        "patching": ["sweep", {"ids": ids, "kind": "patch_heads", "other": "x"}, own],
        "a draw": ["continue", {"ids": ids, "sampler": "multinomial"}, own],
    }
    answers = opened.evaluate(ENGINES, [[one[:2] for one in requests.values()]])
    for (name, (_, _, wanted)), answer in zip(requests.items(), answers, strict=True):
        sentence, _, command = answer["error"].partition(" run: ")
        assert sentence == "This page is a recording. To see this,", name
        if wanted is None:
            continue
        # The command as a shell reads it.
        said = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, check=True)
        words = said.stdout.split("\0")[:-1]
        read = [json.loads(one) if words[place] == "--edits" else one for place, one in enumerate(words[1:])]
        assert read == ["explore", *wanted], name


def test_the_address_works_in_the_file_and_in_chinese(opened, saved):
    opened.goto(saved[0].as_uri() + "#at=head:2,1&lang=zh&position=5")
    opened.reload()
    opened.get_by_test_id("head-line").wait_for()
    assert opened.locator("html").get_attribute("lang") == "zh"
    assert "2.1" in opened.get_by_role("heading", level=2).filter(has_text="2.1").first.text_content()
    opened.get_by_test_id("text").fill("另一段")
    opened.get_by_role("alert").get_by_text("onnxlens explore -m 'tiny' '另一段'").wait_for()
    opened.goto("about:blank")
    opened.goto(saved[0].as_uri() + "#at=tool:moon")  # a link of another version
    opened.get_by_test_id("difference").wait_for()


def test_its_policy_lets_nothing_in(saved):
    content = saved[0].read_text(encoding="utf-8")
    policy = content.partition('content-security-policy" content="')[2].partition('"')[0]
    assert (
        policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy and "http" not in policy
    )
    assert content.count("<script") == 3 and "src=" not in content.partition("<body>")[0]


def test_greedy_tokens_are_appended(opened, saved):
    opened.get_by_test_id("temperature").fill("0")
    opened.get_by_test_id("next").click()
    opened.get_by_test_id("token-14").wait_for()
    answer = saved[1].run(RunRequest(text=TEXT, reads=["next"]))
    best = answer.facts["labels"][str(answer.facts["token"])].replace(" ", "␣")
    assert best in opened.get_by_test_id("token-14").text_content()


def test_what_does_not_fit_is_named(saved, monkeypatch):
    monkeypatch.setattr("onnxlens.plugins.explorer._recording._LARGEST", 1_500_000)
    facts, arrays = record(saved[1], TEXT)
    assert len(arrays) < 1_600_000
    assert "head 0.0 off" in facts["left_out"] and "run|||-1" in facts["answers"]
    kept = sum(key.startswith("run||[") for key in facts["answers"])
    assert kept + sum(name.endswith(" off") for name in facts["left_out"]) == 25


def test_the_command_writes_the_same_file_twice(command, tmp_path):
    for name in ("a.html", "b.html"):
        assert command("explore", "a cat", "--recorded", "--save", str(tmp_path / name)).code == 0
    first = (tmp_path / "a.html").read_bytes()
    assert first == (tmp_path / "b.html").read_bytes()
    assert b"a cat" in first and len(first) < 5e6
    ran = command("explore", "a cat", "--recorded", "--save", str(tmp_path / "page.pdf"))
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


def test_the_file_of_the_example_is_small(saved):
    assert saved[0].stat().st_size < 5e6


def test_a_file_that_cannot_be_written_stays_as_it_was(command, tmp_path):
    (tmp_path / "folder.html").mkdir()
    ran = command("explore", "a cat", "--recorded", "--save", str(tmp_path / "folder.html"))
    assert ran.code == 1 and "it is a folder" in ran.err
    ran = command("explore", "x" * 100_000, "--recorded", "--save", str(tmp_path / "long.html"))
    assert ran.code == 1 and not list(tmp_path.glob("*long*")) and not list(tmp_path.glob(".*"))


def test_edits_of_the_command_are_checked(command):
    for wrong in ("[", "{}", "[1]"):
        ran = command("explore", "a cat", "--no-browser", "--edits", wrong)
        assert ran.code == 1 and "--edits takes a JSON list of changes" in ran.err
    assert command("explore", "a cat", "--save", "x.html", "--edits", "[]").code == 2
    assert command("explore", "a cat", "--recorded").code == 2
