"""Logits at all positions: of short texts with W_U as a whole, of long ones with a part after the other."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from yardstick import close

from onnxlens.runtime._running import unembedding
from onnxlens.runtime._running.prepared import Prepared
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime.errors import BundleError

LONG = 8
CHECKPOINTS = ["base", "untied", "base-float16", "untied-float16"]


@pytest.fixture
def small(monkeypatch):
    """Texts of eight tokens are long, parts have 70 of the 300 tokens at most, and three positions go in at a time."""
    monkeypatch.setattr(unembedding, "_LONG", LONG)
    monkeypatch.setattr(unembedding, "_PART", 4 * 32 * 70)
    monkeypatch.setattr(unembedding, "_PART_POSITIONS", 3)


@pytest.fixture
def graphs(monkeypatch):
    """The weights in each graph that is opened while the test runs."""
    found = []
    real = Prepared.open
    monkeypatch.setattr(
        Prepared, "open", lambda self, graph, *a, **k: found.append(graph.graph) or real(self, graph, *a, **k)
    )
    return found


def texts(rows: int, length: int = LONG) -> np.ndarray:
    return np.random.default_rng(length).integers(0, 300, (rows, length))


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("rows", [1, 3])
def test_logits_of_long_texts_are_the_product_with_w_u(runner, small, name, rows):
    model, ids = runner(name), texts(rows)
    found = model.run(ids, names_filter="ln_final.hook_normalized")
    weights = {key: np.asarray(model.bundle.named_weights[key], np.float64) for key in ("unembed.W_U", "ln_final.w")}
    final = found.activations["ln_final.hook_normalized"].astype(np.float64)
    expected = final * weights["ln_final.w"] + model.bundle.named_weights["ln_final.b"]
    expected = expected @ weights["unembed.W_U"]
    assert found.logits.shape == (rows, LONG, 300)
    close(found.logits, expected)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_both_ways_give_the_same_logits(runner, small, monkeypatch, name):
    by_parts = runner(name).run(texts(2)).logits
    monkeypatch.setattr(unembedding, "_LONG", LONG + 1)
    whole = runner(name).run(texts(2)).logits
    close(by_parts, whole)


@pytest.mark.parametrize("length", [LONG - 1, LONG])
def test_how_many_texts_there_are_changes_no_bit(runner, small, length):
    ids = texts(5, length)
    together = runner("base").run(ids).logits
    for row, one in zip(together, ids, strict=True):
        np.testing.assert_array_equal(runner("base").run(one).logits[0], row)


def test_long_texts_need_no_w_u_in_a_graph_and_short_ones_no_part(bundle, small, graphs):
    model = Runner(bundle("base"), provider="cpu", threads=1)
    model.run(texts(1))
    assert [len(graph.initializer) for graph in graphs[1:]] == [0]  # after the request's own graph
    model.run(texts(1, LONG - 1))
    sizes = [sum(int(np.prod(t.dims)) for t in graph.initializer if len(t.dims) == 2) for graph in graphs[2:]]
    assert sizes == [300 * 32]


@pytest.mark.parametrize("name, file", [("base", "embedding.bin"), ("untied", "unembedding.bin")])
def test_a_matrix_that_was_cut_short_is_named(bundle, small, tmp_path, monkeypatch, name, file):
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path / "cache"))
    model = Runner(bundle(name), provider="cpu", threads=1)
    ids = texts(1) % 100
    model.run(ids)
    (folder,) = (tmp_path / "cache").iterdir()
    os.truncate(folder / file, 4 * 32 * 150)
    with pytest.raises(BundleError, match=rf"{file} was cut from \d+ to 19200 bytes while it was in use\. Delete"):
        model.run(ids)
    shutil.rmtree(folder)
    Runner(bundle(name), provider="cpu", threads=1).run(ids)
