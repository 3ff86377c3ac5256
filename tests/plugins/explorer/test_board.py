"""The board in Chromium: long texts, deep models, two texts, edits, phones; every number is the engine's."""

from __future__ import annotations

import re

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE, number

from onnxlens.plugins.explorer._requests import RunRequest

pytestmark = NEEDS_PAGE

TEXT = "When Mary and John went to the shop, John gave a drink to"
OTHER = "When Mary and Tom went to the shop, Mary gave a drink to"
LONG = " ".join([TEXT + " Mary."] * 7)


WORDS = ["the", "cat", "and", "a", "dog", "ran", "to", "Mary", "while", "John", "gave", "them", "an", "old", "house"]

# Reads what all cells of the board say at once.
CELLS = """() => Array.from(document.querySelectorAll(".cell"), (cell) => {
  const [, state, position] = cell.id.split("-").map(Number);
  const [label, share] = Array.from(cell.querySelectorAll("span"), (one) => one.textContent);
  return [state, position, label, Number(share)];
})"""


TOKENS = """() => Array.from(document.querySelectorAll("[data-testid^=token-]"), (one) =>
  one.textContent.replace(/^\\d+ /, ""))"""


def readable(label):
    return label.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


def until(page, script, expected):
    """Waits until a script returns what is expected, and returns it."""
    for _ in range(200):
        found = page.evaluate(script)
        if expected(found) if callable(expected) else found == expected:
            return found
        page.wait_for_timeout(25)
    raise AssertionError(f"{found!r} is not {expected!r}")


def go(page, state):
    """Goes to another state of the page, as a link does."""
    page.evaluate("state => { location.hash = state; }", state)


def board(engine, **request):
    """The board of a run, as the page reads it."""
    return engine.run(RunRequest(reads=["next", "guesses", "effects", "sources"], **request))


def shown_rows(page):
    """The rows from top to bottom: a position, or the first and the last of a fold."""
    rows = []
    for one in page.locator("[data-testid^=token-], [data-testid^=fold-]").all():
        numbers = [int(found) for found in re.findall(r"\d+", one.get_attribute("data-testid"))]
        rows.append((numbers[0], numbers[-1]))
    return rows


def test_a_long_text_is_folded_and_each_token_is_in_one_row(visit):
    page, engine = visit(f"text={LONG}")
    count = len(board(engine, text=LONG).facts["tokens"])
    rows = shown_rows(page)
    assert [one for first, last in rows for one in range(first, last + 1)] == list(range(count))
    assert len(rows) < count / 2
    first, last = max(rows, key=lambda row: row[1] - row[0])
    page.get_by_test_id(f"fold-{first}-{last}").click()
    page.get_by_test_id(f"token-{first}").wait_for()
    assert len(shown_rows(page)) > len(rows)


def test_the_minimap_goes_to_a_token_by_keyboard(visit):
    page, _ = visit(f"text={LONG}")
    page.get_by_role("slider", name="Go to a token").focus()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    page.get_by_test_id("token-40").wait_for()
    assert "at=token:40" in page.url


def test_the_lines_of_a_folded_text_have_the_sum_of_their_row(visit):
    page, engine = visit(f"text={LONG}")
    sources = board(engine, text=LONG).arrays["sources"]
    rows = shown_rows(page)
    sums = np.stack([sources[..., first : last + 1].sum(-1) for first, last in rows], -1)  # [L, H, rows]
    shown = page.locator("svg path title").all_text_contents()
    assert shown
    largest = np.sort(np.abs(sums).ravel())[::-1]
    for place, title in enumerate(sorted(shown, key=lambda one: -abs(number(one.split()[1])))):
        name, effect = title.split()
        layer, head = map(int, name.split("."))
        assert np.abs(sums[layer, head] - number(effect)).min() <= 0.00501
        assert abs(abs(number(effect)) - largest[place]) <= 0.00501


def test_two_texts_stand_side_by_side(visit):
    page, engine = visit(f"text={TEXT}&other={OTHER}")
    page.get_by_test_id("comparison").wait_for()
    first = board(engine, text=TEXT)
    pair = {"token": first.facts["token"], "against": first.facts["against"]}
    second = board(engine, text=OTHER, **pair)
    for prefix, answer in (("", first), ("other-", second)):
        for state, position in np.ndindex(answer.arrays["guesses.ids"].shape[:2]):
            cell = page.get_by_test_id(f"{prefix}cell-{state}-{position}")
            best = answer.facts["labels"][str(answer.arrays["guesses.ids"][state, position, 0])]
            assert cell.get_attribute("aria-label").startswith(best.replace(" ", "␣"))
    flips = (first.arrays["guesses.ids"][..., 0] != second.arrays["guesses.ids"][..., 0]).sum()
    assert page.locator(".cell.flipped").count() == flips
    shown = [number(one) for one in re.findall(r"is ([+−][\d.]+)", page.get_by_test_id("comparison").text_content())]
    assert shown == pytest.approx([one.facts["effects"]["logit"] for one in (first, second)], abs=0.00501)
    page.get_by_role("button", name="End the comparison").click()
    page.get_by_test_id("other-cell-0-0").wait_for(state="detached")


def test_edits_are_shown_before_after_and_as_a_difference(visit):
    edit = {"hook": "blocks.4.attn.hook_z", "operation": "zero", "heads": 1}
    page, engine = visit("at=head:4,1")
    page.get_by_test_id("head-line").wait_for()
    page.keyboard.press("x")
    page.get_by_test_id("flips").wait_for()
    before = board(engine, text=TEXT)
    pair = {"token": before.facts["token"], "against": before.facts["against"]}
    after = board(engine, text=TEXT, edits=[edit], **pair)
    ids, was = after.arrays["guesses.ids"][..., 0], before.arrays["guesses.ids"][..., 0]
    assert number(page.get_by_test_id("flips").text_content()) == (ids != was).sum()
    assert page.locator(".cell.flipped").count() == (ids != was).sum()
    cell = page.get_by_test_id("cell-5-13")
    share = [float(one.arrays["guesses.probabilities"][5, 13, 0]) for one in (after, before)]
    assert number(cell.locator("span").last.text_content()) == round(100 * share[0])
    page.keyboard.down("c")
    assert number(cell.locator("span").last.text_content()) == round(100 * share[1])
    page.keyboard.up("c")
    assert number(cell.locator("span").last.text_content()) == round(100 * share[0])
    page.keyboard.press("d")
    assert ids[5, 13] == was[5, 13]
    assert number(cell.locator("span").last.text_content()) == pytest.approx(100 * (share[0] - share[1]), abs=0.501)


def test_arrow_keys_move_between_heads(visit):
    page, _ = visit()
    page.locator("[data-testid^=head-][tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert "at=head:4,2" in page.url


def test_one_token_has_a_board(visit):
    page, _ = visit("text=Once")
    assert page.get_by_test_id("cell-5-0").is_visible()
    assert page.locator("[data-testid^=token-]").count() == 1


def test_a_phone_shows_one_column_of_depth_and_the_drawer_as_a_sheet(visit):
    page, engine = visit(viewport={"width": 360, "height": 780})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    answer = board(engine, text=TEXT)
    slider = page.get_by_role("slider").first
    for state in (5, 4, 3):
        label = answer.facts["labels"][str(answer.arrays["guesses.ids"][state, 13, 0])].replace(" ", "␣")
        assert page.get_by_test_id(f"cell-{state}-13").text_content().strip().startswith(label)
        assert page.locator(".cell").count() == 14
        slider.press("ArrowLeft")
    page.get_by_role("button", name="Hide the details").click()
    assert page.locator(".drawer").bounding_box()["height"] < 120


@pytest.mark.parametrize(("name", "texts", "length"), [(None, 32, 50), ("llama", 12, 11), ("base-float16", 12, 11)])
def test_the_cells_of_many_texts_are_the_engines(visit, bundle, name, texts, length):
    rng = np.random.default_rng(7)
    page, engine = visit("text=a", None if name is None else bundle(name), viewport={"width": 1600, "height": 900})
    seen = 0
    for _ in range(texts):
        text = " ".join(rng.choice(WORDS, length))
        answer = engine.run(RunRequest(text=text, reads=["next", "guesses", "effects", "sources"]))
        tokens = [readable(token["label"]) for token in answer.facts["tokens"]]
        assert len(tokens) < 60  # else it would be folded
        go(page, f"text={text}")
        until(page, TOKENS, tokens)
        cells = until(page, CELLS, lambda found: all(label != "…" for _, _, label, _ in found))
        ids, shares = answer.arrays["guesses.ids"], answer.arrays["guesses.probabilities"]
        for state, position, label, share in cells:
            best = answer.facts["labels"][str(ids[state, position, 0])]
            assert label == readable(best)
            assert abs(share - 100 * shares[state, position, 0]) <= 0.501
            seen += 1
    assert seen >= (6 if name is None else 3) * texts * 25
