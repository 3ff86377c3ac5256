"""What is taken away from the page: pictures, numbers, code, the link, and paper."""

from __future__ import annotations

import contextlib
import io
import zipfile

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE
from PIL import Image
from safetensors.numpy import load_file
from yardstick import close

from onnxlens.plugins.explorer._requests import RunRequest

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
BOARD = ["next", "guesses", "effects", "sources"]


EXTENT = """() => {
  let [right, bottom] = [0, 0];
  for (const one of document.querySelectorAll("foreignObject *")) {
    if (one.closest("svg svg") && one.tagName !== "svg") continue;
    const box = one.getBoundingClientRect();
    [right, bottom] = [Math.max(right, box.right), Math.max(bottom, box.bottom)];
  }
  return [right, bottom];
}"""


@pytest.fixture
def download(tmp_path):
    """Presses a button of the menu and returns the file that it saves."""

    def download(page, test_id):
        with page.expect_download() as found:
            page.get_by_test_id(test_id).click()
        path = tmp_path / found.value.suggested_filename
        found.value.save_as(path)
        return path

    return download


def test_a_tensor_is_the_same_in_each_format(visit, download):
    page, engine = visit("at=head:2,1")
    page.get_by_test_id("export").click()
    for address, axes, starts in (
        ("blocks.2.attn.hook_pattern[1]", ["query_pos", "key_pos"], [0, 0]),
        ("blocks.1.hook_resid_pre[3:6,10:]", ["pos", "d_model"], [3, 10]),
        ("blocks.0.attn.W_Q[1,:,5]", ["entry"], [0]),
        ("blocks.0.attn.hook_pattern[0,3,1]", [], []),
    ):
        expected = engine.run(RunRequest(text=TEXT, reads=[address])).arrays[address]
        page.get_by_test_id("export-address").fill(address)
        (loaded,) = np.load(download(page, "export-npz")).values()
        assert loaded.dtype == np.float32 and np.array_equal(loaded, expected)
        assert np.array_equal(load_file(download(page, "export-safetensors"))[address], expected)
        header, *lines = download(page, "export-csv").read_text().splitlines()
        assert header.split(",") == [*axes, "value"]
        table = np.array([[float(one) for one in line.split(",")] for line in lines])
        assert np.array_equal(table[:, -1].astype(np.float32).reshape(expected.shape), expected)
        assert table[:, :-1].min(axis=0).tolist() == starts
    page.get_by_test_id("export-address").fill("blocks.99.hook_resid_pre")
    page.get_by_test_id("export-npz").click()
    page.get_by_role("alert").get_by_text("Unknown hook point or weight").wait_for()


def test_all_of_the_selection_and_of_the_board_are_taken(visit, download):
    page, engine = visit("at=head:2,1")
    page.get_by_test_id("export").click()
    loaded = np.load(download(page, "export-selection-npz"))
    assert {"blocks.2.attn.hook_pattern[1]", "blocks.2.attn.hook_z[:,1]"} <= set(loaded)
    for name, values in engine.run(RunRequest(text=TEXT, reads=list(loaded))).arrays.items():
        assert np.array_equal(loaded[name], values), name
    expected = engine.run(RunRequest(text=TEXT, reads=BOARD)).arrays
    loaded = load_file(download(page, "export-board-safetensors"))
    assert set(loaded) == set(expected)
    assert all(np.array_equal(loaded[name], values) for name, values in expected.items())
    with zipfile.ZipFile(download(page, "export-board-csv")) as tables:
        assert tables.read("sources.csv").decode().startswith("layer,head,pos,value\n")
        lines = tables.read("guesses.ids.csv").decode().splitlines()
    assert lines[0] == "state,pos,rank,value" and len(lines) == 1 + expected["guesses.ids"].size


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_stand_alone(visit, download, scheme):
    page, _ = visit("at=head:2,1", color_scheme=scheme)
    page.get_by_test_id("head-line").wait_for()
    page.get_by_test_id("export").click()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for part, words in (("board", "Mary"), ("aside", "rather than"), ("drawer", "head 2.1")):
        svg = download(page, f"export-{part}-svg")
        alone = page.context.browser.new_page()
        requests = []
        alone.on("request", lambda one, seen=requests: seen.append(one.url))
        alone.goto(svg.as_uri())
        assert alone.evaluate("document.documentElement.tagName") == "svg"
        assert words in alone.locator("svg").first.text_content()
        assert [one for one in requests if not one.startswith(("file:", "data:"))] == []
        shown = alone.evaluate("[...document.querySelectorAll('input, textarea, form, select, .act')].length")
        assert shown == 0
        # What the picture shows is where the page shows it.
        size = [
            float(alone.evaluate(f"document.documentElement.getAttribute('{name}')")) for name in ("width", "height")
        ]
        box = alone.evaluate(EXTENT)
        assert box[0] <= size[0] + 1 and box[1] <= size[1] + 1
        alone.close()
        pixels = _pixels(download(page, f"export-{part}-png"))
        assert pixels.shape[:2] == (2 * size[1], 2 * size[0])
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 30  # text, bars, tints: not blank
        if part == "board":
            red, green, blue = (int(one) for one in ground[4:-1].split(",")[:3])
            assert pixels[0, 0, :3].tolist() == [red, green, blue]


def test_the_file_of_a_page_exports_too(visit, download, browser, tmp_path):
    from onnxlens.plugins.explorer._recording import page as page_of
    from onnxlens.plugins.explorer._recording import record
    from onnxlens.plugins.explorer._server import BUILT

    _, engine = visit()
    (tmp_path / "saved.html").write_text(page_of(BUILT, *record(engine, TEXT)), encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "saved.html").as_uri())
    page.get_by_test_id("difference").wait_for()
    page.get_by_test_id("export").click()
    assert len(np.unique(_pixels(download(page, "export-board-png")).reshape(-1, 4), axis=0)) > 30
    page.get_by_test_id("export-address").fill("blocks.0.hook_mlp_out[3]")
    (loaded,) = np.load(download(page, "export-npz")).values()
    (expected,) = engine.run(RunRequest(text=TEXT, reads=["blocks.0.hook_mlp_out[3]"])).arrays.values()
    close(loaded, expected)
    page.close()


@pytest.mark.parametrize(
    ("state", "edits", "position"),
    [
        ("at=head:2,1", [], -1),
        (
            "at=neuron:1,7&position=6&edits="
            + '[{"hook":"blocks.3.attn.hook_z","operation":"scale","heads":0,"factor":-1}]',
            [{"hook": "blocks.3.attn.hook_z", "operation": "scale", "heads": 0, "factor": -1}],
            6,
        ),
        ("at=norm:ln_final,5", [], -1),
        ("at=cell:3,2", [], -1),
        ("at=mlp:2,4", [], -1),
        ("at=tool:surprisal", [], -1),
        ("at=tool:heads", [], -1),
    ],
)
def test_the_code_computes_what_the_page_shows(visit, state, edits, position):
    page, engine = visit(state)
    page.get_by_test_id("export").click()
    code = page.get_by_test_id("export-python").input_value()
    scope, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, scope)
    scope["lens"].close()
    asked = {"text": TEXT, "edits": edits, "position": position}
    if edits:  # which are judged by the answer without them
        facts = engine.run(RunRequest(text=TEXT, reads=["norms"], position=position)).facts
        asked |= {"token": facts["token"], "against": facts["against"]}
    answer = engine.run(RunRequest(**asked, reads=[*BOARD, "surprisal"]))
    arrays = answer.arrays
    assert np.array_equal(scope["guesses"].ids, arrays["guesses.ids"])
    for found, expected in (
        (scope["attribution"].heads, arrays["effects.heads"]),
        (scope["attribution"].mlps, arrays["effects.mlps"]),
        (scope["sources"].values, arrays["sources"]),
    ):
        assert found.shape == expected.shape
        close(found, expected)
    for address, found in scope.get("values", {}).items():
        (expected,) = engine.run(RunRequest(**asked, reads=[address])).arrays.values()
        finite = np.isfinite(expected)  # masked scores are not
        assert np.array_equal(np.isfinite(found), finite)
        close(found[finite], expected[finite], name=address)
    assert ("values" in scope) == (not state.startswith("at=tool"))
    if "surprisal" in state:
        close(scope["surprisals"].values, arrays["surprisal"])
    assert "array" in printed.getvalue() or "[" in printed.getvalue()


def test_the_link_opens_the_same_page(visit):
    state = 'at=head:2,1&position=6&edits=[{"hook":"blocks.3.attn.hook_z","operation":"zero","heads":0}]'
    page, _ = visit(state)
    page.get_by_test_id("export").click()
    link = page.get_by_test_id("export-link").input_value()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_test_id("copy-link").click()
    page.get_by_role("status").get_by_text("Copied").first.wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == link
    shown = page.get_by_test_id("difference").text_content()
    other = page.context.browser.new_page()
    other.goto(link)
    other.get_by_test_id("sentence").wait_for()
    assert other.get_by_test_id("difference").text_content() == shown
    # Where the browser forbids to copy, the text is selected.
    other.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    other.get_by_test_id("export").click()
    other.get_by_test_id("copy-link").click()
    other.get_by_role("status").get_by_text("Ctrl-C").wait_for()
    assert other.evaluate("document.activeElement.id") == "export-link"
    other.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 1920])
def test_paper_is_light_whole_and_without_controls(visit, scheme, width):
    page, _ = visit("at=head:4,1", color_scheme=scheme, viewport={"width": width, "height": 900})
    page.get_by_test_id("head-line").wait_for()
    page.emulate_media(media="print", color_scheme=scheme)
    page.set_viewport_size({"width": 1040, "height": 700})
    page.locator("html.paper").wait_for()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for selector in ("header", "#app > nav", "main input", "main textarea", "main form", "main details", ".controls"):
        assert not any(one.is_visible() for one in page.locator(selector).all()), selector
    assert page.locator(".printed").is_visible() and TEXT in page.locator(".printed").text_content()
    assert page.get_by_role("heading", name="head 4.1").is_visible()
    edge = page.evaluate(
        "Math.max(...[...document.querySelectorAll('section.board *')].map((one) => one.getBoundingClientRect().right))"
    )
    assert edge <= 1041
    page.emulate_media(media="screen", color_scheme=scheme)
    page.locator("html:not(.paper)").wait_for()


def test_a_letter_that_xml_lacks_does_not_break_a_picture(visit, download):
    page, _ = visit("text=a%01b%02c+%3Cscript%3Ealert(1)%3C/script%3E")
    page.get_by_test_id("export").click()
    svg = download(page, "export-board-svg")
    alone = page.context.browser.new_page()
    alone.goto(svg.as_uri())
    assert alone.evaluate("document.documentElement.tagName") == "svg"
    assert alone.locator("script").count() == 0
    alone.close()


def _pixels(path):
    """The pixels of a picture, [height, width, 4]."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGBA"))
