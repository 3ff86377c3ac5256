"""Bundles whose files are links, or are replaced, deleted, cut or overwritten while the model is open."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from onnxlens._lens import Lens
from onnxlens.metrics import logit_difference
from onnxlens.runtime._bundle.bundle import WEIGHTS, Bundle
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime.errors import BundleError

IDS = [5, 6, 7]
GRADIENTS = "base-gradients"
METRIC = logit_difference(5, 6)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    """An empty cache folder, so that everything is prepared from the bundle of the test."""
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def copy(bundle, tmp_path) -> Path:
    """A bundle that may be changed."""
    return Path(shutil.copytree(bundle(GRADIENTS), tmp_path / "copy"))


def open_lens(path: Path) -> Lens:
    return Lens(Runner(path, provider="cpu", threads=1))


def numbers(lens: Lens) -> list[np.ndarray]:
    """What comes from all files of a bundle: graphs, gradient graph, weights and tokenizer."""
    logits, cache = lens.run_with_cache(IDS)
    gradients = lens.grad(IDS, metric=METRIC).gradients
    scores = cache.logit_attrs(cache.stack_head_results(), 5)
    return [logits, gradients["hook_embed"], scores, lens.weights["W_E"], np.array(lens.tokenizer.encode("ab c"))]


def hub_cache(bundle: Path, folder: Path) -> Path:
    """The same bundle as the Hugging Face hub's library stores it: links into a folder of contents."""
    snapshot, blobs = folder / "snapshots" / "0123abcd", folder / "blobs"
    blobs.mkdir(parents=True)
    for number, source in enumerate(path for path in bundle.rglob("*") if path.is_file()):
        shutil.copyfile(source, blobs / str(number))
        link = snapshot / source.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    return snapshot


@pytest.mark.parametrize("name", [GRADIENTS, "base-float16-gradients"])
def test_a_bundle_of_symbolic_links_gives_the_same_numbers_gradients_too(bundle, tmp_path, name):
    linked = hub_cache(bundle(name), tmp_path / "models--somebody--base")
    Bundle(linked, verify=True)
    found = numbers(open_lens(linked))
    for expected, value in zip(numbers(open_lens(bundle(name))), found, strict=True):
        assert np.array_equal(expected, value)


def test_an_open_model_stays_what_it_was_when_its_bundle_is_replaced_by_another(bundle, copy, tmp_path):
    expected = numbers(open_lens(bundle(GRADIENTS)))
    shutil.rmtree(tmp_path / "cache")
    lens = open_lens(copy)
    copy.rename(tmp_path / "away")
    shutil.copytree(bundle("untied"), copy)
    shutil.rmtree(tmp_path / "away")
    for before, after in zip(expected, numbers(lens), strict=True):
        assert np.array_equal(before, after)
    lens.runner.bundle.verify()


@pytest.mark.parametrize("length", [1000, None], ids=["cut", "overwritten"])
def test_weights_that_are_cut_or_overwritten_in_use_are_named(copy, length):
    lens = open_lens(copy)
    _, cache = lens.run_with_cache(IDS)
    path = copy / WEIGHTS
    if length is None:
        path.write_bytes(bytes(path.stat().st_size))
    else:
        os.truncate(path, length)
    os.utime(path, (1, 1))
    text = r"model\.onnx_data was (cut from \d+ to 1000 bytes|changed) while it was in use\. Export or copy the bundle"
    for use in (
        lambda: lens.weights["W_E"],
        lambda: cache.logit_attrs(cache.stack_head_results(), 5),
        lambda: lens.grad(IDS, metric=METRIC),  # prepared from the weights now
        lens.runner.bundle.verify,
    ):
        with pytest.raises(BundleError, match=text):
            use()
    lens.run_with_cache(IDS)  # what was prepared does not depend on them


def test_a_graph_that_is_overwritten_before_it_is_used_is_named(copy):
    lens = open_lens(copy)
    path = copy / "onnx" / "model_gradients.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"model_gradients\.onnx was cut"):
        lens.grad(IDS, metric=METRIC)


def prepared_folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "cache").glob("copy-*")
    return folder


def test_an_open_model_goes_on_when_what_was_prepared_is_deleted(copy, tmp_path):
    lens = open_lens(copy)
    expected = lens.run_with_cache(IDS)
    lens = open_lens(copy)
    shutil.rmtree(prepared_folder(tmp_path))
    logits, cache = lens.run_with_cache(IDS)
    assert np.array_equal(logits, expected[0])
    for name, value in expected[1].items():
        assert np.array_equal(cache[name], value)
    assert np.array_equal(lens.predict(IDS).logits, expected[0][0, -1])


@pytest.mark.parametrize("opened", [True, False], ids=["in use", "before use"])
@pytest.mark.parametrize("length", [100, None], ids=["cut", "overwritten"])
@pytest.mark.parametrize("name", ["prepared.onnx_data", "embedding.bin"])
def test_prepared_files_that_are_cut_or_overwritten_are_named(copy, tmp_path, name, length, opened):
    lens = open_lens(copy)
    if opened:
        lens.predict(IDS)
    path = prepared_folder(tmp_path) / name
    if length is None:
        path.write_bytes(bytes(path.stat().st_size))
    else:
        os.truncate(path, length)
    os.utime(path, (1, 1))
    with pytest.raises(BundleError, match=rf"{name} was (cut|changed).* while it was in use\. Delete its folder; the"):
        lens.predict(IDS)
