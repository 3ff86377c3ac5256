"""Pages in a browser: they load nothing, complain of nothing, and the pointer reads what the cache holds."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable

import numpy as np
import pytest
from plugin_options import VIEWS

from onnxlens._lens import Lens
from onnxlens.plugins._viewing.reading import read
from onnxlens.plugins.testing import hostile
from onnxlens.plugins.visualizers.builtin import VISUALIZERS

TEXT = "the cat sat on the cat"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="needs Chromium on the PATH: apt-get install chromium"
    ),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a rendering's page, and finds at the end that nothing was said or loaded."""
    said, loaded = [], []
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: loaded.append(request.url))

    def opened(rendering):
        path = rendering.save(tmp_path / "page.html")
        page.goto(path.as_uri())
        drawn = "[...document.querySelectorAll('.drawing')].every(one => one.data !== undefined)"
        until(lambda: page.evaluate(drawn))
        return page

    yield opened
    page.close()
    assert said == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in loaded)


@pytest.fixture(scope="module")
def lens(bundle) -> Lens:
    import onnxlens

    return onnxlens.load(bundle("base"), provider="cpu", threads=1)


def hovered(page, drawing: str, column: float, row: float) -> str:
    """What the pointer reads at a place of a drawing, from 0 to 1 of its width and height."""
    label = page.locator(f"{drawing} .hoverlayer")
    box = page.locator(f"{drawing} .nsewdrag").first.bounding_box()
    page.mouse.move(0, 0)
    until(lambda: label.text_content() == "")
    page.mouse.move(box["x"] + column * box["width"], box["y"] + row * box["height"])
    until(lambda: label.text_content() != "")
    return label.text_content()


def until(found: Callable[[], bool]) -> None:
    """Waits for something on a page; what Playwright offers for it is forbidden to pages that may evaluate nothing."""
    end = time.monotonic() + 20
    while not found():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def number(text: str) -> float:
    """The number that a hover says, in which plotly writes a sign of its own for the minus."""
    return float(re.findall(r":\s*(-?[\d.]+(?:e-?\d+)?)", text.replace("\u2212", "-"))[0])


@pytest.mark.parametrize("name", VISUALIZERS)
def test_every_page_is_quiet(lens, show, name):
    options = VIEWS.get(name, {})
    show(lens.view(name, TEXT, **options))


@pytest.mark.parametrize("name", ["attention", "logit_lens", "predictions", "surprisal", "qkv", "attribution", "flow"])
def test_hostile_tokens_do_nothing(lens, show, name):
    made = VISUALIZERS[name]()
    view = read(lens.runner, lens.tokenizer, made, lens.to_tokens(TEXT)[0], lens)
    page = show(made.draw(hostile(view)))
    assert page.evaluate("document.querySelectorAll('img, iframe, script[src]').length") == 0


def test_attention_is_read_with_the_pointer_and_heads_are_picked(lens, show):
    page = show(lens.view("attention", TEXT))
    _, cache = lens.run_with_cache(TEXT, names_filter="blocks.*.attn.hook_pattern")
    count = len(lens.to_str_tokens(TEXT))
    place = (3.5 / count, 4.5 / count)  # the fourth key of the fifth query
    page.locator(".choice select").select_option("block 0, head 0")
    until(lambda: page.evaluate("document.querySelector('#drawing').data[0].visible"))
    assert number(hovered(page, "#drawing", *place)) == pytest.approx(cache["pattern", 0][0, 0, 4, 3], rel=1e-4)
    page.locator(".choice select").select_option("block 1, head 2")
    until(lambda: page.evaluate("document.querySelector('#drawing').data[6].visible"))
    assert number(hovered(page, "#drawing", *place)) == pytest.approx(cache["pattern", 1][0, 2, 4, 3], rel=1e-4)


def test_a_head_is_picked_in_all_drawings_of_a_comparison_at_once(lens, show):
    page = show(lens.view("compare", TEXT, **VIEWS["compare"]))
    page.locator(".choice select").nth(1).select_option("block 1, head 2")
    for drawing in page.locator(".drawing").all():
        until(lambda drawing=drawing: drawing.evaluate("one => one.data[6].visible"))
        assert drawing.evaluate("one => one.data.filter(trace => trace.visible).length") == 1
    chosen = "[...document.querySelectorAll('.choice select')].map(one => one.value)"
    assert page.evaluate(chosen) == ["block 1, head 2"] * 3 and page.locator(".drawing").count() == 3


def test_the_logit_lens_is_read_with_the_pointer(lens, show):
    shown = lens.view("logit_lens", TEXT)
    page = show(shown)
    panel = next(iter(shown.panels.values()))
    rows, columns = panel.shape
    said = hovered(page, "#drawing", 1.5 / columns, (rows - 0.5) / rows)
    assert number(said) == pytest.approx(panel[-1, 1], rel=1e-4)
    assert shown.notes["probability of the most probable"][-1][1] in said


def test_predictions_are_read_with_the_pointer(lens, show):
    page = show(lens.view("predictions", TEXT, top=4))
    best = lens.predict(TEXT).top[0]
    drawing = "#drawing-1"  # after its heading
    said = hovered(page, drawing, 0.02, 0.14)
    assert number(said) == pytest.approx(best.probability, rel=1e-4)
    assert f"id {best.id}" in said


def test_a_token_is_marked_wherever_it_stands(lens, show):
    page = show(lens.view("surprisal", TEXT))
    tokens = lens.to_str_tokens(TEXT)
    chosen = page.locator("ol.tokens code").nth(1)
    shown = lens.view("surprisal", TEXT)
    hint = chosen.get_attribute("title")
    assert f"surprisal in nats: {shown.values[1]:.4g}" in hint
    assert f"rank: {shown.details['rank'][1]}" in hint
    chosen.click()
    assert page.locator("ol.tokens code.same").count() == tokens.count(tokens[1]) == 2
    chosen.press("Enter")
    assert page.locator("ol.tokens code.same").count() == 0


def clicked(page, drawing: str, column: float, row: float) -> None:
    """Clicks on a place of a drawing, once the pointer reads it."""
    hovered(page, drawing, column, row)
    box = page.locator(f"{drawing} .nsewdrag").first.bounding_box()
    page.mouse.click(box["x"] + column * box["width"], box["y"] + row * box["height"])


def marks(page, drawing: str) -> list[dict]:
    return page.evaluate(f"document.querySelector('{drawing}').layout.shapes ?? []")


def is_cell(mark: dict) -> bool:
    """Whether it is one cell that is marked, not a whole row or column."""
    return (mark["xref"], mark["yref"]) == ("x", "y")


def test_a_token_is_marked_wherever_it_stands_in_a_map(lens, show):
    page = show(lens.view("attention", TEXT))
    tokens = lens.to_str_tokens(TEXT)
    (place, *_), count = [at for at, token in enumerate(tokens) if token == " cat"], len(tokens)
    where = ((place + 0.5) / count, (count - 0.5) / count)
    clicked(page, "#drawing", *where)
    until(lambda: marks(page, "#drawing"))
    found = marks(page, "#drawing")
    for axis, other in (("x", "yref"), ("y", "xref")):
        starts = [one[f"{axis}0"] for one in found if one[other].endswith("domain")]
        assert starts == [at - 0.5 for at, token in enumerate(tokens) if token == " cat"]
    assert len(found) == 4
    clicked(page, "#drawing", *where)
    until(lambda: not marks(page, "#drawing"))


def test_a_token_is_marked_wherever_the_logit_lens_expects_it(lens, show):
    shown = lens.view("logit_lens", TEXT)
    page = show(shown)
    cells = np.array(shown.notes["probability of the most probable"])
    clicked(page, "#drawing", 1.5 / cells.shape[1], (len(cells) - 0.5) / len(cells))
    until(lambda: marks(page, "#drawing"))
    found = [(one["y0"] + 0.5, one["x0"] + 0.5) for one in marks(page, "#drawing") if is_cell(one)]
    assert found == [tuple(place) for place in np.argwhere(cells == cells[-1, 1]).tolist()]
    page.locator(".choice select").select_option("probability of the final prediction")
    until(lambda: not any(is_cell(one) for one in marks(page, "#drawing")))  # whose cells are ranks


def test_a_token_is_marked_in_tables_and_other_drawings(lens, show):
    page = show(lens.view("predictions", TEXT, top=4))
    chosen = lens.predict(TEXT).top[0].token.replace(" ", "␣")
    clicked(page, "#drawing-1", 0.02, 0.14)
    until(lambda: marks(page, "#drawing-1"))
    assert [one["y0"] for one in marks(page, "#drawing-1")] == [-0.5]
    assert [one["x0"] for one in marks(page, "#drawing-3")] == [-0.5]  # the column of the temperatures
    same = page.locator("td.same").all_text_contents()
    assert same == [token for token in lens.view("tokens", TEXT).tokens if token.replace(" ", "␣") == chosen]


def test_a_token_with_signs_of_html_is_marked_too(show):
    from onnxlens.plugins.charts import ColouredText, Heatmap, Stack

    tokens = ["<b>", " &amp;", "<b>"]
    text = ColouredText("text", tokens, [1.0, 2.0, 3.0], unit="nats")
    grid = Heatmap("map", np.ones((1, 3)), ["row"], tokens, unit="nats", row_axis="row", column_axis="token")
    page = show(Stack("both", [text, grid]))
    page.locator("ol.tokens code").first.click()
    until(lambda: marks(page, "#drawing-3"))
    assert [one["x0"] for one in marks(page, "#drawing-3")] == [-0.5, 1.5]
    clicked(page, "#drawing-3", 0.5, 0.5)
    until(lambda: page.locator("ol.tokens code.same").count() == 1)
    assert page.locator("ol.tokens code.same").text_content() == " &amp;"


SIGNS = ['"quoted"', "it's", "a&b", "<b>", "&quot;", "&#39;", "&amp;lt;"]


def test_texts_of_a_drawing_are_shown_as_they_are(show):
    """A quote is a quote: plotly knows few of HTML's entities, and shows the names of all others."""
    from onnxlens.plugins.charts import Bars, Heatmap, Lines

    count, at = len(SIGNS), 'attended to by "all"'
    maps, notes = dict.fromkeys(SIGNS, np.eye(count)), [SIGNS] * count
    grid = Heatmap("map", maps, SIGNS, SIGNS, notes=notes, unit=SIGNS[0], row_axis=SIGNS[1], column_axis=at)
    page = show(grid)
    shown = page.locator("#drawing text").all_text_contents()
    for sign in SIGNS:
        assert shown.count(sign) >= 2 + count  # both axes, and its column of cells
    assert page.locator(".choice option").all_text_contents() == SIGNS
    assert at in shown
    assert SIGNS[4] in hovered(page, "#drawing", 4.5 / count, 0.5 / count)
    page = show(Bars("bars", [(sign, 1.0) for sign in SIGNS], notes={SIGNS[0]: SIGNS[0]}, unit=SIGNS[0], axis=SIGNS[1]))
    shown = page.locator("#drawing text").all_text_contents()
    assert set(SIGNS) <= set(shown)
    assert hovered(page, "#drawing", 0.1, 0.5 / count).count(SIGNS[0]) == 2
    page = show(Lines("lines", {sign: np.ones(count) for sign in SIGNS}, SIGNS, unit=SIGNS[0], axis=SIGNS[1]))
    shown = page.locator("#drawing text").all_text_contents()
    assert all(shown.count(sign) == 2 + (sign in SIGNS[:2]) for sign in SIGNS)  # places and the legend; names of axes


def test_a_label_leaves_its_own_lines(lens, show):
    shown = lens.view("attention", TEXT, layer=0, head=0, values="lines")
    page = show(shown)
    page.locator("svg.links .label[data-of=r3]").hover()
    lines = "[...document.querySelectorAll('svg.links line')]"
    seen = page.evaluate(f"{lines}.filter(one => getComputedStyle(one).display !== 'none').length")
    (values,) = shown.panels.values()
    assert seen == int((np.nan_to_num(values[3]) > 0.02 * np.nanmax(values)).sum())


@pytest.fixture
def frames(browser, lens):
    """Shows views as the outputs of one notebook, the first of which holds plotly's library or does not."""
    page = browser.new_page(viewport={"width": 1100, "height": 3000})

    def shown(*names, held=True):
        outputs = [lens.view(name, TEXT)._repr_html_() for name in names]
        html = [re.sub(r"<script>onnxlensFrames.keep.*?</script>", "", one) for one in outputs]
        page.set_content("".join(f"<div>{one}</div>" for one in (outputs[:1] + html[1:] if held else html)))
        return page

    yield shown
    page.close()


def test_a_notebook_shows_pages_in_frames_that_share_one_library(frames):
    page = frames("attention", "logit_lens", "residual")
    assert len(page.frames) == 4
    for frame in page.frames[1:]:
        until(lambda frame=frame: frame.evaluate("document.querySelector('.drawing')?.data !== undefined"))


def test_frames_are_as_high_as_their_pages(frames):
    page = frames("attention", "tokens", "flow")
    fits = "document.documentElement.classList.contains('framed') && document.body.offsetHeight > 0"
    for frame in page.frames[1:]:
        until(lambda frame=frame: frame.evaluate(f"{fits} && document.documentElement.scrollHeight === innerHeight"))
        high = frame.evaluate("document.body.offsetHeight + 2 * parseFloat(getComputedStyle(document.body).marginTop)")
        assert frame.evaluate("innerHeight") == pytest.approx(high, abs=2)
    assert len({frame.evaluate("innerHeight") for frame in page.frames[1:]}) == 3


def test_a_frame_without_the_library_leaves_the_picture_until_it_is_there(frames, lens):
    page = frames("attention", "tokens", held=False)
    until(lambda: page.evaluate("[...document.querySelectorAll('iframe')].map(one => one.style.display)[0] === 'none'"))
    assert page.evaluate("document.querySelector('img').naturalWidth") > 0
    (keep,) = re.findall(r"<script>(onnxlensFrames.keep.*?)</script>", lens.view("attention", TEXT)._repr_html_())
    page.evaluate(keep)
    frame = page.frames[1]
    until(lambda: frame.evaluate("document.querySelector('.drawing')?.data !== undefined"))
    assert page.evaluate("[...document.querySelectorAll('iframe')].map(one => one.style.display)") == ["", ""]


def focused(page, element: str) -> bool:
    return page.evaluate(f"document.activeElement === document.querySelector('{element}')")


def test_menus_and_cells_are_reached_by_keyboard(lens, show):
    shown = lens.view("attention", TEXT)
    page = show(shown)
    page.keyboard.press("Tab")
    until(lambda: focused(page, ".choice select"))
    first = page.locator(".choice select").input_value()
    assert (
        f"first {first}: the head that attends most to a token other than the first"
        in page.locator(".choice").text_content()
    )
    page.keyboard.press("Home")
    until(lambda: page.evaluate("document.querySelector('#drawing').data[0].visible"))
    page.keyboard.press("Tab")
    until(lambda: focused(page, "#drawing"))
    pattern = shown.panels["block 0, head 0"]
    said = page.locator("output.read")
    page.keyboard.press("ArrowDown")  # the last cell of the last row
    until(lambda: said.text_content())
    assert number(said.text_content()) == pytest.approx(pattern[-1, -1], rel=1e-4)
    for key, cell in (("ArrowLeft", (-1, -2)), ("ArrowUp", (-2, -2)), ("ArrowLeft", (-2, -3))):
        page.keyboard.press(key)
        until(lambda cell=cell: abs(number(said.text_content()) - pattern[cell]) < 1e-4 * pattern[cell])
    page.keyboard.press("Enter")
    until(lambda: marks(page, "#drawing"))
    token = shown.columns[-3]
    starts = [one["x0"] for one in marks(page, "#drawing") if one["yref"].endswith("domain")]
    assert starts == [place - 0.5 for place, label in enumerate(shown.columns) if label == token]


def test_bars_lines_and_tokens_are_read_by_keyboard(lens, show):
    page = show(lens.view("predictions", TEXT, top=4))
    page.locator("#drawing-1").focus()
    said = page.locator("#drawing-1").locator("xpath=../following-sibling::output[1]")
    for candidate in lens.predict(TEXT, top=2).top:
        page.keyboard.press("ArrowDown")
        until(lambda candidate=candidate: f"id {candidate.id}," in said.text_content())
        assert number(said.text_content()) == pytest.approx(candidate.probability, rel=1e-4)
    page = show(lens.view("surprisal", TEXT))
    page.locator("ol.tokens code").nth(1).focus()
    until(lambda: "surprisal in nats" in page.locator("output.read").text_content())


PAGES = ["attention", "attribution", "sampling", "flow", "surprisal", "logit_lens", "compare", "generation"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_no_wider_than_a_phone(lens, show, name):
    page = show(lens.view(name, "".join(f" the cat{'x' * place}" for place in range(6)) if name != "compare" else TEXT,
                          **VIEWS.get(name, {})))  # fmt: skip
    page.set_viewport_size({"width": 360, "height": 740})
    until(lambda: page.evaluate("document.documentElement.clientWidth") == 360)
    until(lambda: page.evaluate("document.documentElement.scrollWidth") == 360)


def test_a_large_map_of_a_page_has_a_pixel_for_each_cell(show):
    from onnxlens.plugins.charts import Heatmap

    count = 1_500
    labels = list(map(str, range(count)))
    grid = Heatmap("m", np.eye(count, k=-1), labels, labels, unit="u", row_axis="r", column_axis="c", squares=True)
    page = show(grid)
    box = page.locator("#drawing .nsewdrag").first.bounding_box()
    assert min(box["width"], box["height"]) >= count


@pytest.mark.parametrize("name", ["attention", "predictions", "generation"])
def test_drawings_follow_dark_mode_and_print_is_light(lens, show, name):
    page = show(lens.view(name, TEXT))
    colours = "document.querySelector('.drawing').layout.font.color"
    width = "document.querySelector('.drawing').getBoundingClientRect().width"
    assert page.evaluate(colours) == "#222222"
    page.emulate_media(color_scheme="dark")
    until(lambda: page.evaluate(colours) == "#e8e8e8")
    page.emulate_media(media="print", color_scheme="dark")
    until(lambda: page.evaluate(colours) == "#222222")
    until(lambda: page.evaluate("document.querySelector('.drawing .main-svg').getBoundingClientRect().width") <= 680)
    assert page.evaluate("getComputedStyle(document.querySelector('.hint')).display") == "none"
    page.emulate_media(media="screen", color_scheme="light")
    until(lambda: page.evaluate(width) > 900)
