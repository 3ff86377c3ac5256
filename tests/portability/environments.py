"""Installs the packages of a runtime into a folder of its own, once."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

from portability.runtimes import ENVIRONMENTS

__all__ = ["NotInstalledError", "installed", "node"]

_STAMP = "installed.json"
_WEB = Path(__file__).parents[2] / "plugins" / "explorer" / "web" / "build.py"


_failed: dict[str, NotInstalledError] = {}


class NotInstalledError(Exception):
    """A package or program cannot be had; the text says which, and why."""


def installed(name: str, build: Path) -> Path:
    """The folder of an environment, in which the packages are.

    Raises:
        NotInstalledError: one of them cannot be had.
    """
    if name in _failed:
        raise _failed[name]
    try:
        return _installed(name, build / "environments" / name)
    except NotInstalledError as error:
        _failed[name] = error  # once is enough
        raise


def _installed(name: str, folder: Path) -> Path:
    environment = ENVIRONMENTS[name]
    wanted = json.dumps([asdict(environment), sys.version_info[:2]])
    stamp = folder / _STAMP
    _check_programs(name)
    if stamp.is_file():
        found = json.loads(stamp.read_text())
        if found == json.loads(wanted):
            return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if environment.python:
        _call([sys.executable, "-m", "venv", folder])
        for group in environment.python:
            _call([folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *group])
    if environment.npm:
        (folder / "package.json").write_text('{"private": true}')
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        _npm(["install", *options, *environment.npm], folder)
    if environment.files:
        _take_out(*environment.files, folder)
    stamp.write_text(wanted)
    return folder


def _check_programs(name: str) -> None:
    if name == "headers":
        _call(["cc", "--version"])
    if name == "browser" and not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        raise NotInstalledError("there is no Chromium on the PATH")


@cache
def _found_node() -> tuple[list[str], Path]:
    """npm's command, and the folder of Node: the system's, or that of a package, as for the page of the explorer."""
    spec = importlib.util.spec_from_file_location("explorer_build", _WEB)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        found: tuple[list[str], Path] = module.node()
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotInstalledError(f"there is no Node: {error}") from error
    return found


def node() -> Path:
    """The program of Node.

    Raises:
        NotInstalledError: there is none.
    """
    return _found_node()[1] / "node"


def _npm(arguments: list[str], folder: Path) -> str:
    command, home = _found_node()
    return _call([*command, *arguments], folder, {**os.environ, "PATH": f"{home}{os.pathsep}{os.environ['PATH']}"})


def _take_out(package: str, inside: str, target: str, folder: Path) -> None:
    archive = folder / _npm(["pack", "--silent", package], folder).split()[-1]
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            place, _, file = member.name.rpartition("/")
            if member.isfile() and place.endswith(inside):
                (folder / target).mkdir(exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None
                (folder / target / file).write_bytes(content.read())
    archive.unlink()
    if not (folder / target).is_dir():
        raise NotInstalledError(f"{package} has no folder {inside}")


def _call(command: list[str | Path], folder: Path | None = None, variables: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            [*map(str, command)], cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise NotInstalledError(f"there is no {command[0]} on the PATH") from error
    if done.returncode:
        said = [line for line in f"{done.stderr}\n{done.stdout}".splitlines() if "error" in line.lower()]
        raise NotInstalledError(" ".join(said)[:300] or f"exit code {done.returncode}")
    return done.stdout
