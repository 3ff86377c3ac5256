"""What replaces a bundle: interrupted or killed at any point, it loses nothing, and a later run cleans up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from staging_sweep import content, left_behind, other_files, replace, write_bundle

from onnxlens.export import _exchange as exchange_module
from onnxlens.export import _staging as staging
from onnxlens.export import _target as target
from onnxlens.export._exchange import exchange
from onnxlens.runtime.errors import OutputError

HERE = Path(__file__).parent


@pytest.fixture(params=[True, False], ids=["swapping", "renaming"])
def swapping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the system can swap two folders in one step; both ways are tested everywhere."""
    if not request.param:
        monkeypatch.setattr(staging, "exchange", lambda first, second: False)
    return bool(request.param)


class Interrupter:
    """Raises KeyboardInterrupt before the nth instruction that runs in two modules, as a signal may."""

    def __init__(self, count: int) -> None:
        self.files, self.left = {staging.__file__, target.__file__}, count

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in self.files:
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file that is left open
@pytest.mark.parametrize("existing", [True, False], ids=["replacing", "new"])
def test_an_interruption_at_any_instruction_loses_nothing(tmp_path: Path, swapping: bool, existing: bool) -> None:
    """The target is the old bundle, or the new one, or (where there was no old one) nothing; always whole."""
    interrupted, count, swept, finished = 0, 0, 0, False
    while not finished:
        count += 1 + count // 25  # every instruction at first, then fewer
        place = tmp_path / str(count) / "bundle"
        place.parent.mkdir()
        if existing:
            write_bundle(place, "old", other_files=True)
        interrupter = Interrupter(count)
        try:
            with interrupter:
                replace(place, force=existing)
        except KeyboardInterrupt:
            interrupted += 1
        finished = interrupter.left > 0
        swept += {path.name for path in place.parent.iterdir()} <= {"bundle"}
        staging.recover(place.parent)
        assert left_behind(place) == [], count
        found = content(place)
        assert found in ((["old"], ["new"]) if existing else ([], ["new"])), count
        assert other_files(place) == existing, count
    assert interrupted > 50
    # What strikes while it sweeps up can leave a hidden folder; what strikes before cannot.
    assert swept > interrupted * 0.3


@pytest.mark.parametrize("way", ["swapping", "renaming"])
@pytest.mark.parametrize("existing", ["replacing", "new"])
def test_a_kill_at_any_line_loses_nothing(tmp_path: Path, way: str, existing: str) -> None:
    """Real processes, killed with SIGKILL, in which nothing cleans up."""
    result = subprocess.run(
        [sys.executable, str(HERE / "staging_sweep.py"), str(tmp_path), way, existing],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["wrong"] == []
    assert report["killed"] > 50
    # Killed before and after the moment of replacing.
    assert report["old" if existing == "replacing" else "nothing"] > 10 and report["new"] > 1


def test_what_a_running_export_writes_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    with staging.staged(place, force=False) as folder:
        write_bundle(folder, "new")
        staging.recover(tmp_path)
        assert content(folder) == ["new"]
        replace(tmp_path / "other", force=False)
    assert content(place) == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "other"]


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    """A name that begins as ours do is no proof."""
    (tmp_path / ".onnxlens-export-notes").write_text("mine")
    (tmp_path / ".onnxlens-export-folder").mkdir()
    (tmp_path / ".onnxlens-export-folder" / "note").write_text("mine")
    (tmp_path / ".onnxlens-export-link").symlink_to(tmp_path / ".onnxlens-export-folder")
    before = sorted(tmp_path.rglob("*"))
    staging.recover(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def change_while_replaced(monkeypatch: pytest.MonkeyPatch, swapping: bool, do: Callable[[], object]) -> None:
    """Does something after the last check and before the swap."""
    real = exchange_module.exchange
    waiting = [do]

    def late(first: Path, second: Path) -> bool:
        while waiting:
            waiting.pop()()
        return real(first, second) if swapping else False

    monkeypatch.setattr(staging, "exchange", late)


def test_a_file_put_in_at_the_last_moment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapping: bool
) -> None:
    place = tmp_path / "bundle"
    write_bundle(place, "old")
    change_while_replaced(monkeypatch, swapping, lambda: (place / "onnx" / "late.txt").write_text("mine"))
    replace(place, force=True)
    assert content(place) == ["new"]
    assert (place / "onnx" / "late.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_put_in_the_targets_place_at_the_last_moment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapping: bool
) -> None:
    place = tmp_path / "bundle"
    write_bundle(place, "old")

    def put() -> None:
        place.rename(tmp_path / "moved")
        place.mkdir()
        (place / "mine.txt").write_text("mine")

    change_while_replaced(monkeypatch, swapping, put)
    with pytest.raises(OutputError, match=r"bundle changed while it was replaced\. Nothing was written"):
        replace(place, force=True)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]
    assert content(tmp_path / "moved") == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "moved"]


def test_a_file_in_the_way_of_the_new_bundle_is_not_overwritten(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    write_bundle(place, "old")
    (place / "added.json").write_text("mine")
    pattern = "added.json does not belong to the existing bundle, but the new bundle needs its name"
    with pytest.raises(OutputError, match=pattern), staging.staged(place, force=True) as folder:
        write_bundle(folder, "new", "added.json")
    assert (place / "added.json").read_text() == "mine" and content(place) == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_file_in_the_way_at_the_last_moment_gets_a_folder_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a kill between swap and check would leave it."""
    place, scratch = tmp_path / "bundle", tmp_path / ".onnxlens-export-x"
    write_bundle(place, "new", "added.json")
    scratch.mkdir()
    (scratch / "target").write_text("bundle")
    write_bundle(scratch / "replaced", "old")
    (scratch / "replaced" / "added.json").write_text("mine")
    staging.recover(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.kept-1"]
    assert [path.name for path in (tmp_path / "bundle.kept-1").iterdir()] == ["added.json"]
    assert "were moved to" in caplog.text and "bundle.kept-1" in caplog.text


@pytest.mark.parametrize("name", ["", ".", "..", "../bundle", "a/b"])
def test_a_scratch_folder_that_names_no_target_beside_it(tmp_path: Path, name: str) -> None:
    scratch = tmp_path / "models" / ".onnxlens-export-x"
    scratch.mkdir(parents=True)
    write_bundle(scratch / "replaced", "old", other_files=True)
    (scratch / "target").write_text(name)
    staging.recover(tmp_path / "models")
    assert content(scratch / "replaced") == ["old"] and other_files(scratch / "replaced")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_link_in_place_of_what_was_replaced_is_not_followed(tmp_path: Path) -> None:
    place, scratch = tmp_path / "bundle", tmp_path / ".onnxlens-export-x"
    write_bundle(place, "new")
    write_bundle(tmp_path / "other", "old")
    scratch.mkdir()
    (scratch / "target").write_text("bundle")
    (scratch / "replaced").symlink_to(tmp_path / "other")
    staging.recover(tmp_path)
    assert content(tmp_path / "other") == ["old"]
    assert (tmp_path / "bundle.kept-1").is_symlink()


def test_what_is_behind_links_is_not_removed(tmp_path: Path) -> None:
    """Bundles whose files are links, as in the hub's cache; and a folder of notes that is one."""
    place, blobs = tmp_path / "bundle", tmp_path / "blobs"
    write_bundle(place, "old")
    blobs.mkdir()
    for path in [path for path in place.rglob("*") if path.is_file()]:
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note").write_text("mine")
    (place / "notes").symlink_to(tmp_path / "notes")
    before = {path: path.read_bytes() for path in blobs.iterdir()}
    replace(place, force=True)
    assert content(place) == ["new"]
    assert not (place / "onnxlens.json").is_symlink()
    assert (place / "notes").is_symlink() and (place / "notes" / "note").read_text() == "mine"
    assert {path: path.read_bytes() for path in blobs.iterdir()} == before


def test_a_bundle_whose_graphs_lie_behind_a_link_is_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    write_bundle(place, "old")
    (place / "onnx").rename(tmp_path / "graphs")
    (place / "onnx").symlink_to(tmp_path / "graphs")
    with pytest.raises(OutputError, match="onnx does not belong to the existing bundle, but the new bundle needs"):
        replace(place, force=True)
    assert content(place) == ["old"]


def test_swapping_two_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this system or file system cannot swap two names in one step")
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "nothing")


def test_a_system_that_cannot_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda *args, **options: object())
    assert not exchange(tmp_path / "a", tmp_path / "b")
