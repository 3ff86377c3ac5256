"""A site: the model runs in the browser, and answers as the server does."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest
from explorer_engines import ENGINES, compared
from explorer_page import NEEDS_PAGE, hosted

import onnxlens
from onnxlens.plugins.explorer import Engine
from onnxlens.plugins.explorer._server import BUILT
from onnxlens.plugins.explorer._site import write_site
from onnxlens.runtime.errors import OutputError

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
OTHER = "When Mary and Tom went to the shop, Mary gave a drink to"
BOARD = ["next", "guesses", "effects", "sources"]
TEXTS = ["naïve 😀 of 北京, it's\n\n  x", "a<|endoftext|>b", "", " " * 7 + "y", "the drinks aren't 3.14159, e.g.!"]


@pytest.fixture(scope="module", params=[None, "llama"], ids=["tiny", "llama"])
def page(request, bundle, browser, tmp_path_factory):
    """The page of a site."""
    folder = tmp_path_factory.mktemp("site") / "made"
    with onnxlens.load(request.param and bundle(request.param), provider="cpu", threads=1) as lens:
        write_site(folder, [lens], BUILT)
    with hosted(folder) as address:
        page = browser.new_page()
        page.goto(f"{address}#text=the cat sat on the mat")
        page.get_by_test_id("difference").wait_for(timeout=60_000)
        yield page
        page.close()


def test_what_the_browser_does_not_compute_is_a_sentence(page):
    ids = [token["id"] for token in page.evaluate("window.onnxlensEngine.tokenize({ text: 'the cat sat' })")["tokens"]]
    change = {"hook": "blocks.0.attn.hook_q", "operation": "zero"}
    asked = [
        ["run", {"ids": ids, "reads": ["nothing"]}],
        ["run", {"ids": [10**6], "reads": []}],
        ["run", {"ids": [1] * 5000, "reads": []}],
        ["continue", {"ids": ids, "sampler": "mirostat=5"}],
        ["model", "moon"],
        ["view", {"ids": ids, "visualizer": "attention"}],
        ["run", {"ids": ids, "reads": [], "edits": [change]}],
    ]
    answers = page.evaluate(ENGINES, [asked])
    assert all(answer.get("error", "").endswith(".") for answer in answers), answers


def interrupted(_):
    """Stands in for Ctrl-C."""
    raise KeyboardInterrupt


def test_an_unfinished_site_leaves_nothing(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    with onnxlens.load(provider="cpu", threads=1) as lens:
        with pytest.raises(OutputError, match="it is not an empty folder; name one that is new or empty"):
            write_site(tmp_path / "full", [lens], BUILT)
        with pytest.raises(OutputError, match="Two of the models are named 'tiny'"):
            write_site(tmp_path / "twice", [lens, lens], BUILT)
        with pytest.raises(KeyboardInterrupt):
            write_site(tmp_path / "cut", [lens], BUILT, progress=interrupted)
    assert [one.name for one in tmp_path.iterdir()] == ["full"]
    assert np.array_equal([one.read_text() for one in (tmp_path / "full").iterdir()], ["kept"])


def test_a_site_for_which_there_is_no_space_leaves_nothing(mounted, left_behind):
    out = mounted("size=20m")  # the page alone fits
    said = r"^Cannot write .*site: No space left on device\.$"
    with onnxlens.load(provider="cpu", threads=1) as lens, pytest.raises(OutputError, match=said):
        write_site(out / "site", [lens], BUILT)
    assert left_behind() == []


def test_the_first_board_is_there_without_the_model_and_the_rest_says_what_is_missing(tiny_site, browser):
    (tiny_site / "models" / "0" / "model.onnx_data").write_bytes(b"cut off")
    with hosted(tiny_site) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_test_id("difference").wait_for()
        assert page.get_by_test_id("text").input_value() == "Anna met Peter"
        sentence = "model.onnx_data is not as the site describes it: 7 bytes came of"
        page.get_by_role("alert").get_by_text(sentence).wait_for()
        page.get_by_test_id("text").fill("another text")
        page.get_by_role("alert").get_by_text(sentence).wait_for()
        page.close()


def test_examples_are_there_without_the_model(command, browser, tmp_path):
    texts = ["Anna met Peter", "a dog and a cat", "北京是"]
    assert command("explore", *texts, "--site", str(tmp_path / "site")).code == 0
    (tmp_path / "site/models/0/model.onnx_data").unlink()
    with hosted(tmp_path / "site") as address, onnxlens.load(provider="cpu", threads=1) as lens:
        page = browser.new_page()
        page.goto(address)
        page.get_by_role("alert").get_by_text("model.onnx_data could not be loaded: the site answered 404.").wait_for()
        for text in [*texts[1:], texts[0]]:
            page.get_by_test_id("examples").select_option(text)
            count = len(lens.tokenizer.encode(text))
            page.get_by_test_id("model").get_by_text(re.compile(rf"tokens: {count}\b")).wait_for()
            compared(page, Engine(lens), [["run", {"text": text, "reads": BOARD}]])
        page.close()


def test_a_site_that_was_opened_once_opens_without_a_connection(tiny_site, browser):
    with hosted(tiny_site) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.evaluate("navigator.serviceWorker.ready")
        page.reload()  # through the service worker, which keeps what comes, and lets threads be used
        assert page.evaluate("crossOriginIsolated")
        page.get_by_test_id("text").fill("a cat and a dog and a cow")
        # Not the first board: the model has run.
        page.get_by_test_id("model").get_by_text(re.compile(r"tokens: 9\b")).wait_for()
        context.set_offline(True)
        page.reload()
        page.get_by_test_id("difference").wait_for()
        page.get_by_test_id("text").fill("a dog")
        page.get_by_test_id("model").get_by_text(re.compile(r"tokens: 2\b")).wait_for()
        context.close()


def test_the_code_is_small():
    size = {path.name: len(gzip.compress(path.read_bytes())) for path in (BUILT / "assets").iterdir()}
    code = {name: one for name, one in size.items() if name.endswith((".js", ".css"))}
    assert len(code) == 3
    # Its own, and in the worker that of ONNX Runtime Web, 24.6 kB.
    assert sum(code.values()) < 200_000 + 25_000
    assert sum(one for name, one in size.items() if name.endswith(".wasm")) < 4_000_000


def test_it_can_be_installed_as_an_app(tiny_site, browser):
    with hosted(tiny_site) as address:
        page = browser.new_page()
        page.goto(address)
        page.evaluate("navigator.serviceWorker.ready")
        session = page.context.new_cdp_session(page)
        assert session.send("Page.getAppManifest")["errors"] == []
        found = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
        assert {error["errorId"] for error in found} <= {"in-incognito"}  # as all windows of tests are
        page.close()


def test_threads_are_used_where_the_server_sends_the_headers_of_the_site(tiny_site, browser):
    headers = dict(line.strip().split(": ") for line in (tiny_site / "_headers").read_text().splitlines()[1:])
    assert set(headers) == {"Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy"}
    with hosted(tiny_site, headers) as address, onnxlens.load(provider="cpu", threads=1) as lens:
        context = browser.new_context(service_workers="block")
        page = context.new_page()
        page.goto(address)
        page.get_by_test_id("difference").wait_for()
        asked = [["run", {"text": TEXT, "reads": [*BOARD, "gradient"]}], ["continue", {"text": TEXT, "seed": 1}]]
        compared(page, Engine(lens), asked)
        assert page.evaluate("crossOriginIsolated")
        assert len(page.workers) > 1 or page.evaluate("navigator.hardwareConcurrency") == 1
        context.close()


def test_the_command_refuses_what_does_not_fit(command, tiny_site):
    assert command("explore", "--add", "tiny").code == 2
    assert command("explore", "--site", "x", "--save", "y.html").code == 2
    several = command("explore", "one", "two", "--save", "y.html")
    assert several.code == 2 and "Give one TEXT, in quotes; several are for --site." in several.err
    again = command("explore", "--site", str(tiny_site))
    assert again.code == 1 and "it is not an empty folder; name one that is new or empty." in again.err
    twice = command("explore", "--site", str(tiny_site.parent / "two"), "--add", "tiny", "--json")
    assert twice.code == 1 and "Two of the models are named 'tiny'" in twice.err
    assert not (tiny_site.parent / "two").exists()
