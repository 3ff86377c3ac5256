"""What all tests share: folders of their own, and exports made once for all of them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from exports import export_named
from filelock import FileLock
from hypothesis import HealthCheck, settings
from untested import pytest_sessionfinish

from onnxlens.runtime._running.runner import Runner

__all__ = ["pytest_sessionfinish"]  # pytest finds hooks in conftest.py only


class NeedsPyTorch:
    """Where PyTorch is not installed, importing it skips the test, or the module of tests, that does."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Called for modules that no other finder has found."""
        if name in ("torch", "transformers"):
            pytest.skip("needs PyTorch: install onnxlens[export]", allow_module_level=True)


sys.meta_path.append(NeedsPyTorch)

# How long an example takes says something about the machine, not about what is tested.
settings.register_profile("onnxlens", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("onnxlens")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all xdist workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def isolated(shared: Path) -> Iterator[None]:
    """Keeps tests away from the user's folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNXLENS_CACHE", str(shared / "cache"))
        patch.setenv("XDG_DATA_HOME", str(shared / "data"))
        patch.setenv("XDG_CONFIG_HOME", str(shared / "config"))
        patch.setenv("COLUMNS", "120")
        yield


@pytest.fixture
def left_behind(tmp_path: Path) -> Callable[[], list[str]]:
    """The names of all that lies in the folder `tmp_path / "out"`, hidden ones included."""
    out = tmp_path / "out"
    out.mkdir()
    return lambda: sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))


@pytest.fixture
def mounted(tmp_path: Path, left_behind: Callable[[], list[str]]) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of its own, with the options given, at `tmp_path / "out"`."""
    out = tmp_path / "out"
    done = False

    def mount(options: str) -> Path:
        nonlocal done
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(out)]
        result = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
        if result is None or result.returncode:
            pytest.skip("needs root, to mount a small disk and fill it")
        done = True
        return out

    yield mount
    if done:
        subprocess.run(["umount", str(out)], check=True)


@pytest.fixture(scope="session")
def checkpoint(shared: Path) -> Callable[[str], Path]:
    """The folder of a checkpoint by its name in `checkpoints.CONFIGS`."""

    def make(name: str) -> Path:
        folder = shared / "checkpoints" / name
        with FileLock(shared / f"checkpoint-{name}.lock"):
            if not folder.exists():
                write_checkpoint(folder, name)
        return folder

    return make


@pytest.fixture(scope="session")
def bundle(shared: Path, checkpoint: Callable[[str], Path]) -> Callable[[str], Path]:
    """The folder of an exported bundle; do not change what is in it.

    `exports.export_named` says what the names mean. The folder that ONNXLENS_TEST_EXPORTS names may have some already.
    """
    given = Path(os.environ.get("ONNXLENS_TEST_EXPORTS", shared / "no exports"))

    def make(name: str) -> Path:
        if (given / name).is_dir():
            return given / name
        folder = shared / "bundles" / name
        with FileLock(shared / f"bundle-{name}.lock"):
            if not folder.exists():
                export_named(name, checkpoint(name.split("-")[0]), folder)
        return folder

    return make


@pytest.fixture(scope="session")
def runner(bundle: Callable[[str], Path]) -> Callable[[str], Runner]:
    """An open runner by the name of its checkpoint."""
    open_runners: dict[str, Runner] = {}

    def make(name: str) -> Runner:
        if name not in open_runners:
            open_runners[name] = Runner(bundle(name), provider="cpu", threads=1)
        return open_runners[name]

    return make


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document printed."""
        return json.loads(self.out)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs `onnxlens` with arguments and bytes on standard input; nothing there is an empty pipe."""
    from onnxlens._cli import _run

    def run(*arguments: object, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        code = _run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
