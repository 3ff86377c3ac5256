"""An export writes a whole bundle or nothing, whatever happens in between, and never loses one that was there."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint

from onnxlens.export import _bundle as pipeline
from onnxlens.export import _staging as staging
from onnxlens.export import export
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._bundle.manifest import MANIFEST
from onnxlens.runtime.errors import ExportError, OutputError

Folder = Callable[[str], Path]
LeftBehind = Callable[[], list[str]]
Running = subprocess.Popen[str]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def proven(bundle: Folder) -> None:
    """Makes the bundle that all tests share before any test here changes how one is made."""
    bundle("base")


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch, quick_trace: None) -> None:
    """Leaves out the comparison with PyTorch, for tests of what happens around it."""
    monkeypatch.setattr("onnxlens.export._verify.reference", lambda checkpoint, wanted: [])
    monkeypatch.setattr("onnxlens.export._verify.check", lambda folder, config, wanted, expected: {})


STEPS = (
    "onnxlens.export._bundle.read_checkpoint",
    "onnxlens.export._verify.reference",
    "onnxlens.export._bundle.hooks_graph",
    "onnxlens.export._bundle.write_weights",
    "onnxlens.export._bundle.write_graphs",
    "onnxlens.export._bundle.write_configurations",
    "onnxlens.export._verify.check",
    "onnxlens.export._bundle.sha256_of",
    "onnxlens.runtime._bundle.manifest.Manifest.write",
)


def fail_after(monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException) -> None:
    """Lets a step do its work and then raises."""
    owner, name = step.rsplit(".", 1)
    holder: Any = pipeline.Manifest if owner.endswith(".Manifest") else sys.modules[owner]
    real = getattr(holder, name)

    def failing(*args: Any, **options: Any) -> None:
        real(*args, **options)
        raise error

    monkeypatch.setattr(holder, name, failing)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.rsplit(".", 1)[1])
def test_an_interruption_leaves_nothing_behind(
    checkpoint: Folder,
    tmp_path: Path,
    left_behind: LeftBehind,
    monkeypatch: pytest.MonkeyPatch,
    unproven: None,
    step: str,
) -> None:
    fail_after(monkeypatch, step, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint("base"), tmp_path / "out" / "not" / "there" / "yet")
    assert left_behind() == []


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.rsplit(".", 1)[1])
def test_an_interruption_leaves_the_old_bundle_as_it_was(
    bundle: Folder,
    checkpoint: Folder,
    tmp_path: Path,
    left_behind: LeftBehind,
    monkeypatch: pytest.MonkeyPatch,
    unproven: None,
    step: str,
) -> None:
    target = tmp_path / "out" / "bundle"
    shutil.copytree(bundle("base"), target)
    before, names = content(target), left_behind()
    fail_after(monkeypatch, step, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint("base"), target, force=True)
    assert content(target) == before
    assert left_behind() == names


def test_force_replaces_a_bundle_with_the_new_one(
    bundle: Folder, tmp_path: Path, left_behind: LeftBehind, quick_trace: None
) -> None:
    target = tmp_path / "out" / "bundle"
    shutil.copytree(bundle("base-gradients"), target)
    source = write_checkpoint(tmp_path / "source", seed=5)
    made = export(source, target, force=True)
    assert made.path == target
    assert not (target / "onnx" / "model_gradients.onnx").exists()
    assert content(target)["onnx/model.onnx_data"] != content(bundle("base"))["onnx/model.onnx_data"]
    Bundle(target, verify=True)
    assert [name for name in left_behind() if not name.startswith("bundle")] == []


def test_force_keeps_what_else_is_in_the_folder(
    bundle: Folder, tmp_path: Path, left_behind: LeftBehind, quick_trace: None
) -> None:
    target = tmp_path / "out" / "bundle"
    shutil.copytree(bundle("base"), target)
    mine = {"notes.txt": b"mine", "onnx/plot.py": b"too", "runs/1/trace.npz": b"\0", ".hidden": b""}
    for name, value in mine.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(value)
    export(write_checkpoint(tmp_path / "source", seed=5), target, force=True)
    after = content(target)
    assert {name: after[name] for name in mine} == mine
    assert after.keys() == content(bundle("base")).keys() | mine.keys()
    assert after["onnx/model.onnx_data"] != content(bundle("base"))["onnx/model.onnx_data"]
    assert [name for name in left_behind() if not name.startswith("bundle")] == []


def test_a_bundle_behind_a_link_is_replaced_where_it_lies(
    bundle: Folder, checkpoint: Folder, tmp_path: Path, unproven: None
) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real"
    shutil.copytree(bundle("base"), real)
    before = (real / MANIFEST).stat().st_ino
    (tmp_path / "link").symlink_to(real)
    export(checkpoint("base"), tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    assert (real / MANIFEST).stat().st_ino != before


def refused(source: Path, target: Path, pattern: str, *, force: bool = False) -> None:
    with pytest.raises(OutputError, match=pattern) as caught:
        export(source, target, force=force)
    assert "\n" not in str(caught.value)


def test_an_existing_bundle_is_kept_without_force(bundle: Folder, checkpoint: Folder, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    shutil.copytree(bundle("base"), target)
    before = content(target)
    refused(checkpoint("base"), target, "The bundle .*bundle exists already; replace it with --force, or give another")
    assert content(target) == before


@pytest.mark.parametrize("force", [True, False])
def test_a_folder_that_is_no_bundle_is_never_replaced(checkpoint: Folder, tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    refused(
        checkpoint("base"),
        tmp_path / "thesis",
        "thesis exists and is not a bundle; it will not be replaced. Give another folder",
        force=force,
    )
    assert content(tmp_path / "thesis") == {"chapter1.tex": b"years of work"}


@pytest.mark.parametrize("manifest", ["{}", "[]", "", '{"format_version": 1}'], ids=["{}", "[]", "empty", "version"])
def test_a_file_called_onnxlens_json_makes_no_bundle(checkpoint: Folder, tmp_path: Path, manifest: str) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "thesis" / MANIFEST).write_text(manifest)
    pattern = "thesis has files in it, and an onnxlens.json that was not written by an export; it will not be replaced"
    refused(checkpoint("base"), tmp_path / "thesis", pattern, force=True)
    assert content(tmp_path / "thesis") == {"chapter1.tex": b"years of work", MANIFEST: manifest.encode()}


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.clear(),
        lambda files: files.pop("onnx/model.onnx_data"),
        lambda files: files.update({"../precious.txt": files["config.json"]}),
        lambda files: files.update({"/etc/passwd": files["config.json"]}),
    ],
    ids=["no files", "no weights", "above", "absolute"],
)
def test_a_manifest_that_no_export_writes_makes_no_bundle(
    bundle: Folder, checkpoint: Folder, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    target = tmp_path / "bundle"
    shutil.copytree(bundle("base"), target)
    (tmp_path / "precious.txt").write_text("mine")
    entries = json.loads((target / MANIFEST).read_text())
    change(entries["files"])
    (target / MANIFEST).write_text(json.dumps(entries))
    before = content(target)
    refused(checkpoint("base"), target, "an onnxlens.json that was not written by an export", force=True)
    assert content(target) == before and (tmp_path / "precious.txt").exists()


@pytest.mark.parametrize("inside", [".", "source", "checkpoints/first"])
@pytest.mark.parametrize("force", [True, False])
def test_a_target_with_the_checkpoint_in_it(bundle: Folder, tmp_path: Path, inside: str, force: bool) -> None:
    target = tmp_path / "bundle"
    shutil.copytree(bundle("base"), target)
    (target / MANIFEST).rename(tmp_path / MANIFEST)
    source = write_checkpoint(target / inside)
    if inside != ".":
        (tmp_path / MANIFEST).rename(target / MANIFEST)
    before = content(target)
    refused(source, target, "Cannot write .*bundle: the checkpoint's folder .* is in it. Give another", force=force)
    assert content(target) == before


def test_a_target_with_a_file_of_the_checkpoint_in_it(bundle: Folder, tmp_path: Path) -> None:
    """The weights of a bundle are a checkpoint's; somebody may have linked to them in place of a copy."""
    target = tmp_path / "bundle"
    shutil.copytree(bundle("base"), target)
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors").unlink()
    (source / "model.safetensors").symlink_to(target / "onnx" / "model.onnx_data")
    refused(source, target, "the checkpoint's file model.safetensors is in it", force=True)


def test_what_is_in_the_way_is_found_out_before_any_work(
    bundle: Folder, checkpoint: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxlens.export._bundle.read_checkpoint", lambda *args, **options: pytest.fail("work began"))
    linked, added = tmp_path / "linked", tmp_path / "added"
    shutil.copytree(bundle("base"), linked)
    (linked / "onnx").rename(tmp_path / "graphs")
    (linked / "onnx").symlink_to(tmp_path / "graphs")
    refused(
        checkpoint("base"),
        linked,
        "linked/onnx does not belong to the existing bundle, but the new bundle needs its name",
        force=True,
    )
    shutil.copytree(bundle("base"), added)
    (added / "onnx" / "model_gradients.onnx").write_text("mine")
    refused(checkpoint("base"), added, "model_gradients.onnx does not belong to the existing bundle", force=True)


def test_a_target_in_the_checkpoints_folder(tmp_path: Path, quick_trace: None) -> None:
    source = write_checkpoint(tmp_path / "source")
    before = content(source)
    export(source, source / "onnxlens")
    assert {name: value for name, value in content(source).items() if not name.startswith("onnxlens/")} == before


def while_it_runs(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Does something in the middle of an export, as somebody else may."""

    def check(*args: object) -> dict[str, Any]:
        do()
        return {}

    monkeypatch.setattr("onnxlens.export._verify.check", check)


def test_files_put_into_the_target_while_the_export_runs(
    checkpoint: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unproven: None, left_behind: LeftBehind
) -> None:
    target = tmp_path / "out" / "bundle"

    def write() -> None:
        target.mkdir(parents=True)
        (target / "mine.txt").write_text("mine")

    while_it_runs(monkeypatch, write)
    refused(checkpoint("base"), target, "bundle was written to while the export ran; it will not be replaced, and")
    assert content(target) == {"mine.txt": b"mine"}
    assert left_behind() == ["bundle", "bundle/mine.txt"]


@pytest.mark.parametrize("force", [False, True])
def test_two_exports_to_one_new_target(
    bundle: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unproven: None, force: bool
) -> None:
    """The first to finish has it; the second replaces it only where it may."""
    target, source = tmp_path / "bundle", write_checkpoint(tmp_path / "source", seed=5)
    while_it_runs(monkeypatch, lambda: shutil.copytree(bundle("base"), target))
    if not force:
        refused(source, target, "bundle was written to while the export ran")
    else:
        export(source, target, force=True)
    assert (content(target) == content(bundle("base"))) != force


def test_a_bundle_that_becomes_something_else_while_the_export_runs(
    bundle: Folder, checkpoint: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unproven: None
) -> None:
    target = tmp_path / "bundle"
    shutil.copytree(bundle("base"), target)

    def write() -> None:
        shutil.rmtree(target)
        target.mkdir()
        (target / "mine.txt").write_text("mine")

    while_it_runs(monkeypatch, write)
    refused(checkpoint("base"), target, "bundle exists and is not a bundle; it will not be replaced", force=True)
    assert content(target) == {"mine.txt": b"mine"}


def test_the_bundles_permissions_are_kept(bundle: Folder, checkpoint: Folder, tmp_path: Path, unproven: None) -> None:
    target = tmp_path / "bundle"
    shutil.copytree(bundle("base"), target)
    target.chmod(0o700)
    export(checkpoint("base"), target, force=True)
    assert target.stat().st_mode & 0o777 == 0o700


def test_an_empty_folder_is_filled(checkpoint: Folder, tmp_path: Path, unproven: None) -> None:
    (tmp_path / "empty").mkdir()
    assert (export(checkpoint("base"), tmp_path / "empty").path / MANIFEST).is_file()


def test_a_file_in_the_targets_place(checkpoint: Folder, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    refused(checkpoint("base"), tmp_path / "taken", "taken is a file; give a folder to write the bundle to", force=True)
    refused(checkpoint("base"), tmp_path / "taken" / "bundle", "Cannot write .*bundle: .*taken is a file")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_name_that_no_disk_takes(checkpoint: Folder, tmp_path: Path) -> None:
    refused(checkpoint("base"), tmp_path / ("n" * 300), "Cannot write .*: [Ff]ile name too long")


def test_a_name_as_long_as_the_disk_takes(checkpoint: Folder, tmp_path: Path, unproven: None) -> None:
    assert export(checkpoint("base"), tmp_path / ("n" * 255)).path.is_dir()


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("loop", "Cannot write .*loop: .*loop"),
        ("loop/bundle", "Cannot write .*bundle: .*loop"),
        (os.fsdecode(b"caf\xe9"), "Cannot write .*: its name is not UTF-8, and ONNX Runtime opens no such files"),
        (os.fsdecode(b"caf\xe9") + "/bundle", "its name is not UTF-8"),
        ("a\0b", "Cannot write .*: .*null"),
    ],
    ids=["loop", "in a loop", "not UTF-8", "in a folder that is not UTF-8", "null"],
)
def test_names_that_cannot_be_used_are_found_out_before_any_work(
    checkpoint: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pattern: str
) -> None:
    monkeypatch.setattr("onnxlens.export._bundle.read_checkpoint", lambda *args, **options: pytest.fail("work began"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(checkpoint("base"), tmp_path / name, pattern)


def test_the_home_of_nobody(checkpoint: Folder) -> None:
    refused(checkpoint("base"), Path("~nobody-of-this-name/bundle"), "Cannot write ~nobody.*: .*home directory")


def test_a_mounted_disk_is_not_replaced(checkpoint: Folder, mounted: Callable[[str], Path]) -> None:
    out = mounted("size=64m")
    refused(checkpoint("base"), out, f"Cannot write {out}: it is a mount point, .* such as {out}/model")


def test_a_target_that_may_not_be_written(checkpoint: Folder, tmp_path: Path, mounted: Callable[[str], Path]) -> None:
    if os.geteuid() == 0:  # who may write everywhere but where nobody can
        out = mounted("size=1m,ro")
    else:
        out = tmp_path / "out"
        out.chmod(0o555)
    refused(checkpoint("base"), out / "bundle", f"Cannot write .*bundle: no permission to write in {out}")
    refused(checkpoint("base"), out / "a" / "b" / "bundle", f"no permission to write in {out}")


def test_too_little_space_is_found_out_before_any_work(
    checkpoint: Folder, mounted: Callable[[str], Path], left_behind: LeftBehind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxlens.export._verify.reference", lambda *args: pytest.fail("work has begun"))
    out = mounted("size=2m")
    refused(checkpoint("base"), out / "bundle", "Cannot write .*: it needs 32 MB, and 2 MB are free there")
    assert left_behind() == []


@pytest.mark.parametrize("kilobytes", [64, 152, 176, 192], ids=lambda size: f"{size}k")
def test_a_disk_that_fills_up(
    checkpoint: Folder,
    mounted: Callable[[str], Path],
    left_behind: LeftBehind,
    monkeypatch: pytest.MonkeyPatch,
    unproven: None,
    kilobytes: int,
) -> None:
    """While weights, graphs or the small files are written; somebody else took the space meanwhile."""
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 10**12))
    out = mounted(f"size={kilobytes}k")
    refused(checkpoint("base"), out / "bundle", "Cannot write .*: .*[Nn]o space left on device.* Nothing was written")
    assert left_behind() == []


@pytest.mark.parametrize("step", STEPS[3:], ids=lambda step: step.rsplit(".", 1)[1])
def test_an_error_of_the_disk_leaves_nothing_behind(
    checkpoint: Folder,
    tmp_path: Path,
    left_behind: LeftBehind,
    monkeypatch: pytest.MonkeyPatch,
    unproven: None,
    step: str,
) -> None:
    fail_after(monkeypatch, step, OSError(errno.EIO, os.strerror(errno.EIO)))
    refused(checkpoint("base"), tmp_path / "out" / "bundle", "Input/output error. Nothing was written")
    assert left_behind() == []


# A real process, stopped for a while where the weights are written; it traces nothing, to save time.
PAUSED = """
import sys, time
from onnxlens.export import _bundle as bundle

def paused(graph, folder):
    print("ready", flush=True)
    time.sleep(60)

bundle.hooks_graph = lambda config: None
bundle.write_graphs = paused
from onnxlens._cli import main
sys.argv[0] = "onnxlens"
main()
"""


@pytest.fixture
def running(bundle: Folder, checkpoint: Folder, tmp_path: Path, left_behind: LeftBehind) -> Iterator[Running]:
    """An export that replaces `tmp_path / "out" / "bundle"`, in the middle of its work."""
    target = tmp_path / "out" / "bundle"
    shutil.copytree(bundle("base"), target)
    names = left_behind()
    process = subprocess.Popen(
        [sys.executable, "-c", PAUSED, "export", str(checkpoint("base")), str(target), "--force"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert any(name.endswith("/onnx/model.onnx_data") for name in set(left_behind()) - set(names))
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_to_a_running_export(
    bundle: Folder, tmp_path: Path, left_behind: LeftBehind, running: Running, number: signal.Signals, status: int
) -> None:
    running.send_signal(number)
    out, err = running.communicate(timeout=600)
    assert running.returncode == status
    assert out == ""
    assert err.strip() == ("Interrupted." if number == signal.SIGINT else "")
    assert content(tmp_path / "out" / "bundle") == content(bundle("base"))
    assert [name for name in left_behind() if not name.startswith("bundle")] == []


def test_the_next_export_cleans_up_after_one_that_was_killed(
    bundle: Folder, checkpoint: Folder, tmp_path: Path, left_behind: LeftBehind, running: Running, unproven: None
) -> None:
    def hidden() -> list[str]:
        return [name for name in left_behind() if name.startswith(".") and "/" not in name]

    export(checkpoint("base"), tmp_path / "out" / "other")
    assert len(hidden()) == 1, "that of the process that is still running"
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=600)
    assert len(hidden()) == 1
    assert content(tmp_path / "out" / "bundle") == content(bundle("base"))
    export(checkpoint("base"), tmp_path / "out" / "other", force=True)
    assert hidden() == []
    assert content(tmp_path / "out" / "bundle") == content(bundle("base"))


def test_a_failed_proof_leaves_nothing_behind(
    checkpoint: Folder,
    tmp_path: Path,
    left_behind: LeftBehind,
    monkeypatch: pytest.MonkeyPatch,
    unproven: None,
) -> None:
    fail_after(monkeypatch, "onnxlens.export._verify.check", ExportError("the graphs differ"))
    with pytest.raises(ExportError, match="the graphs differ"):
        export(checkpoint("base"), tmp_path / "out" / "bundle")
    assert left_behind() == []
