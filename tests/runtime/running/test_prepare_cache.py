"""What is prepared once per machine: reused, made anew when damaged, and made by two processes at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from checkpoints import stored_as_float16, write_checkpoint
from onnx import TensorProto
from safetensors.numpy import load_file

from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._running import prepare as prepare_module
from onnxlens.runtime._running import prepared_folder
from onnxlens.runtime._running.providers import CPU
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime._user_folders import cache_folder, temporary_folder
from onnxlens.runtime.errors import BundleError, OutputError

IDS = [5, 6, 7]

posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners and permissions as POSIX has them")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ONNXLENS_CACHE", str(folder))
    return folder


def start(path: Path | Bundle, **options) -> Runner:
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


@pytest.mark.parametrize("name", ["base", "biased"])
def test_packed_weights_begin_at_addresses_that_kernels_can_read(cache, bundle, name):
    """Of `biased`, the length of some matrices is no multiple of 64 bytes."""
    start(bundle(name))
    for path in cache.glob("*/*.onnx"):
        assert prepare_module._is_aligned(path)


@pytest.mark.parametrize(("place", "is_aligned"), [("128;64;0", True), ("96;64;0", False), ("128;64;0|200;8;0", False)])
def test_addresses_of_packed_weights_are_read_from_the_graph(tmp_path, place, is_aligned):
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[6, 4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "data", "offset": "0", "length": "96", "prepacked_0": f"MatMul+7|{place}"}.items():
        weight.external_data.add(key=key, value=value)
    graph = onnx.helper.make_graph([], "g", [], [], [weight])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "g.onnx")
    assert prepare_module._is_aligned(tmp_path / "g.onnx") == is_aligned


@pytest.mark.parametrize("name", ["base", "biased"])
def test_weights_that_cannot_be_saved_packed_are_packed_by_each_session(cache, bundle, monkeypatch, name):
    expected = start(bundle(name)).run(IDS, names_filter="*")
    shutil.rmtree(the_only(cache))
    monkeypatch.setattr(prepare_module, "_is_aligned", lambda path: False)
    found = start(bundle(name)).run(IDS, names_filter="*")
    graph = onnx.load(the_only(cache) / "prepared.onnx", load_external_data=False).graph
    entries = [entry for weight in graph.initializer for entry in weight.external_data]
    assert entries
    assert not any(entry.key.startswith("prepacked") for entry in entries)
    assert np.array_equal(found.logits, expected.logits)
    assert all(np.array_equal(found.activations[point], value) for point, value in expected.activations.items())


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
    ids = np.array([[5, 0, 5], [model.config.d_vocab - 1, 7, 5]])
    found = model.run(ids, names_filter="hook_embed").activations["hook_embed"]
    assert np.array_equal(found, model.bundle.named_weights["embed.W_E"][ids])
    prepared = onnx.load(the_only(cache) / "prepared.onnx", load_external_data=False)
    assert "wte.weight" not in {tensor.name for tensor in prepared.graph.initializer}  # it would be mapped into memory


def test_embeddings_outlive_the_name_of_their_file_and_say_when_it_was_cut(cache, bundle):
    model = start(bundle("base"))
    expected = model.run(IDS, logits="last").logits
    (the_only(cache) / "embedding.bin").unlink()
    assert np.array_equal(model.run(IDS, logits="last").logits, expected)
    model = start(bundle("base"))
    model.run(IDS, logits="last")
    os.truncate(the_only(cache) / "embedding.bin", 4 * 6 * model.config.d_model)
    with pytest.raises(BundleError, match=r"embedding\.bin was cut from \d+ to 768 bytes while it was in use\. Delete"):
        model.run(IDS, logits="last")


def test_many_threads_look_up_embeddings_at_once(cache, bundle):
    embedding, weights = (
        start(bundle("base"))._requests.embedding,
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
from onnxlens.runtime._running.matrix_file import MatrixFile
from onnxlens.runtime._bundle.open_file import OpenFile

matrix = MatrixFile(OpenFile(Path(sys.argv[1])), 16)
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
from onnxlens.runtime._running.providers import CPU
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime._user_folders import cache_folder, temporary_folder
from onnxlens.runtime._bundle.bundle import Bundle

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
    answers = [process.communicate(timeout=600) for process in processes]
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


@pytest.mark.parametrize(
    "name", ["plain.onnx", "prepared.onnx", "prepared.onnx_data", "embedding.bin", "contents.json"]
)
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
def test_something_else_with_the_name_of_the_folder_is_replaced(cache, bundle, kind):
    start(bundle("base"))
    folder = the_only(cache)
    shutil.rmtree(folder)
    folder.mkdir() if kind == "empty folder" else folder.write_text("?")
    assert np.isfinite(start(bundle("base")).run(IDS).logits).all()
    assert the_only(cache).is_dir()


def test_a_cache_altered_while_it_is_used_says_which_folder_to_delete(cache, bundle):
    model = start(bundle("base"))
    (the_only(cache) / "prepared.onnx").write_bytes(b"garbage")
    with pytest.raises(BundleError, match=r"base-\w+/prepared\.onnx was cut from \d+ to 7 bytes .*\. Delete"):
        model.run(IDS, names_filter="hook_embed")


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder among the temporary files that takes the place of a cache folder; it does not exist yet."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    folder = temporary_folder()
    assert folder is not None
    assert folder.parent == tmp_path / "tmp"
    return folder


def test_a_cache_folder_that_cannot_be_written_is_replaced_with_one_warning(
    bundle, tmp_path, temporary, monkeypatch, caplog
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path / "file" / "cache"))
    expected = start(bundle("base")).run(IDS).logits
    assert the_only(temporary).name.startswith("base-")
    assert temporary.stat().st_mode & 0o777 == 0o700
    assert [record.getMessage() for record in caplog.records] == [
        f"The prepared files of base are in {temporary}, which may be deleted: cannot write to "
        f"{tmp_path / 'file/cache'}: Not a directory. Name another folder with ONNXLENS_CACHE."
    ]
    caplog.clear()
    monkeypatch.setattr(prepare_module, "_make", lambda *a: pytest.fail("prepared again"))
    assert np.array_equal(start(bundle("base")).run(IDS).logits, expected)
    assert caplog.records == []


def test_where_no_folder_can_be_written_the_error_lists_them(bundle, tmp_path, temporary, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path / "file" / "cache"))
    temporary.write_text("in the way")
    with pytest.raises(OutputError) as caught:
        start(bundle("base"))
    assert str(caught.value) == (
        f"Cannot prepare base: cannot write to {tmp_path / 'file' / 'cache'}: Not a directory; cannot write to "
        f"{temporary}: File exists. It needs about 0 MB; name another folder with ONNXLENS_CACHE."
    )


@posix
def test_a_temporary_folder_of_somebody_else_is_not_used(bundle, tmp_path, temporary, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path / "file" / "cache"))
    temporary.mkdir()
    temporary.chmod(0o777)
    with pytest.raises(OutputError, match=rf"others can write to {temporary} \(its mode is 777\)"):
        start(bundle("base"))


def record_changed(folder: Path, **changes: object) -> None:
    path = folder / "contents.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("name", ["plain.onnx", "prepared.onnx", "prepared.onnx_data", "embedding.bin"])
@pytest.mark.parametrize("damage", ["a bit", "zeros"])
def test_a_prepared_file_of_the_same_size_and_another_content_is_made_anew(cache, bundle, name, damage):
    expected = start(bundle("base")).run(IDS, names_filter="*")
    start(bundle("base"))  # remembers that all is intact
    victim = the_only(cache) / name
    flip_a_bit(victim) if damage == "a bit" else victim.write_bytes(bytes(victim.stat().st_size))
    told: list[str] = []
    found = start(bundle("base"), progress=told.append).run(IDS, names_filter="*")
    assert told == ["preparing base for this machine (once)"]
    np.testing.assert_array_equal(found.logits, expected.logits)


def test_prepared_files_are_hashed_once_while_they_stay_the_same(cache, bundle, monkeypatch):
    start(bundle("base"))
    hashed: list[str] = []
    real = prepared_folder._hash
    monkeypatch.setattr(prepared_folder, "_hash", lambda path: hashed.append(path.name) or real(path))
    start(bundle("base"))
    first = len(hashed)
    start(bundle("base"))
    if prepared_folder._boot() is not None:
        assert (first, len(hashed)) == (4, 4)
        monkeypatch.setattr(prepared_folder, "_boot", lambda: "the machine was started again")
        start(bundle("base"))
    assert len(hashed) == 8


def test_a_verified_bundle_has_its_prepared_files_read_too(cache, bundle, monkeypatch):
    """As where the disk lost a bit: the file is not newer than when it was checked."""
    expected = start(bundle("base")).run(IDS).logits
    start(bundle("base"))
    monkeypatch.setattr(prepared_folder, "_state", lambda path: [0, path.stat().st_size, 0, 0])
    start(bundle("base"))
    flip_a_bit(the_only(cache) / "prepared.onnx_data")
    told: list[str] = []
    start(bundle("base"), progress=told.append)
    assert told == [] or prepared_folder._boot() is None
    found = start(Bundle(bundle("base"), verify=True), progress=told.append)
    assert told == ["preparing base for this machine (once)"]
    assert np.array_equal(found.run(IDS).logits, expected)


@pytest.mark.parametrize(
    "text",
    ["5", "null", "true", "[]", "{}", "[" * 50_000, '{"bundle": "", "made_for": "", "files": {}}', "\ufeff", "\udc80",
     '{"bundle": "", "made_for": "", "files": {"../x": [1, "0"]}}', '{"bundle": 1, "made_for": "", "files": {"x": 1}}'],
)  # fmt: skip
def test_a_record_that_is_none_is_damage(cache, bundle, text):
    start(bundle("base"))
    (the_only(cache) / "contents.json").write_bytes(text.encode(errors="surrogateescape"))
    told: list[str] = []
    start(bundle("base"), progress=told.append)
    assert told == ["preparing base for this machine (once)"]


@pytest.mark.parametrize("text", ["5", "null", "[" * 50_000, "{}"])
def test_a_memory_of_checks_that_is_none_is_no_memory(cache, bundle, text):
    start(bundle("base"))
    (the_only(cache) / "checked.json").write_text(text)
    told: list[str] = []
    start(bundle("base"), progress=told.append)
    assert told == []


@posix
@pytest.mark.parametrize("victim", [".", "prepared.onnx_data", "contents.json"])
def test_prepared_files_that_others_can_write_to_are_made_anew_elsewhere(cache, bundle, temporary, caplog, victim):
    expected = start(bundle("base")).run(IDS).logits
    folder = the_only(cache)
    (folder / victim).chmod(0o777)
    (folder / "prepared.onnx_data").write_bytes(bytes((folder / "prepared.onnx_data").stat().st_size))
    assert np.array_equal(start(bundle("base")).run(IDS).logits, expected)
    (record,) = caplog.records
    assert f"others can write to {folder / victim} (its mode is 777)" in record.getMessage()
    assert the_only(temporary).name == folder.name


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_root_does_not_use_what_another_user_prepared(cache, bundle, temporary, caplog):
    start(bundle("base"))
    folder = the_only(cache)
    for path in (*folder.iterdir(), folder):
        os.chown(path, 54321, 54321)
    start(bundle("base"))
    assert f"{folder} belongs to another user (54321)" in caplog.text
    assert the_only(temporary).name == folder.name


@posix
def test_a_prepared_folder_that_is_a_link_is_not_used(cache, bundle, temporary, tmp_path, caplog):
    start(bundle("base"))
    folder = the_only(cache)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    start(bundle("base"))
    assert f"{folder} is a symbolic link" in caplog.text


@posix
def test_others_cannot_write_to_what_is_prepared_whatever_the_umask(cache, bundle):
    before = os.umask(0)
    try:
        start(bundle("base"))
    finally:
        os.umask(before)
    folder = the_only(cache)
    assert [path for path in (cache, folder, *folder.iterdir()) if path.stat().st_mode & 0o022] == []


def test_what_is_prepared_is_on_the_disk_before_it_has_its_name(cache, bundle, monkeypatch):
    synced: list[str] = []
    real = prepared_folder.sync

    def sync(path: Path) -> None:
        assert not list(cache.glob("base-*"))
        synced.append(path.name)
        real(path)

    monkeypatch.setattr(prepared_folder, "sync", sync)
    start(bundle("base"))
    assert set(synced) == {path.name for path in the_only(cache).iterdir()} - {"checked.json"} | {"made"}


def test_a_relative_cache_folder_stays_where_it_was_when_the_working_folder_changes(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("ONNXLENS_CACHE", f"cache-{tmp_path.name}")
    monkeypatch.chdir(tmp_path)
    model = start(bundle("base"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model.run(IDS, names_filter="hook_embed")  # opens a session there
    told: list[str] = []
    start(bundle("base"), progress=told.append)
    assert told == []
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_prepared_folders_that_nothing_uses_are_removed(cache, bundle, tmp_path):
    moved = Path(shutil.copytree(bundle("untied"), tmp_path / "untied"))
    start(moved)
    start(bundle("base"))
    (used,) = cache.glob("base-*")
    older = cache / f"base-{'0' * 16}"
    shutil.copytree(used, older)
    record_changed(older, made_for="an earlier version")
    (cache / "notes-of-mine").mkdir()
    (cache / f"half-{'1' * 16}").mkdir()
    shutil.rmtree(moved)
    removed = prepare_module.remove_unused(cache, [CPU])
    assert [path.name.split("-")[0] for path, _ in removed] == ["base", "half", "untied"]
    assert sorted(path.name for path in cache.iterdir()) == sorted([used.name, "notes-of-mine"])


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
