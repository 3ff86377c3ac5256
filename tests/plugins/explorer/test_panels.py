"""The panels in Chromium: each number is the runner's, and each arithmetic adds up."""

from __future__ import annotations

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE, number

from onnxlens.plugins.explorer._requests import RunRequest

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
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


def addresses(model, positions, count, rng):
    """Numbers of all hook points, and of the logits."""
    points = [(point["name"], [axis["size"] or positions for axis in point["axes"]]) for point in model["hook_points"]]
    points.append(("logits", [positions, model["cfg"]["d_vocab"]]))
    points.append(("probabilities", [positions, model["cfg"]["d_vocab"]]))
    for place in rng.permutation(len(points))[:count]:
        name, sizes = points[place]
        yield name, tuple(int(rng.integers(size)) for size in sizes)


@pytest.mark.parametrize("name", [None, "llama"])
def test_every_arithmetic_adds_up_to_the_number_that_the_model_computed(visit, bundle, name):
    from onnxlens.plugins.explorer._requests import ModelRequest

    rng = np.random.default_rng(3)
    text = TEXT if name is None else "the cat sat on the mat"
    page, engine = visit(f"text={text}", None if name is None else bundle(name))
    count = len(engine.run(RunRequest(text=text, reads=["norms"])).facts["tokens"])
    for point, place in addresses(engine.model(ModelRequest()), count, 45, rng):
        address = f"{point}[{','.join(map(str, place))}]"
        go(page, f"text={text}&at=value:{address}")
        shown = page.locator(f'[data-testid=arithmetic][data-address="{address}"][aria-busy=false]')
        shown.wait_for()
        assert page.get_by_test_id("arithmetic-disagrees").count() == 0
        total = float(page.get_by_test_id("arithmetic-total").get_attribute("data-value").replace("Infinity", "inf"))
        if point != "probabilities":
            stored = float(engine.run(RunRequest(text=text, reads=[address])).arrays[address])
            shown_stored = page.get_by_test_id("arithmetic-stored").get_attribute("data-value")
            assert float(shown_stored.replace("Infinity", "inf")) == stored
            assert total == stored or abs(total - stored) <= 1e-4 * max(1, abs(stored))


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_each_panel_opens_from_the_board(visit, way):
    page, _ = visit()

    def press(test_id):
        control = page.get_by_test_id(test_id)
        if way == "mouse":
            control.click()
        else:
            control.focus()
            page.keyboard.press("Enter")

    for test_id, at in [
        ("token-1", "token:1"),
        ("cell-3-2", "cell:3,2"),
        ("block-2", "block:2"),
        ("mlp-4", "mlp:4"),
        ("head-3-1", "head:3,1"),
        ("key-1", "head:3,1,13,1"),
    ]:
        press(test_id)
        page.wait_for_timeout(300)
        assert f"at={at}" in page.url
    press("mlp-4")
    page.locator("[data-testid^=neuron-4], [data-testid^='neuron-']").first.wait_for()
    page.locator("button[data-testid^=neuron-]").first.click()
    page.get_by_test_id("neuron-line").wait_for()
    page.locator("[data-address]").first.click()
    page.get_by_test_id("arithmetic-total").wait_for()


def test_the_parts_of_a_block_are_the_runners(visit):
    page, engine = visit("at=block:3")
    for point in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post"):
        address = f"blocks.3.{point}[13]"
        vector = engine.run(RunRequest(text=TEXT, reads=[address])).arrays[address]
        part = page.get_by_test_id(f"part-{address}")
        part.wait_for()
        assert number(part.get_by_text("length").first.text_content()) == pytest.approx(
            float(np.linalg.norm(vector)), abs=0.00501
        )


def test_a_normalisation_shows_its_mean_variance_and_scale(visit):
    page, engine = visit("at=norm:blocks.2.ln2")
    reads = ["blocks.2.hook_resid_mid[13]", "blocks.2.ln2.hook_scale[13]"]
    stream, scale = engine.run(RunRequest(text=TEXT, reads=reads)).arrays.values()
    page.get_by_test_id("norm-scale").wait_for()
    shown = [number(page.get_by_test_id(f"norm-{name}").text_content()) for name in ("mean", "variance", "scale")]
    expected = [stream.astype(np.float64).mean(), stream.astype(np.float64).var(), float(scale.item())]
    assert shown == pytest.approx(expected, abs=1e-4, rel=1e-4)


def test_a_head_says_its_kind_and_its_effect_by_ablation(visit):
    from onnxlens.plugins.explorer._requests import SweepRequest

    page, engine = visit("at=head:4,1")
    facts = engine.run(RunRequest(text=TEXT, reads=["effects"])).facts
    swept = engine.sweep(SweepRequest(text=TEXT, token=facts["token"], against=facts["against"], kind="ablate_heads"))
    page.get_by_test_id("ablation").wait_for()
    said = page.get_by_test_id("ablation").text_content()
    assert number(said.rpartition("by")[2]) == pytest.approx(-float(swept.arrays["effects"][4, 1]), abs=0.00501)
    scores = engine.sweep(SweepRequest(text=TEXT, kind="head_scores")).arrays
    kind = page.get_by_test_id("head-kind").text_content()
    assert kind.strip().startswith("An induction head")
    assert number(kind.partition("repeat,")[2]) == pytest.approx(100 * float(scores["induction"][4, 1]), abs=0.0501)


def test_a_token_shows_the_merges_that_made_its_word(visit):
    page, _ = visit("text=the drinks&at=token:1")
    page.get_by_text("merges that made it").click()
    steps = page.get_by_test_id("merges").locator("li")
    assert steps.count() >= 3
    assert "␣" in page.get_by_test_id("merges").text_content()


def test_letters_of_several_tokens_are_shown_as_bytes(visit):
    page, _ = visit("text=日本&at=token:1")
    page.get_by_text("is made of").wait_for()
    shown = page.locator(".drawer").text_content()
    assert all(f"\u2039{byte}\u203a" in shown for byte in ("97", "a5"))  # bytes of the first letter, a token each
