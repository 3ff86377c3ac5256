"""The tour in Chromium: each step says what the engine computes, in each language, and goes on after its action."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from explorer_page import NEEDS_PAGE

from onnxlens.plugins.explorer._requests import ModelRequest, RunRequest

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
LANGUAGES = Path(__file__).parents[3] / "plugins" / "explorer" / "web" / "src" / "lang"
TEXTS = {code: json.loads((LANGUAGES / code / "tour.json").read_text(encoding="utf-8")) for code in ("en", "zh")}
STEPS = [
    *("tokens", "embedding", "positions", "stream", "norm", "qkv", "attention", "heads", "output", "residual", "mlp"),
    *("dropout", "logits", "sampling", "break", "type", "end"),
]
EDIT = {"hook": "blocks.4.attn.hook_z", "operation": "zero", "heads": 1}


def fixed(value, digits=2):
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value):
    shown = f"{abs(value):.2f}"
    return ("−" if value < 0 and float(shown) else "+") + shown


def percent(share):
    share *= 100
    if share >= 0.1:
        return f"{share:.{1 if share >= 10 else 2}f} %"
    digits, _, exponent = f"{share:.1e}".partition("e")
    return f"{digits}e{int(exponent)} %"


def visible(label):
    return label.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


class Expected:
    """What the steps say about a text, computed from the engine's answers."""

    def __init__(self, engine, **request):
        self.engine, self.request = engine, request
        self.model = engine.model(ModelRequest())
        self.cfg = self.model["cfg"]
        self.answer = engine.run(RunRequest(reads=["next", "guesses", "effects", "sources"], **request))
        facts, arrays = self.answer.facts, self.answer.arrays
        self.here, self.token = facts["position"], facts["token"]
        self.names = {"answer": self.label(self.token), "rival": self.label(facts["against"])}
        logits = arrays["next.logits"].astype(np.float64)
        self.shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        heads, sources = arrays["effects.heads"], arrays["sources"]
        self.layer, self.head = map(int, np.unravel_index(np.abs(heads).argmax(), heads.shape))
        self.effect = float(heads[self.layer, self.head])
        through = sources[self.layer, self.head]
        self.key = int((np.sign(self.effect) * through).argmax())
        self.through = float(through[self.key])
        self.mlp = int(np.abs(arrays["effects.mlps"]).argmax())
        self.second = min(1, len(facts["tokens"]) - 1)

    def label(self, token):
        return visible(self.answer.facts["labels"][str(token)])

    def name(self, position):
        return visible(self.answer.facts["tokens"][position]["label"])

    def read(self, address):
        facts = self.answer.facts
        pair = {"position": facts["position"], "token": facts["token"], "against": facts["against"]}
        request = {**self.request, **pair, "reads": [address]}
        return self.engine.run(RunRequest(**request)).arrays[address].astype(np.float64)

    def has(self, hook):
        return any(point["name"] == hook for point in self.model["hook_points"])

    def said(self, step):
        """The paragraphs of a step: their keys, and their values."""
        return getattr(self, f"_{step}")()

    def _tokens(self):
        tokens = self.answer.facts["tokens"]
        values = {"count": len(tokens), "token": self.name(self.second), "id": tokens[self.second]["id"]}
        values["last"] = self.cfg["d_vocab"] - 1
        folded = [("folded", {})] if len(tokens) >= 60 else []
        return [("one" if len(tokens) == 1 else "text", values), *folded]

    def _embedding(self):
        length = np.linalg.norm(self.read(f"hook_embed[{self.second}]"))
        token = self.answer.facts["tokens"][self.second]
        values = {"width": self.cfg["d_model"], "token": self.name(self.second), "id": token["id"]}
        return [("text", {**values, "value": fixed(length)})]

    def _positions(self):
        if not self.has("hook_pos_embed"):
            turned = self.cfg["rotary_dim"] or self.cfg["d_head"]
            values = {"turned": turned, "width": self.cfg["d_head"], "position": self.here}
            return [("rotary", {**values, "token": self.name(self.here)})]
        length = np.linalg.norm(self.read(f"hook_pos_embed[{self.second}]"))
        values = {"position": self.second, "token": self.name(self.second), "limit": self.cfg["n_ctx"]}
        return [("learned", {**values, "value": fixed(length)})]

    def _stream(self):
        values = {"layers": self.cfg["n_layers"], "width": self.cfg["d_model"], "token": self.name(self.here)}
        return [("text", values)]

    def _norm(self):
        norm = f"blocks.{self.layer}.ln1"
        facts = self.model["normalizations"][norm]
        stream = self.read(f"{facts['reads']}[{self.here}]")
        scale = fixed(self.read(f"{norm}.hook_scale[{self.here}]")[0], 3)
        values = {"width": len(stream), "layer": self.layer, "token": self.name(self.here), "scale": scale}
        # The claims themselves: that the scale is the standard deviation, or the root of the mean square.
        spread = stream.std() if facts["kind"] == "LN" else np.sqrt((stream**2).mean())
        assert spread == pytest.approx(float(scale.replace("−", "-")), rel=1e-3, abs=6e-4)
        return [("text", {**values, "mean": fixed(stream.mean(), 3)}) if facts["kind"] == "LN" else ("rms", values)]

    def _qkv(self):
        heads, keys = self.cfg["n_heads"], self.cfg["n_key_value_heads"]
        values = {"layer": self.layer, "head": self.head, "heads": heads, "width": self.cfg["d_head"]}
        return [("text", values) if keys in (None, heads) else ("grouped", {**values, "keys": keys})]

    def _attention(self):
        attn = f"blocks.{self.layer}.attn"
        rotated = "rot_" if self.has(f"{attn}.hook_rot_q") else ""
        shared = self.cfg["n_heads"] // (self.cfg["n_key_value_heads"] or self.cfg["n_heads"])
        query = self.read(f"{attn}.hook_{rotated}q[{self.here},{self.head}]")
        key = self.read(f"{attn}.hook_{rotated}k[{self.key},{self.head // shared}]")
        score, share = (
            float(self.read(f"{attn}.hook_{name}[{self.head},{self.here},{self.key}]"))
            for name in ("attn_scores", "pattern")
        )
        root = np.sqrt(self.cfg["d_head"])
        assert query @ key / root == pytest.approx(score, rel=1e-4, abs=1e-4)
        names = {"query": self.name(self.here), "key": self.name(self.key)}
        values = {**names, "product": fixed(query @ key), "root": fixed(root), "score": fixed(score)}
        seen = {**names, "count": self.here + 1, "share": percent(share)}
        return [("text", values), ("alone" if self.here == 0 else "shares", seen)]

    def _heads(self):
        count = self.cfg["n_layers"] * self.cfg["n_heads"]
        values = {**self.names, "layer": self.layer, "head": self.head, "count": count, "key": self.name(self.key)}
        values |= {"effect": signed(self.effect), "through": signed(self.through)}
        return [("text" if self.effect >= 0 else "opposes", values)]

    def _output(self):
        length = np.linalg.norm(self.read(f"blocks.{self.layer}.attn.hook_result[{self.here},{self.head}]"))
        values = {"layer": self.layer, "head": self.head, "width": self.cfg["d_model"], "small": self.cfg["d_head"]}
        return [("text", {**values, "token": self.name(self.here), "value": fixed(length)})]

    def _residual(self):
        best = self.answer.arrays["guesses.ids"][:, self.here, 0].tolist()
        since = max((state for state, one in enumerate(best) if one != best[-1]), default=-1)  # the last other guess
        values = {"token": self.name(self.here), "guess": self.label(best[-1])}
        return [("same", values) if since == -1 else ("text", {**values, "first": self.label(best[0]), "since": since})]

    def _mlp(self):
        gated = self.cfg["gated_mlp"]
        above = int((self.read(f"blocks.{self.mlp}.mlp.hook_{'pre' if gated else 'post'}[{self.here}]") > 0).sum())
        values = {"layer": self.mlp, "width": self.cfg["d_model"], "neurons": self.cfg["d_mlp"], "above": above}
        values |= {"activation": self.cfg["act_fn"], "token": self.name(self.here)}
        effect = signed(float(self.answer.arrays["effects.mlps"][self.mlp]))
        return [
            ("gated" if gated else "text", values),
            ("effect", {**self.names, "layer": self.mlp, "effect": effect}),
        ]

    def _dropout(self):
        return [("text", {})]

    def _logits(self):
        logits = self.answer.arrays["next.logits"]
        values = {**self.names, "token": self.name(self.here), "vocabulary": len(logits)}
        share = percent(self.shares[self.token])
        return [("text", {**values, "logit": fixed(float(logits[self.token])), "share": share})]

    def _sampling(self):
        return [("text", {**self.names, "share": percent(self.shares[self.token])})]

    def _break(self):
        values = {**self.names, "layer": self.layer, "head": self.head, "effect": signed(self.effect)}
        return [("text" if self.effect >= 0 else "opposes", values)]

    def _type(self):
        return [("whole", {**self.names, "share": percent(self.shares[self.token])})]

    def _end(self):
        best = int(self.answer.arrays["next.ids"][0])
        share = percent(self.shares[best])
        return [("still", {"guess": self.label(best), "share": share, "then": share}), ("text", {})]


def written(language, step, said):
    """Paragraphs as the page writes them."""
    found = []
    for key, values in said:
        text = TEXTS[language][f"tour-{step}-{key}"]
        found.append(re.sub(r"\{(\w+)\}", lambda hole, values=values: str(values[hole[1]]), text))
    return found


def paragraphs(page, step):
    """What the tour says once it is at a step."""
    shown = page.locator(f"[data-testid=tour][data-step={step}] [data-testid=tour-text][data-ready=true]")
    shown.wait_for()
    return shown.locator("p:not(.ask)").all_text_contents()


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", [None, "llama", "base-float16"])
def test_each_step_says_what_the_engine_computes(visit, bundle, language, name):
    text = TEXT if name is None else "the cat sat on the mat"
    page, engine = visit(f"lang={language}&text={text}", None if name is None else bundle(name))
    expected = Expected(engine, text=text)
    page.get_by_test_id("tour-start").click()
    for number, step in enumerate(STEPS):
        shown = paragraphs(page, step)
        assert shown == written(language, step, expected.said(step))
        assert page.locator(".tour h2").text_content() == TEXTS[language][f"tour-{step}-title"]
        assert f"tour={number}" in page.url
        page.get_by_test_id("tour-next").click()
    page.get_by_test_id("tour").wait_for(state="detached")
    assert "tour=" not in page.url


@pytest.mark.parametrize("name", [None, "llama"])
def test_each_step_selects_what_it_talks_about(visit, bundle, name):
    text = TEXT if name is None else "the cat sat on the mat"
    page, engine = visit(f"text={text}&tour=0", None if name is None else bundle(name))
    one = Expected(engine, text=text)
    head = f"head:{one.layer},{one.head}"
    position = "token:1" if name is None else f"value:blocks.{one.layer}.attn.hook_rot_q"
    selected = {
        "tokens": "token:1", "embedding": "token:1", "positions": position, "stream": f"cell:0,{one.here}",
        "norm": f"norm:blocks.{one.layer}.ln1,{one.here}", "qkv": head, "attention": f"{head},{one.here},{one.key}",
        "heads": "tool:heads", "output": head, "residual": f"cell:{one.cfg['n_layers']},{one.here}",
        "mlp": f"mlp:{one.mlp},{one.here}", "dropout": f"block:{one.mlp},{one.here}", "logits": "value:probabilities",
        "sampling": "tool:sampling", "break": head,
    }  # fmt: skip
    for step, at in selected.items():
        paragraphs(page, step)
        assert f"at={at}" in page.url, step
        page.get_by_test_id("tour-next").click()


def test_a_step_is_an_address_and_can_be_left(visit):
    page, engine = visit("tour=6")
    expected = Expected(engine, text=TEXT)
    assert paragraphs(page, "attention") == written("en", "attention", expected.said("attention"))
    page.get_by_test_id("tour-back").press("Enter")
    paragraphs(page, "qkv")
    assert "tour=5" in page.url
    page.get_by_test_id("tour-skip").press("Enter")
    page.get_by_test_id("tour").wait_for(state="detached")
    assert "at=head:4,1" in page.url  # what was selected stays
    assert page.evaluate("document.documentElement.dataset.tour") is None
    page.get_by_test_id("tour-start").press("Enter")
    paragraphs(page, "qkv")  # where it was left


def test_the_temperature_of_the_tour_does_not_stay(visit):
    page, _ = visit("tour=13")
    paragraphs(page, "sampling")
    page.get_by_test_id("temperature").fill("1.4")
    page.get_by_test_id("tour-done").wait_for()
    page.get_by_test_id("tour-next").click()
    paragraphs(page, "break")
    assert page.get_by_test_id("temperature").input_value() == "1"
    page.get_by_test_id("tour-back").click()
    paragraphs(page, "sampling")
    page.get_by_test_id("temperature").fill("1.4")
    page.get_by_test_id("tour-skip").click()
    page.get_by_test_id("tour").wait_for(state="detached")
    assert page.get_by_test_id("temperature").input_value() == "1"


def test_the_steps_follow_another_text(visit):
    page, engine = visit("tour=7")
    page.get_by_test_id("text").fill("the cat sat on the mat")
    expected = Expected(engine, text="the cat sat on the mat")
    wanted = written("en", "heads", expected.said("heads"))[0]
    page.get_by_test_id("tour-text").get_by_text(wanted, exact=True).wait_for()


def test_claims_that_do_not_hold_are_not_made(visit):
    page, engine = visit("text=Once&tour=0")
    expected = Expected(engine, text="Once")
    assert paragraphs(page, "tokens") == written("en", "tokens", expected.said("tokens"))
    assert "one token of this text" in paragraphs(page, "tokens")[0]
    page.evaluate("location.hash = 'text=Once&tour=6'")
    assert "sees only itself: its share is 100 %" in paragraphs(page, "attention")[1]
    # The rival before the answer: what supports one opposes the other.
    facts = Expected(engine, text=TEXT).answer.facts
    pair = {"token": facts["against"], "against": facts["token"]}
    page.evaluate(f"location.hash = 'text={TEXT}&token={pair['token']}&against={pair['against']}&tour=7'")
    opposed = Expected(engine, text=TEXT, **pair)
    wanted = written("en", "heads", opposed.said("heads"))[0]
    assert "works against the answer" in wanted
    page.get_by_test_id("tour-text").get_by_text(wanted, exact=True).wait_for()
    long = " ".join([TEXT + " Mary."] * 5)
    page.evaluate(f"location.hash = 'text={long}&tour=0'")
    page.get_by_test_id("tour-text").get_by_text("folded into one").wait_for()


@pytest.mark.parametrize("way", ["mouse", "keyboard", "help"])
def test_the_head_is_to_be_opened(visit, way):
    page, _ = visit("tour=7")
    paragraphs(page, "heads")
    assert page.get_by_test_id("tour-ask").text_content().strip().startswith("Click head 4.1 ")
    if way == "mouse":
        page.get_by_test_id("head-4-1").click()
    elif way == "keyboard":
        page.get_by_test_id("go-4-1").press("Enter")
    else:
        page.get_by_test_id("tour-help").click()
    page.get_by_test_id("tour-done").wait_for()
    paragraphs(page, "output")


@pytest.mark.parametrize("way", ["mouse", "keyboard", "help"])
def test_the_temperature_is_to_be_dragged(visit, way):
    page, engine = visit("tour=13")
    expected = Expected(engine, text=TEXT)
    paragraphs(page, "sampling")
    slider = page.get_by_test_id("temperature")
    if way == "mouse":
        box = slider.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2, steps=5)
        page.wait_for_timeout(300)
        page.mouse.up()
    elif way == "keyboard":
        slider.focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
    else:
        page.get_by_test_id("tour-help").click()
    temperature = float(slider.input_value())
    assert temperature > 1
    logits = expected.answer.arrays["next.logits"].astype(np.float64) / temperature
    share = (np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())[expected.token]
    values = {"temperature": fixed(temperature), "share": percent(share), "plain": percent(expected.shares.max())}
    (wanted,) = written("en", "sampling", [("warm", {**expected.names, **values})])
    page.get_by_test_id("tour-text").get_by_text(wanted, exact=True).wait_for()
    paragraphs(page, "break")


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_the_head_is_to_be_switched_off_and_the_text_to_be_changed(visit, way):
    page, engine = visit("tour=14")
    paragraphs(page, "break")
    if way == "mouse":
        page.get_by_test_id("switch").click()
    else:
        page.get_by_test_id("head-4-1").focus()
        page.keyboard.press("x")
    page.get_by_test_id("tour-done").wait_for()
    shown = paragraphs(page, "type")
    before = Expected(engine, text=TEXT)
    pair = {"token": before.token, "against": before.answer.facts["against"]}
    edited = Expected(engine, text=TEXT, edits=[EDIT], **pair)
    logits = [one.answer.facts["effects"]["logit"] for one in (before, edited)]
    best = int(edited.answer.arrays["next.ids"][0])
    values = {**before.names, "before": signed(logits[0]), "after": signed(logits[1]), "now": edited.label(best)}
    held = "holds" if best == before.token else "flipped"
    assert shown == written("en", "type", [(held, values), ("again", {})])
    assert "“Mary” in place of the last “John”" in page.get_by_test_id("tour-ask").text_content()
    other = "When Mary and John went to the shop, Mary gave a drink to"
    if way == "mouse":
        page.get_by_test_id("tour-help").click()
        assert page.get_by_test_id("text").input_value() == other
    else:
        page.get_by_test_id("text").fill(other)
    changed = Expected(engine, text=other, edits=[EDIT])
    now = int(changed.answer.arrays["next.ids"][0])
    values = {"guess": changed.label(now), "share": percent(changed.shares[now])}
    if now == best:
        first = ("still", {**values, "then": percent(edited.shares[best])})
    else:
        first = ("changed", {**values, "was": edited.label(best)})
    assert paragraphs(page, "end") == written("en", "end", [first, ("text", {}), ("edits", {})])


def test_on_a_phone_the_tour_is_in_the_sheet(visit):
    page, _ = visit("tour=0", viewport={"width": 360, "height": 780})
    for step in STEPS:
        paragraphs(page, step)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, step
        page.get_by_test_id("tour-next").click()
