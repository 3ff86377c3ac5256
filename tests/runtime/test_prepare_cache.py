"""What is prepared once per machine: reused, made anew when damaged, and made by two processes at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from checkpoints import stored_as_float16, write_checkpoint
from onnx import TensorProto
from safetensors.numpy import load_file

from onnxlens.runtime import prepare as prepare_module
from onnxlens.runtime.errors import BundleError, OutputError
from onnxlens.runtime.prepare import cache_folder
from onnxlens.runtime.runner import Runner

IDS = [5, 6, 7]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ONNXLENS_CACHE", str(folder))
    return folder


def start(path: Path, **options) -> Runner:
    return Runner(path, provider="cpu", threads=1, **options)


def the_only(cache: Path) -> Path:
    (folder,) = cache.iterdir()
    return folder


def test_the_cache_folder_is_what_onnxlens_cache_names(cache, bundle, monkeypatch):
    assert cache_folder() == cache
    start(bundle("base"))
    assert the_only(cache).name.startswith("base-")
    monkeypatch.setenv("ONNXLENS_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("ONNXLENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "user"))
    if sys.platform == "linux":
        assert cache_folder() == cache / "user" / "onnxlens"


def test_preparing_is_told_once_and_leaves_nothing_else_behind(cache, bundle):
    told: list[str] = []
    start(bundle("base"), progress=told.append)
    assert told == ["preparing base for this machine (once)"]
    start(bundle("base"), progress=told.append)
    assert len(told) == 1
    assert the_only(cache)


@pytest.mark.parametrize("name", ["base-float16", "untied-float16"])
def test_weights_stored_as_float16_are_widened_while_preparing_and_never_again(cache, bundle, name):
    start(bundle(name))
    for graph in ("prepared.onnx", "plain.onnx"):
        model = onnx.load(the_only(cache) / graph, load_external_data=False)
        assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT, TensorProto.INT64}
        inside = {tensor.name for tensor in model.graph.initializer}
        assert not [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in inside]


def test_how_weights_are_stored_changes_no_bit_of_what_they_compute(cache, bundle, checkpoint, tmp_path):
    from onnxlens.export import export

    rounded = stored_as_float16(load_file(checkpoint("base") / "model.safetensors"))
    source = write_checkpoint(tmp_path / "rounded", weights=rounded)
    expected = start(export(source, tmp_path / "bundle").path).run(IDS, names_filter="*")
    found = start(bundle("base-float16")).run(IDS, names_filter="*")
    np.testing.assert_array_equal(found.logits, expected.logits)
    for name, value in expected.activations.items():
        np.testing.assert_array_equal(found.activations[name], value, err_msg=name)


@pytest.mark.parametrize("name", ["base", "untied", "base-float16", "untied-float16"])
def test_embeddings_are_rows_of_the_matrix(cache, bundle, name):
    model = start(bundle(name))
    ids = np.array([[5, 0, 5], [model.config.vocab_size - 1, 7, 5]])
    found = model.run(ids, names_filter="hook_embed").activations["hook_embed"]
    assert np.array_equal(found, model.bundle.named_weights["embed.W_E"][ids])
    prepared = onnx.load(the_only(cache) / "prepared.onnx", load_external_data=False)
    assert "wte.weight" not in {tensor.name for tensor in prepared.graph.initializer}  # it would be mapped into memory


def test_embeddings_outlive_their_file_s_name_and_say_when_it_was_cut(cache, bundle):
    model = start(bundle("base"))
    expected = model.run(IDS, logits="last").logits
    (the_only(cache) / "embedding.bin").unlink()
    assert np.array_equal(model.run(IDS, logits="last").logits, expected)
    model = start(bundle("base"))
    model.run(IDS, logits="last")
    os.truncate(the_only(cache) / "embedding.bin", 4 * 6 * model.config.n_embd)
    with pytest.raises(BundleError, match=r"embedding\.bin was cut from \d+ to 768 bytes while it was in use\. Delete"):
        model.run(IDS, logits="last")


def test_many_threads_look_up_embeddings_at_once(cache, bundle):
    embedding, weights = (
        start(bundle("base"))._programs.embedding,
        start(bundle("base")).bundle.named_weights["embed.W_E"],
    )
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, len(weights), (3, 50)) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for ids, rows in zip(batches, pool.map(embedding.rows, batches), strict=True):
            assert np.array_equal(rows, weights[ids])


_FORKING = """
import os, sys
from pathlib import Path
import numpy as np
from onnxlens.runtime.matrix_file import MatrixFile

matrix = MatrixFile(Path(sys.argv[1]), 16)
expected = np.fromfile(sys.argv[1], np.float32).reshape(-1, 16)
children = [os.fork() for _ in range(2)]
rng = np.random.default_rng(children.count(0))
right = all(
    np.array_equal(matrix.part(start, start + 500), expected[start : start + 500])
    for start in rng.integers(0, len(expected) - 500, 3000).tolist()
)
if 0 in children:
    os._exit(not right)
sys.exit(not right or any(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs fork, and reading at a place")
def test_processes_that_were_forked_read_a_matrix_at_once(tmp_path):
    np.random.default_rng(0).random((20_000, 16), np.float32).tofile(tmp_path / "matrix")
    ran = subprocess.run([sys.executable, "-c", _FORKING, tmp_path / "matrix"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_bundle_that_moved_is_not_prepared_again(cache, bundle, tmp_path, monkeypatch):
    start(bundle("base"))
    shutil.copytree(bundle("base"), tmp_path / "moved" / "base")
    monkeypatch.setattr(prepare_module, "_make", lambda *a: pytest.fail("prepared again"))
    start(tmp_path / "moved" / "base")


_SCRIPT = """
import sys
from onnxlens.runtime.runner import Runner
from onnxlens.runtime.bundle import Bundle

told = []
bundle = Bundle(sys.argv[1])
if len(sys.argv) > 2:
    sys.stdin.readline()  # both wait here, so that both prepare
runner = Runner(bundle, provider="cpu", threads=1, progress=told.append)
print(len(told), "onnx" in sys.modules, repr(float(runner.run([5, 6, 7], logits="last").logits.sum())))
"""


def test_a_second_process_finds_what_the_first_prepared_and_does_not_import_onnx(cache, bundle):
    def run() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, bundle("base")], capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    first, second = run(), run()
    assert first[:2] == ["1", "True"]
    assert second[:2] == ["0", "False"]
    assert first[2] == second[2]


def test_two_processes_prepare_at_once(cache, bundle):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, bundle("base"), "wait"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert {out.split()[2] for out, _ in answers} == {
        repr(float(start(bundle("base")).run(IDS, logits="last").logits.sum()))
    }
    assert the_only(cache)


def test_the_one_who_comes_second_takes_what_the_first_made(cache, bundle, monkeypatch):
    real = prepare_module._make

    def make_after_another_did(opened, provider, folder):
        monkeypatch.setattr(prepare_module, "_make", real)
        start(bundle("base"))
        real(opened, provider, folder)

    monkeypatch.setattr(prepare_module, "_make", make_after_another_did)
    assert np.isfinite(start(bundle("base")).run(IDS).logits).all()
    assert the_only(cache)


@pytest.mark.parametrize("name", ["plain.onnx", "prepared.onnx", "prepared.onnx_data", "embedding.bin", "sizes.json"])
@pytest.mark.parametrize("damage", ["removed", "truncated", "emptied"])
def test_a_partial_cache_folder_is_made_anew(cache, bundle, name, damage):
    expected = start(bundle("base")).run(IDS, names_filter="*")
    victim = the_only(cache) / name
    if damage == "removed":
        victim.unlink()
    else:
        os.truncate(victim, 0 if damage == "emptied" else victim.stat().st_size // 2)
    told: list[str] = []
    found = start(bundle("base"), progress=told.append).run(IDS, names_filter="*")
    assert told == ["preparing base for this machine (once)"]
    np.testing.assert_array_equal(found.logits, expected.logits)
    assert the_only(cache)


@pytest.mark.parametrize("kind", ["empty folder", "file"])
def test_something_else_of_the_folder_s_name_gives_way(cache, bundle, kind):
    start(bundle("base"))
    folder = the_only(cache)
    shutil.rmtree(folder)
    folder.mkdir() if kind == "empty folder" else folder.write_text("?")
    assert np.isfinite(start(bundle("base")).run(IDS).logits).all()
    assert the_only(cache).is_dir()


def test_a_cache_altered_while_it_is_used_says_which_folder_to_delete(cache, bundle):
    model = start(bundle("base"))
    (the_only(cache) / "prepared.onnx").write_bytes(b"garbage")
    with pytest.raises(BundleError, match=r"Cannot open what was prepared of base in .*base-.*delete it"):
        model.run(IDS, names_filter="hook_embed")


def test_a_cache_folder_that_cannot_be_written_names_the_variable(bundle, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError) as caught:
        start(bundle("base"))
    text = str(caught.value)
    assert text.startswith(f"Cannot prepare base in the cache folder {tmp_path / 'file' / 'cache'}: Not a directory.")
    assert "It needs about 0 MB; name another folder with ONNXLENS_CACHE." in text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user other than root")
def test_a_read_only_cache_folder_is_an_error(bundle, cache):
    cache.mkdir()
    cache.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        start(bundle("base"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_an_error_and_leaves_nothing(bundle, cache, monkeypatch):
    def full(opened, provider, folder):
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr(prepare_module, "_make", full)
    with pytest.raises(OutputError, match=r"No space left on device\. It needs about"):
        start(bundle("base"))
    assert list(cache.iterdir()) == []


def test_altered_weights_are_not_prepared_under_the_good_ones_name(cache, bundle, tmp_path):
    """Their header is intact, so opening the bundle does not notice; the next start with mended weights would."""
    path = Path(shutil.copytree(bundle("base"), tmp_path / "base"))
    weights = path / "onnx" / "model.onnx_data"
    good = weights.read_bytes()
    weights.write_bytes(good[:-400] + bytes(400))
    with pytest.raises(BundleError, match="is not the file that was exported"):
        start(path)
    weights.write_bytes(good)
    assert np.array_equal(start(path).run(IDS).logits, start(bundle("base")).run(IDS).logits)


def test_what_a_killed_process_left_is_removed_after_a_day(cache, bundle):
    old, new = cache / ".preparing-old", cache / ".preparing-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "half").write_text("half")
    os.utime(old, (0, 0))
    start(bundle("base"))
    assert not old.exists()
    assert new.exists()
