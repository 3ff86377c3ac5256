"""The engines of the page answer alike: the server's, and the one that runs the model in the browser.

What a page of recorded answers has is asked of it in the same way; see also `test_recording`.
"""

from __future__ import annotations

import numpy as np
import pytest
from explorer_engines import ENGINES, answered, compared
from explorer_page import NEEDS_PAGE, hosted
from yardstick import close

import onnxlens
from onnxlens.plugins.explorer import Engine
from onnxlens.plugins.explorer._live import live_page
from onnxlens.plugins.explorer._recording import page as recorded_page
from onnxlens.plugins.explorer._recording import record
from onnxlens.plugins.explorer._requests import ModelRequest, TokenizeRequest
from onnxlens.plugins.explorer._server import BUILT
from onnxlens.plugins.explorer._site import write_site

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
OTHER = "When Mary and Tom went to the shop, Mary gave a drink to"
BOARD = ["next", "guesses", "effects", "sources"]
TEXTS = ["naïve 😀 of 北京, it's\n\n  x", "a<|endoftext|>b", "", " " * 7 + "y", "the drinks aren't 3.14159, e.g.!"]


@pytest.fixture(scope="module", params=[None, "llama"], ids=["tiny", "llama"])
def lens(request, bundle):
    """A model."""
    with onnxlens.load(request.param and bundle(request.param), provider="cpu", threads=1) as lens:
        yield lens


@pytest.fixture(scope="module")
def engine(lens):
    """The engine in Python, which the others are compared with."""
    return Engine(lens)


@pytest.fixture(scope="module", params=["server", "site", "file"])
def page(request, lens, served, browser, tmp_path_factory):
    """A page that asks an engine; fails on any message, and on any request to another origin."""
    folder = tmp_path_factory.mktemp("engines")
    said = []
    page = browser.new_page()
    # Chromium itself reports each error status of a response.
    page.on("console", lambda message: "status of 400" in message.text or said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    if request.param == "file":
        path = folder / "page.html"
        path.write_text(live_page(lens, BUILT, "the cat sat on the mat"), encoding="utf-8")
        page.on("request", lambda one: one.url.startswith(("file:", "data:", "blob:")) or said.append(one.url))
        opened(page, path.as_uri())
        yield page
    elif request.param == "server":
        address = served(None if lens.bundle.name == "tiny" else lens.bundle.path).address
        page.on("request", lambda one: one.url.startswith((address, "data:", "blob:")) or said.append(one.url))
        opened(page, address)
        yield page
    else:
        write_site(folder / "site", [lens], BUILT)
        with hosted(folder / "site") as address:
            page.on("request", lambda one: one.url.startswith((address, "data:", "blob:")) or said.append(one.url))
            opened(page, address)
            yield page
    page.close()
    assert said == []


def opened(page, address):
    """Opens a page, and waits for its first board."""
    page.goto(f"{address}#text=the cat sat on the mat")
    page.get_by_test_id("difference").wait_for(timeout=60_000)


def words(engine):
    """A text, another one of as many tokens, and ids of the text."""
    is_tiny = engine.model(ModelRequest())["name"] == "tiny"
    text, other = (TEXT, OTHER) if is_tiny else ("the cat sat on the mat", "the cat on on the mat")
    return text, other, [one["id"] for one in engine.tokenize(TokenizeRequest(text=text))["tokens"]]


def test_texts_are_tokenized_as_in_python(page, engine):
    compared(page, engine, [["tokenize", {"text": text}] for text in TEXTS])


def test_recorded_answers_are_those_of_python(engine, browser, tmp_path):
    text, _, _ = words(engine)
    path = tmp_path / "page.html"
    path.write_text(recorded_page(BUILT, *record(engine, text)), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.get_by_test_id("difference").wait_for()
    asked = [["tokenize", {"text": text}], ["run", {"text": text, "reads": BOARD}]]
    assert compared(page, engine, asked) > 100
    page.close()


def test_every_hook_point_and_weight_is_the_runners(page, engine):
    text, _, ids = words(engine)
    model = engine.model(ModelRequest())
    points = [point["name"] for point in model["hook_points"]]
    weights = [weight["name"] for weight in model["weights"]]
    asked = [
        ["run", {"text": text, "reads": points}],
        ["run", {"ids": ids, "reads": ["blocks.1.attn.hook_q[3,1]", "blocks.0.mlp.hook_post[:,7]", "blocks.0.attn.*"]}],
        ["run", {"ids": ids, "reads": ["blocks.0.hook_resid_pre[2:5,:3]", "logits[2,5]", "logits[3]"]}],
        *(["run", {"ids": ids[:2], "reads": [f"{name}[1]"]}] for name in weights),
    ]
    assert compared(page, engine, asked) > 10_000


def test_derived_values_are_those_of_python(page, engine):
    text, _, ids = words(engine)
    out = "blocks.1.mlp.W_out[5]"
    asked = [
        ["run", {"text": text, "reads": BOARD}],
        ["run", {"ids": ids, "reads": [*BOARD, "ranks", "norms", "neurons"], "position": -2, "top": 3}],
        ["run", {"ids": ids, "reads": ["guesses", "surprisal"], "positions": [1, 4], "token": 7, "against": 9}],
        ["run", {"ids": ids, "reads": ["unembedded"], "directions": ["blocks.1.attn.hook_result[3,1]", out]}],
    ]
    assert compared(page, engine, asked) > 1000


def test_gradients_are_those_of_python(page, engine):
    text, other, ids = words(engine)
    asked = [
        ["run", {"text": text, "reads": ["gradient"]}],
        ["run", {"ids": ids, "reads": ["gradient"], "position": 2, "token": 5, "against": 8}],
        ["run", {"text": other, "reads": ["gradient"], "token": 5, "against": 5}],
    ]
    if engine.model(ModelRequest())["has_gradients"]:
        assert compared(page, engine, asked) == sum(len(ids) for _ in asked)
    else:
        (answer,) = page.evaluate(ENGINES, [asked[:1]])
        assert "'onnxlens export" in answer["error"] and "--gradients" in answer["error"]


def test_costs_are_counted_as_in_python_and_measured(page, engine):
    _, _, ids = words(engine)
    request = {"ids": ids, "reads": ["costs"]}
    (found,) = page.evaluate(ENGINES, [[["run", request]]])
    costs, expected = (one["facts"]["costs"] for one in (found, answered(engine, "run", request)))
    own = [{**part, "seconds": None} for part in costs["parts"]]  # which browsers do not measure
    assert own == [{**part, "seconds": None} for part in expected["parts"]]
    assert costs["kv_cache_bytes"] == expected["kv_cache_bytes"]
    assert all(0 < costs[name] < 60 for name in ("seconds", "seconds_cached"))


def edit(point, operation, source=None, **rest):
    """An edit of a hook point of a block."""
    return {"hook": f"blocks.{point}", "operation": operation, **rest, **({"from": source} if source else {})}


def test_edits_are_those_of_python(page, engine):
    text, other, ids = words(engine)
    steer = {"text": other, "minus": text, "position": -1}
    last = len(ids) - 1
    edits = [
        [edit("1.attn.hook_z", "zero", heads=1)],
        [edit("0.hook_mlp_out", "zero", positions=[1, -1])],
        [edit("0.attn.hook_z", "scale", factor=-0.5, heads=[0, 1], positions="2:")],
        [edit("1.mlp.hook_post", "replace", value=2.5, neurons=3)],
        [edit("0.attn.hook_z", "mean", heads=1)],
        [edit("0.hook_mlp_out", "mean"), edit("1.hook_mlp_out", "zero")],
        [edit("1.attn.hook_pattern", "freeze", heads=0), edit("0.hook_mlp_out", "zero")],
        [edit("1.attn.hook_pattern", "replace", value=0.25, heads=1, positions=last, keys=1)],
        [edit("1.hook_resid_pre", "patch", source={"text": other}, positions=2)],
        [edit("1.hook_resid_pre", "patch", source={"text": other, "position": 2}, positions=4)],
        [edit("1.hook_resid_pre", "add", factor=2, source=steer)],
        [edit("*.attn.hook_z", "scale", factor=2, heads=0)] * 2,
    ]  # fmt: skip
    reads = [*BOARD, "ranks", "norms", "blocks.1.attn.hook_z", "blocks.1.attn.hook_pattern"]
    asked = [["run", {"ids": ids, "reads": reads, "edits": one, "token": 5, "against": 8}] for one in edits]
    assert compared(page, engine, asked) > 1000


def test_edits_are_written_out_as_in_python(page, engine):
    text, other, ids = words(engine)
    written = [
        edit("1.attn.hook_z", "mean", heads=1),
        edit("1.attn.hook_pattern", "freeze", heads=[0, 1]),
        edit("1.hook_resid_pre", "patch", source={"text": other}, positions=2),
        edit("1.hook_resid_pre", "patch", source={"text": other, "position": 2}, positions=4),
        edit("1.hook_resid_pre", "add", factor=2, source={"text": other, "minus": text, "position": -1}),
        edit("1.hook_mlp_out", "scale", factor=0.5, positions="2:"),
        edit("*.attn.hook_z", "mean", heads=0),
        edit("0.attn.hook_pattern", "replace", value=0.25, heads=1, positions=3, keys=1),
    ]
    asked = [["run", {"ids": ids, "reads": ["edits"], "edits": [one]}] for one in written]
    compared(page, engine, asked)
    found = page.evaluate(ENGINES, [[["run", {"ids": ids, "reads": ["edits", "next"], "edits": written[:3]}]]])[0]
    again = ["run", {"ids": ids, "reads": ["next"], "edits": found["facts"]["edits"]}]
    logits = [np.array(one["arrays"]["next.logits"][1]) for one in (answered(engine, *again), found)]
    close(*logits, name="logits")  # Python reads them


def test_sweeps_are_those_of_python(page, engine):
    text, other, ids = words(engine)
    pair = {"token": 5, "against": 8}
    patches = ("patch_resid_pre", "patch_attn_out", "patch_mlp_out", "patch_heads")
    asked = [
        ["sweep", {"ids": ids, "kind": "ablate_heads", **pair}],
        ["sweep", {"text": text, "kind": "ablate_mlps", "layers": [1], "token": 5}],
        ["sweep", {"ids": ids, "kind": "head_scores"}],
        *(["sweep", {"ids": ids, "kind": kind, "other": other, **pair}] for kind in patches),
    ]
    compared(page, engine, asked)


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "greedy"},
        {},
        {"temperature": 0.7, "top_k": 20},
        {"top_p": 0.8, "temperature": 1.5},
        {"sampler": "temperature=1.3 | top_k=50 | top_p=0.9 | min_p=0.02 | multinomial"},
        {"temperature": 0},
    ],
)
def test_a_seed_gives_the_tokens_of_python(page, engine, options):
    text, _, _ = words(engine)
    most = 4 if engine.model(ModelRequest())["cfg"]["n_ctx"] < 64 else 16
    asked = [["continue", {"text": text, "max_new_tokens": most, "seed": seed, **options}] for seed in (0, 7)]
    compared(page, engine, asked)


def test_a_text_goes_on_with_its_edits_as_in_python(page, engine):
    text, _, _ = words(engine)
    for operation in ("zero", "mean"):
        edits = [edit("0.attn.hook_z", operation, heads=1), edit("1.hook_mlp_out", "scale", factor=0.5)]
        request = {"text": text, "max_new_tokens": 4, "seed": 3, "sampler": "greedy", "edits": edits}
        compared(page, engine, [["continue", request]])


def test_a_text_goes_on_until_the_model_is_full(page, engine):
    full = engine.model(ModelRequest())["cfg"]["n_ctx"]
    ids = [3 + place % 5 for place in range(full - 2)]
    request = {"ids": ids, "max_new_tokens": 20, "seed": 1, "sampler": "greedy"}
    answers = page.evaluate(ENGINES, [[["continue", request], ["continue", {**request, "ids": [*ids, 3, 4]}]]])
    assert 1 <= len(answers[0]["facts"]["tokens"]) <= 2
    said = f"The text has {full} tokens, as many as the model reads: shorten it to go on."
    assert answers[1] == {"error": said}


@pytest.mark.parametrize("sampler", [None, "greedy", "temperature=1.5 | top_k=40 | top_p=0.9 | min_p=0.05", "top_k=1"])
def test_a_chain_is_explained_as_in_python(page, engine, sampler):
    text, _, _ = words(engine)
    asked = [["run", {"text": text, "reads": ["chain"], "sampler": sampler, "seed": 3, "top": top}] for top in (5, 10)]
    compared(page, engine, asked)
