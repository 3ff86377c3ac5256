"""Plugins of others, made for a test: as files, and as installed packages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keeps what is installed here, and what a test imports, out of the tests."""
    monkeypatch.delenv("ONNXLENS_PLUGINS", raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("onnxlens_plugin_", "outside_")):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs a package with one module and one entry point; returns the module's file."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def make(name: str, source: str, *, entry: str | None = None, version: str = "1.0") -> Path:
        module = f"outside_{name}"
        (site / f"{module}.py").write_text(source)
        information = site / f"{name}-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (information / "entry_points.txt").write_text(f"[onnxlens]\n{entry or name} = {module}\n")
        return site / f"{module}.py"

    return make


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a plugin as a file."""

    def make(name: str, source: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        return path

    return make


@pytest.fixture
def dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a plugin into the user's folder."""
    from onnxlens.plugins._sources import drop_in_folder

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    drop_in_folder().mkdir(parents=True)

    def make(name: str, source: str) -> Path:
        path = drop_in_folder() / f"{name}.py"
        path.write_text(source)
        return path

    return make
