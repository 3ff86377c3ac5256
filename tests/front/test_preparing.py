"""`onnxlens prepare`, what `inspect` says of prepared files, and users without a home."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from onnxlens.plugins._sources import drop_in_folder
from onnxlens.runtime import _user_folders as user_folders


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ONNXLENS_CACHE", str(folder))
    return folder


def damaged(folder: Path) -> Path:
    (path,) = folder.glob("*/plain.onnx")
    path.write_bytes(bytes(path.stat().st_size))
    return path.parent


def test_what_was_prepared_is_used_by_the_first_run(command, cache, bundle, monkeypatch):
    document = command("prepare", "-m", bundle("base"), "--provider", "cpu", "--json").json
    (row,) = document["prepared"]
    assert Path(row["path"]).parent == cache
    assert row["bytes"] > 1000
    monkeypatch.setattr("onnxlens.runtime._running.prepare._make", lambda *a: pytest.fail("prepared again"))
    assert command("predict", "the cat", "-m", bundle("base"), "--provider", "cpu").code == 0
    ran = command("prepare", "-m", bundle("base"), "--provider", "cpu")
    assert ran.out.startswith(f"prepared in {row['path']} (")


def test_gradients_are_prepared_where_asked_for(command, cache, bundle):
    ran = command("prepare", "-m", bundle("base-gradients"), "--gradients", "--provider", "cpu", "--json")
    assert len(ran.json["prepared"]) == len(list(cache.iterdir())) == 2
    ran = command("prepare", "-m", bundle("base"), "--gradients", "--provider", "cpu")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: The bundle base was exported without --gradients; leave --gradients out.\n"


def test_preparing_fails_where_the_cache_folder_cannot_be_written(command, bundle, tmp_path, monkeypatch):
    """A temporary folder would be gone when the image that is built is run."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ran = command("prepare", "-m", bundle("base"), "--provider", "cpu")
    assert ran.code == 1
    assert ran.err.startswith(f"Error: Cannot prepare base: cannot write to {tmp_path / 'file' / 'cache'}: Not a dir")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_nothing_uses_is_removed_when_asked(command, cache, bundle, tmp_path):
    copy = Path(shutil.copytree(bundle("base"), tmp_path / "gone"))
    command("prepare", "-m", copy, "--provider", "cpu")
    command("prepare", "-m", bundle("untied"), "--provider", "cpu")
    assert command("prepare", "--clean").out == f"nothing to remove in {cache}\n"
    shutil.rmtree(copy)
    assert "/gone-" in command("prepare", "--clean").out
    (kept,) = cache.iterdir()
    assert kept.name.startswith("untied-")
    assert command("prepare", "--clean", "--json").json == {"removed": []}
    assert command("prepare", "--clean", "-m", "tiny").code == 2


def test_inspect_checks_what_is_computed_with(command, cache, bundle):
    assert command("inspect", "-m", bundle("base"), "--json").json["prepared"] == []
    command("prepare", "-m", bundle("base"), "--provider", "cpu")
    (found,) = command("inspect", "-m", bundle("base"), "--json").json["prepared"]
    assert (found["intact"], found["problem"]) == (True, None)
    folder = damaged(cache)
    (found,) = command("inspect", "-m", bundle("base"), "--json").json["prepared"]
    assert found == {"path": str(folder), "intact": False, "problem": "plain.onnx was altered"}
    ran = command("inspect", "-m", bundle("base"))
    assert "not used, since plain.onnx was altered" in " ".join(ran.out.split())


@pytest.fixture
def homeless(monkeypatch) -> None:
    """No HOME, and a user whom the system does not list, as in many containers."""
    for name in ("HOME", "ONNXLENS_CACHE", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


linux = pytest.mark.skipif(sys.platform != "linux", reason="folders are found otherwise there")


@linux
def test_a_place_that_nobody_knows_is_skipped(homeless, command, bundle, tmp_path, monkeypatch, caplog):
    assert user_folders.cache_folder() is user_folders.data_folder() is user_folders.config_folder() is None
    assert drop_in_folder() is None
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = ["-m", bundle("base"), "--provider", "cpu"]
    assert command("predict", "the cat", *model).code == 0
    assert "no cache folder is known: set ONNXLENS_CACHE, or HOME. Name another folder" in caplog.text
    assert len(list(tmp_path.glob("onnxlens-*/base-*"))) == 1
    assert command("generate", "a", "-n", "1", "--sampler", "top_k=2", *model).code == 0
    assert command("view", "tokens", "the cat", *model).code == 0
    assert command("models").code == 0
    assert command("plugins").code == 0
    ran = command("prepare", *model)
    assert (ran.code, ran.err) == (1, "Error: No cache folder is known: name one with ONNXLENS_CACHE, or set HOME.\n")


@linux
def test_a_cache_folder_that_is_named_needs_no_home(homeless, command, bundle, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path / "cache"))
    assert command("predict", "the cat", "-m", bundle("base"), "--provider", "cpu").code == 0
    assert caplog.records == []
    assert len(list((tmp_path / "cache").iterdir())) == 1
    for unknown in ("~/x", "~nobody-of-that-name/x"):
        monkeypatch.setenv("ONNXLENS_CACHE", unknown)
        assert user_folders.cache_folder() is None


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can run a process as another user, with setpriv",
)
def test_what_root_prepared_is_used_by_another_user_who_cannot_write(command, bundle, cache):
    """As in a container: an image built by root, read-only, and run by a user without a name."""
    command("prepare", "-m", bundle("base"), "--provider", "cpu")
    before = {path: path.stat().st_mtime_ns for path in [*cache.rglob("*"), cache]}
    # May read everything, so that it finds this Python and the bundle, and write what anybody may.
    reader = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    done = subprocess.run(
        ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", *reader, sys.executable, "-m", "onnxlens",
         "predict", "the cat", "-m", str(bundle("base")), "--provider", "cpu", "--json"],
        env={key: value for key, value in os.environ.items() if key != "HOME"}, capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in [*cache.rglob("*"), cache]} == before
