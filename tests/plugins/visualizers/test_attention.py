"""The `attention` visualizer: what it reads, that every format holds the cache's numbers, and what it refuses."""

from __future__ import annotations

import json
import math
import re
import sys
from base64 import b64decode

import numpy as np
import pytest
from yardstick import close

from onnxlens._lens import Lens
from onnxlens.plugins._registry import Registry
from onnxlens.plugins._viewing.reading import read
from onnxlens.plugins.testing import hostile
from onnxlens.plugins.visualizers.attention import Attention, AttentionMaps
from onnxlens.runtime._text.token_text import quoted_token
from onnxlens.runtime.errors import InputError, MissingLibraryError

TEXT = "the cat sat on the cat"


@pytest.fixture
def lens(runner) -> Lens:
    return Lens(runner("base"), Registry(find=False))


def weights(lens: Lens, kind: str, layer: int) -> np.ndarray:
    _, cache = lens.run_with_cache(TEXT, names_filter=f"blocks.{layer}.attn.{kind}")
    return cache[f"blocks.{layer}.attn.{kind}"][0]  # [H, Q, K]


def drawn_in(page: str) -> dict:
    """What a page hands to plotly, arrays decoded."""
    (text,) = re.findall(r"\{ const drawing = (.*);$", page, flags=re.M)

    def array(found: dict) -> object:
        if set(found) == {"dtype", "bdata", "shape"}:
            shape = [int(size) for size in found["shape"].split(",")]
            return np.frombuffer(b64decode(found["bdata"]), found["dtype"]).reshape(shape)
        return found

    return json.loads(text, object_hook=array)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]),
        ({"layer": -1, "head": 1}, ["blocks.1.attn.hook_pattern"]),
        ({"layer": 0, "values": "scores"}, ["blocks.0.attn.hook_attn_scores"]),
        (
            {"layer": 0, "head": 0, "values": "steps"},
            [f"blocks.0.attn.hook_{name}" for name in ("q", "k", "attn_scores", "pattern")],
        ),
        ({"layer": 0, "head": 0, "values": "lines"}, ["blocks.0.attn.hook_pattern"]),
        ({"values": "lines"}, ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]),
    ],
)
def test_exactly_what_is_shown_is_read(lens, monkeypatch, options, names):
    plans, plan = [], lens.runner.plan
    monkeypatch.setattr(lens.runner, "plan", lambda *a, **o: plans.append(plan(*a, **o)) or plans[-1])
    lens.view("attention", TEXT, **options)
    (one,) = plans
    assert (one.request.reads, one.request.logits) == (tuple(names), "none")


def test_data_is_the_cache(lens):
    data = lens.view("attention", TEXT, layer=1).data()
    assert data["tokens"] == lens.to_str_tokens(TEXT)
    assert [one["head"] for one in data["heads"]] == list(range(lens.config.n_heads))
    found = np.array([one["values"] for one in data["heads"]], np.float32)
    np.testing.assert_array_equal(found, weights(lens, "hook_pattern", 1))
    one = lens.view("attention", TEXT, layer=1, head=-1).data()["heads"]
    assert one == [data["heads"][-1]]


def test_masked_scores_are_null(lens):
    data = lens.view("attention", TEXT, values="scores", layer=0, head=0).data()
    found = np.array(data["heads"][0]["values"], np.float32)  # None becomes NaN
    expected = weights(lens, "hook_attn_scores", 0)[0]
    later = np.triu(np.ones_like(expected, bool), k=1)
    assert np.isnan(found[later]).all()
    np.testing.assert_array_equal(found[~later], expected[~later])


def test_the_terminal_names_the_strongest(lens):
    text = lens.view("attention", TEXT, layer=1, head=1).encoded("txt").decode()
    pattern, tokens = weights(lens, "hook_pattern", 1)[1], lens.to_str_tokens(TEXT)
    (last,) = [line for line in text.splitlines() if line.strip().startswith(f"{len(tokens) - 1} ")]
    key = int(pattern[-1].argmax())
    assert re.split(r"\s{2,}", last.strip())[2].startswith(f"{tokens[key]!r} {pattern[-1, key]:.2f} ")
    every = lens.view("attention", TEXT, layer=1).encoded("txt").decode()
    assert f"What the last token, {tokens[-1]!r}, attends to most" in every
    assert f"1  {tokens[key]!r} {pattern[-1, key]:.2f} " in every


@pytest.mark.parametrize("head", [None, 1])
def test_the_picture_holds_the_cache(lens, head):
    figure = lens.view("attention", TEXT, layer=0, head=head).figure()
    drawn = [image for axes in figure.axes for image in axes.images]
    pattern = weights(lens, "hook_pattern", 0)[slice(None) if head is None else [head]]
    for image, expected in zip(drawn, pattern, strict=True):
        shown = np.ma.getdata(image.get_array())
        np.testing.assert_array_equal(np.nan_to_num(shown), expected.astype(shown.dtype))
        assert image.get_clim() == (0, 1)
    if head is not None:
        labels = [tick.get_text() for tick in drawn[0].axes.get_yticklabels()]
        assert labels == [token.replace(" ", "␣") for token in lens.to_str_tokens(TEXT)]


def test_a_token_that_occurs_twice_is_told_apart_and_bytes_are_bytes(lens):
    lines = lens.view("attention", "the é the", layer=1, head=1).encoded("txt").decode().splitlines()
    tokens = [quoted_token(piece) for piece in lens.tokenizer.pieces(lens.to_tokens("the é the")[0].tolist())]
    said = " ".join(line.partition(tokens[-1])[2] for line in lines)
    for place, token in enumerate(tokens):
        assert (f"{token}@{place} " in said) == (tokens.count(token) > 1)
    assert r"'\xc3'" in "".join(lines) and "\ufffd" not in "".join(lines) and "\\\\" not in "".join(lines)


def test_scores_have_a_scale_about_zero(lens):
    figure = lens.view("attention", TEXT, layer=0, head=0, values="scores").figure()
    scores = weights(lens, "hook_attn_scores", 0)[0]
    least, most = figure.axes[0].images[0].get_clim()
    assert -least == most == pytest.approx(np.abs(scores[np.isfinite(scores)]).max())


def test_the_page_holds_the_cache(lens):
    page = lens.view("attention", TEXT, layer=1).html()
    drawing = drawn_in(page)
    pattern = weights(lens, "hook_pattern", 1)
    for trace, expected in zip(drawing["data"], pattern, strict=True):
        np.testing.assert_array_equal(np.nan_to_num(trace["z"]), expected)
    # Each choice shows one head; that which looks most at a token other than the first and itself is shown first.
    shares = [np.tril(one, k=-1)[:, 1:].max(axis=-1).mean() for one in pattern]
    first = int(np.argmax(shares))
    assert [trace["visible"] for trace in drawing["data"]] == [head == first for head in range(len(pattern))]
    options = re.findall(r"<option( selected)?>(.*?)</option>", page)
    assert options == [(" selected" if head == first else "", f"head {head}") for head in range(len(pattern))]
    assert f"first head {first}: the head that attends most to a token other than the first and itself" in page
    assert drawing["layout"].get("updatemenus", []) == []
    # Tokens that are the same have labels of their own.
    assert len(set(drawing["data"][0]["x"])) == len(lens.to_str_tokens(TEXT))


def test_a_page_shares_with_nobody(lens):
    page = lens.view("attention", TEXT, layer=0).html()
    assert "modeBarButtons: [[" in page  # without which plotly has a button that sends the drawing away
    assert "default-src 'none'" in page


def test_labels_of_a_page_are_escaped(lens):
    made = Attention(layer=0, head=0)
    view = hostile(read(lens.runner, lens.tokenizer, made, lens.to_tokens(TEXT)[0]))
    for label in drawn_in(made.draw(view).html())["data"][0]["x"]:
        assert "<" not in label


def test_long_texts_have_fewer_labels():
    count, tokens = 1000, ["a"] * 1000
    rendering = AttentionMaps("base", {(0, 0): np.tri(count, dtype=np.float32)}, tokens, tokens, "pattern")
    places = rendering.figure().axes[0].get_yticks()
    assert 40 < len(places) < 80
    assert len(set(np.diff(places))) == 1


def test_steps_are_those_of_the_head(lens):
    scores, masked, pattern = lens.view("attention", TEXT, layer=1, head=1, values="steps").charts
    expected = weights(lens, "hook_attn_scores", 1)[1]
    seen = np.isfinite(expected)
    close(scores.panels[""][seen], expected[seen])
    assert np.isfinite(scores.panels[""]).all()  # what is masked later was computed, too
    np.testing.assert_array_equal(masked.panels[""][seen], expected[seen])
    assert np.isnan(masked.panels[""][~seen]).all()
    np.testing.assert_array_equal(np.nan_to_num(pattern.panels[""]), weights(lens, "hook_pattern", 1)[1])


def test_lines_are_as_wide_as_the_pattern(lens):
    page = lens.view("attention", TEXT, layer=1, head=1, values="lines").html()
    pattern = weights(lens, "hook_pattern", 1)[1]
    found = {
        (int(r), int(c)): float(value)
        for r, c, value in re.findall(r'<line class="r(\d+) c(\d+)".*?<title>.*?: (\S+)</title>', page)
    }
    expected = {(q, k): pattern[q, k] for q, k in np.argwhere(pattern > 0.02 * pattern.max()).tolist()}
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("values", ["lines", "steps"])
def test_where_no_head_is_named_it_is_the_one_that_looks_most_at_another_token(lens, values):
    def shares(pattern: np.ndarray) -> float:
        best = [max(pattern[query, 1:query], default=0.0) for query in range(len(pattern))]
        return float(np.mean(best))

    heads = {(n, h): shares(weights(lens, "hook_pattern", n)[h]) for n in range(2) for h in range(lens.config.n_heads)}
    layer, head = max(heads, key=heads.__getitem__)
    (other,) = {0, 1} - {layer}
    found = lens.view("attention", TEXT, values=values)
    assert f"block {layer}, head {head}, the head that attends most" in found.title
    named = lens.view("attention", TEXT, values=values, layer=layer, head=head)
    assert found.data() == {**named.data(), "title": found.data()["title"]}
    assert named.title.endswith(f"block {layer}, head {head}")
    assert f"block {other}, head " in lens.view("attention", TEXT, values=values, layer=other).title


def test_changes_of_an_enclosing_block_are_shown(lens):
    def uniform(pattern, hook):
        return np.full_like(pattern, 1 / pattern.shape[-1])

    with lens.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", uniform)]):
        rendering = lens.view("attention", TEXT, layer=0, head=0)
    count = len(lens.to_str_tokens(TEXT))
    expected = np.full((count, count), 1 / count, np.float32)
    np.testing.assert_array_equal(np.array(rendering.data()["heads"][0]["values"], np.float32), expected)
    assert np.isfinite(drawn_in(rendering.html())["data"][0]["z"]).all()  # what lies ahead has a share, too


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"layer": 2}, "layer must be one of this model's, -2 to 1, not 2."),
        ({"head": -5}, "head must be one of this model's, -4 to 3, not -5."),
        ({"values": "weights"}, "attention: values must be one of 'lines', 'pattern', 'scores', 'steps', not 'w"),
        ({"head": "all"}, "attention: head must be a whole number, not "),
    ],
)
def test_wrong_options(lens, options, expected):
    with pytest.raises(InputError) as caught:
        lens.view("attention", TEXT, **options)
    assert str(caught.value).startswith(expected)


def test_a_page_without_plotly(lens, monkeypatch, tmp_path):
    for library in ("plotly", "plotly.graph_objects", "plotly.offline"):
        monkeypatch.setitem(sys.modules, library, None)
    rendering = lens.view("attention", TEXT, layer=0)
    with pytest.raises(MissingLibraryError) as caught:
        rendering.save(tmp_path / "x.html")
    assert str(caught.value) == (
        "A .html of this needs plotly, which is not installed: pip install 'onnxlens[plots]', for pictures and pages. "
        "Without it, there is .txt or .json."
    )
    assert rendering._repr_html_().startswith("<img ")  # the picture, in a notebook


def test_all_numbers_can_be_read_back(lens):
    document = json.loads(lens.view("attention", TEXT, values="scores").json())
    row = document["heads"][0]["values"][0]
    assert math.isfinite(row[0])
    assert row[1:] == [None] * (len(document["tokens"]) - 1)
