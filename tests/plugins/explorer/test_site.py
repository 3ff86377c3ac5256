"""A site: the model runs in the browser, and answers as the server does."""

from __future__ import annotations

import numpy as np
import pytest
from explorer_engines import ENGINES, answered, compared
from explorer_page import NEEDS_PAGE, hosted
from yardstick import close

import onnxlens
from onnxlens.plugins.explorer import Engine
from onnxlens.plugins.explorer._requests import ModelRequest, TokenizeRequest
from onnxlens.plugins.explorer._server import BUILT
from onnxlens.plugins.explorer._site import write_site
from onnxlens.runtime.errors import OutputError

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"
OTHER = "When Mary and Tom went to the shop, Mary gave a drink to"
BOARD = ["next", "guesses", "effects", "sources"]
TEXTS = ["naïve 😀 of 北京, it's\n\n  x", "a<|endoftext|>b", "", " " * 7 + "y", "the drinks aren't 3.14159, e.g.!"]


@pytest.fixture(scope="module", params=[None, "llama"])
def site(request, tmp_path_factory, bundle):
    """The address of a site, and the engine in Python of the same model."""
    folder = tmp_path_factory.mktemp("site") / "made"
    with onnxlens.load(request.param and bundle(request.param), provider="cpu", threads=1) as lens:
        write_site(folder, [lens], BUILT)
        with hosted(folder) as address:
            yield address, Engine(lens)


@pytest.fixture(scope="module")
def page(site, browser):
    """The page of the site; fails on any message, and on any request to another origin."""
    said = []
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: one.url.startswith((site[0], "data:", "blob:")) or said.append(one.url))
    page.goto(f"{site[0]}#text=the cat sat on the mat")
    page.get_by_test_id("difference").wait_for(timeout=60_000)
    yield page
    page.close()
    assert said == []


def words(engine):
    """A text, another one of as many tokens, and ids of the text."""
    is_tiny = engine.model(ModelRequest())["name"] == "tiny"
    text, other = (TEXT, OTHER) if is_tiny else ("the cat sat on the mat", "the cat on on the mat")
    return text, other, [one["id"] for one in engine.tokenize(TokenizeRequest(text=text))["tokens"]]


def test_texts_are_tokenized_as_in_python(page, site):
    compared(page, site[1], [["tokenize", {"text": text}] for text in TEXTS])


def test_every_hook_point_and_weight_is_the_runners(page, site):
    engine = site[1]
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


def test_derived_values_are_those_of_python(page, site):
    engine = site[1]
    text, _, ids = words(engine)
    out = "blocks.1.mlp.W_out[5]"
    asked = [
        ["run", {"text": text, "reads": BOARD}],
        ["run", {"ids": ids, "reads": [*BOARD, "ranks", "norms", "neurons"], "position": -2, "top": 3}],
        ["run", {"ids": ids, "reads": ["guesses", "surprisal"], "positions": [1, 4], "token": 7, "against": 9}],
        ["run", {"ids": ids, "reads": ["unembedded"], "directions": ["blocks.1.attn.hook_result[3,1]", out]}],
    ]
    assert compared(page, engine, asked) > 1000


def test_gradients_are_those_of_python(page, site):
    text, other, ids = words(site[1])
    asked = [
        ["run", {"text": text, "reads": ["gradient"]}],
        ["run", {"ids": ids, "reads": ["gradient"], "position": 2, "token": 5, "against": 8}],
        ["run", {"text": other, "reads": ["gradient"], "token": 5, "against": 5}],
    ]
    if site[1].model(ModelRequest())["has_gradients"]:
        assert compared(page, site[1], asked) == sum(len(ids) for _ in asked)
    else:
        (answer,) = page.evaluate(ENGINES, [asked[:1]])
        assert "export it with 'onnxlens export --gradients'." in answer["error"]


def test_costs_are_counted_as_in_python_and_measured(page, site):
    _, _, ids = words(site[1])
    request = {"ids": ids, "reads": ["costs"]}
    (found,) = page.evaluate(ENGINES, [[["run", request]]])
    costs, expected = (one["facts"]["costs"] for one in (found, answered(site[1], "run", request)))
    assert [{**part, "seconds": None} for part in expected["parts"]] == costs["parts"]
    assert costs["kv_cache_bytes"] == expected["kv_cache_bytes"]
    assert all(0 < costs[name] < 60 for name in ("seconds", "seconds_cached"))


def edit(point, operation, source=None, **rest):
    """An edit of a hook point of a block."""
    return {"hook": f"blocks.{point}", "operation": operation, **rest, **({"from": source} if source else {})}


def test_edits_are_those_of_python(page, site):
    engine = site[1]
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


def test_edits_are_written_out_as_in_python(page, site):
    engine = site[1]
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


def test_sweeps_are_those_of_python(page, site):
    engine = site[1]
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
def test_a_seed_gives_the_tokens_of_python(page, site, options):
    text, _, _ = words(site[1])
    most = 4 if site[1].model(ModelRequest())["cfg"]["n_ctx"] < 64 else 16
    asked = [["continue", {"text": text, "max_new_tokens": most, "seed": seed, **options}] for seed in (0, 7)]
    compared(page, site[1], asked)


def test_a_text_goes_on_with_its_edits_as_in_python(page, site):
    text, _, _ = words(site[1])
    for operation in ("zero", "mean"):
        edits = [edit("0.attn.hook_z", operation, heads=1), edit("1.hook_mlp_out", "scale", factor=0.5)]
        request = {"text": text, "max_new_tokens": 4, "seed": 3, "sampler": "greedy", "edits": edits}
        compared(page, site[1], [["continue", request]])


@pytest.mark.parametrize("sampler", [None, "greedy", "temperature=1.5 | top_k=40 | top_p=0.9 | min_p=0.05", "top_k=1"])
def test_a_chain_is_explained_as_in_python(page, site, sampler):
    text, _, _ = words(site[1])
    asked = [["run", {"text": text, "reads": ["chain"], "sampler": sampler, "seed": 3, "top": top}] for top in (5, 10)]
    compared(page, site[1], asked)


def test_what_the_browser_does_not_compute_is_a_sentence(page, site):
    _, _, ids = words(site[1])
    asked = [
        ["run", {"ids": ids, "reads": ["nothing"]}],
        ["run", {"ids": [10**6], "reads": []}],
        ["run", {"ids": [1] * 5000, "reads": []}],
        ["continue", {"ids": ids, "sampler": "mirostat=5"}],
        ["model", "moon"],
        ["view", {"ids": ids, "visualizer": "attention"}],
        ["run", {"ids": ids, "reads": [], "edits": [edit("0.attn.hook_q", "zero")]}],
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


def test_a_site_that_was_opened_once_opens_without_a_connection(tiny_site, browser):
    with hosted(tiny_site) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.evaluate("navigator.serviceWorker.ready")
        page.reload()  # through the service worker, which keeps what comes, and lets threads be used
        assert page.evaluate("crossOriginIsolated")
        page.get_by_test_id("text").fill("a cat and a dog and a cow")
        page.get_by_test_id("model").get_by_text(" 9 tokens").wait_for()  # not the first board: the model has run
        context.set_offline(True)
        page.reload()
        page.get_by_test_id("difference").wait_for()
        page.get_by_test_id("text").fill("a dog")
        page.get_by_test_id("model").get_by_text(" 2 tokens").wait_for()
        context.close()


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
    again = command("explore", "--site", str(tiny_site))
    assert again.code == 1 and "it is not an empty folder; name one that is new or empty." in again.err
    twice = command("explore", "--site", str(tiny_site.parent / "two"), "--add", "tiny", "--json")
    assert twice.code == 1 and "Two of the models are named 'tiny'" in twice.err
    assert not (tiny_site.parent / "two").exists()
