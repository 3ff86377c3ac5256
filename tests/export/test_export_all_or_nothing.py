"""An export writes a whole bundle or nothing, whatever happens in between, and never loses one that was there."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from checkpoints import write_checkpoint

from onnxlens.export import bundle as pipeline
from onnxlens.export import export, staging
from onnxlens.runtime.bundle import Bundle
from onnxlens.runtime.errors import ExportError, OutputError
from onnxlens.runtime.manifest import MANIFEST

Folder = Callable[[str], Path]
LeftBehind = Callable[[], list[str]]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch, quick_trace: None) -> None:
    """Leaves out the comparison with PyTorch, for tests of what happens around it."""
    monkeypatch.setattr("onnxlens.export.verify.reference", lambda checkpoint, wanted: [])
    monkeypatch.setattr("onnxlens.export.verify.check", lambda folder, config, wanted, expected: {})


STEPS = (
    "onnxlens.export.bundle.read_checkpoint",
    "onnxlens.export.verify.reference",
    "onnxlens.export.bundle.hooks_graph",
    "onnxlens.export.bundle.write_weights",
    "onnxlens.export.bundle.write_graphs",
    "onnxlens.export.bundle.write_configurations",
    "onnxlens.export.verify.check",
    "onnxlens.export.bundle.sha256_of",
    "onnxlens.runtime.manifest.Manifest.write",
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


def replace(target: Path) -> None:
    with staging.staged(target) as folder:
        (folder / "which").write_text("new")


class Interrupter:
    """Raises KeyboardInterrupt before the nth instruction that runs in a module, as a signal may."""

    def __init__(self, module: Any, count: int) -> None:
        self.file, self.left = module.__file__, count
        self.cleaning_up = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != self.file:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self

    def __enter__(self) -> None:
        self.before = sys.gettrace()
        sys.settrace(self)

    def __exit__(self, *exception: object) -> None:
        sys.settrace(self.before)


@pytest.mark.parametrize("existing", [True, False], ids=["replacing", "new"])
def test_an_interruption_at_any_instruction_loses_nothing(tmp_path: Path, existing: bool) -> None:
    """The target is the old folder, or the new one, or (where there was no old one) nothing; always whole."""
    interrupted, count, swept = 0, 0, 0
    while True:
        count += 1
        target = tmp_path / str(count) / "bundle"
        target.parent.mkdir()
        if existing:
            target.mkdir()
            (target / "which").write_text("old")
        interrupter = Interrupter(staging, count)
        try:
            with interrupter:
                replace(target)
        except KeyboardInterrupt:
            interrupted += 1
        else:
            if interrupter.left > 0:
                break
        found = (target / "which").read_text() if target.exists() else None
        assert found in (("old", "new") if existing else (None, "new")), count
        assert not target.exists() or list(target.iterdir()) == [target / "which"]
        swept += {path.name for path in target.parent.iterdir()} <= {"bundle"}
    assert interrupted > 100
    # What strikes while it sweeps up can leave a hidden folder; what strikes before cannot.
    assert swept > interrupted * 0.6


def test_force_replaces_a_bundle_with_the_new_one(
    bundle: Folder, tmp_path: Path, left_behind: LeftBehind, quick_trace: None
) -> None:
    target = tmp_path / "out" / "bundle"
    shutil.copytree(bundle("base"), target)
    (target / "old notes.txt").write_text("of the old bundle")
    source = write_checkpoint(tmp_path / "source", seed=5)
    made = export(source, target, force=True)
    assert made.path == target
    assert not (target / "old notes.txt").exists()
    assert content(target)["onnx/model.onnx_data"] != content(bundle("base"))["onnx/model.onnx_data"]
    Bundle(target, verify=True)
    assert [name for name in left_behind() if not name.startswith("bundle")] == []


def test_a_bundle_behind_a_link_is_replaced_where_it_lies(
    bundle: Folder, checkpoint: Folder, tmp_path: Path, unproven: None
) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(bundle("base"), tmp_path / "elsewhere" / "real")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "real")
    (tmp_path / "elsewhere" / "real" / "note").touch()
    export(checkpoint("base"), tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "elsewhere" / "real" / "note").exists()


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
        "thesis exists and is no bundle; it will not be replaced. Give another folder",
        force=force,
    )
    assert content(tmp_path / "thesis") == {"chapter1.tex": b"years of work"}


def test_the_checkpoints_own_folder_is_never_replaced(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    before = content(source)
    refused(source, source, "exists and is no bundle; it will not be replaced", force=True)
    assert content(source) == before


def test_an_empty_folder_is_filled(checkpoint: Folder, tmp_path: Path, unproven: None) -> None:
    (tmp_path / "empty").mkdir()
    assert (export(checkpoint("base"), tmp_path / "empty").path / MANIFEST).is_file()


def test_a_file_in_the_targets_place(checkpoint: Folder, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    refused(checkpoint("base"), tmp_path / "taken", "taken is a file; give a folder to write the bundle to", force=True)
    refused(checkpoint("base"), tmp_path / "taken" / "bundle", "Cannot write .*bundle: .*taken is a file")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_name_that_no_disk_takes(checkpoint: Folder, tmp_path: Path) -> None:
    refused(checkpoint("base"), tmp_path / ("n" * 300), "Cannot write .*: File name too long")


@pytest.fixture
def mounted(tmp_path: Path, left_behind: LeftBehind) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of its own, with the options given, at `tmp_path / "out"`."""
    out = tmp_path / "out"
    done = False

    def mount(options: str) -> Path:
        nonlocal done
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(out)]
        result = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
        if result is None or result.returncode:
            pytest.skip("a small disk to fill must be mounted, and only root may")
        done = True
        return out

    yield mount
    if done:
        subprocess.run(["umount", str(out)], check=True)


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
    monkeypatch.setattr("onnxlens.export.verify.reference", lambda *args: pytest.fail("work has begun"))
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
from onnxlens.export import bundle

def paused(graph, folder):
    print("ready", flush=True)
    time.sleep(60)

bundle.hooks_graph = lambda config: None
bundle.write_graphs = paused
from onnxlens.cli import main
sys.argv[0] = "onnxlens"
main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_to_a_running_export(
    bundle: Folder, checkpoint: Folder, tmp_path: Path, left_behind: LeftBehind, number: signal.Signals, status: int
) -> None:
    target = tmp_path / "out" / "bundle"
    shutil.copytree(bundle("base"), target)
    before, names = content(target), left_behind()
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
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status
    assert out == ""
    assert err.strip() == ("Interrupted." if number == signal.SIGINT else "")
    assert content(target) == before
    assert left_behind() == names


def test_a_failed_proof_leaves_nothing_behind(
    checkpoint: Folder,
    tmp_path: Path,
    left_behind: LeftBehind,
    monkeypatch: pytest.MonkeyPatch,
    unproven: None,
) -> None:
    fail_after(monkeypatch, "onnxlens.export.verify.check", ExportError("the graphs differ"))
    with pytest.raises(ExportError, match="the graphs differ"):
        export(checkpoint("base"), tmp_path / "out" / "bundle")
    assert left_behind() == []
