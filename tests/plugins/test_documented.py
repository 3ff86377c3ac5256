"""Every hook has a test and an entry in the docs, and so has everything that is built in and every public name."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

import onnxlens
import onnxlens.plugins
from onnxlens.plugins import _hookspecs as hookspecs
from onnxlens.plugins import charts, testing
from onnxlens.plugins._registry import Registry

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import pictures  # noqa: E402  # which is no part of the package

DOCS = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
TESTS = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py")) if path != Path(__file__)
)


def specifications() -> list[str]:
    return [name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")]


def test_every_hook_is_documented_and_tested():
    assert specifications() == list(hookspecs.HOOKS)
    for name in specifications():
        text = getattr(hookspecs, name).__doc__
        assert "\n" not in text, f"the docstring of {name} is one line"
        assert f"| `{name}(register)` | {text} |" in DOCS
        assert f"def {name}(register)" in TESTS, f"no test implements {name}"


def test_every_public_name_is_documented():
    for name in onnxlens.plugins.__all__:
        assert name in ("InputError", "hookimpl") or f"## onnxlens.plugins.{name}\n" in DOCS
        assert name in DOCS
    for name in charts.__all__:
        assert f"## onnxlens.plugins.charts.{name}\n" in DOCS
    for name in testing.__all__:
        assert name == "HOSTILE" or f"## onnxlens.plugins.testing.{name}\n" in DOCS


def test_every_built_in_visualizer_is_documented_with_a_picture_and_its_command():
    reference = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    gallery = (ROOT / "docs" / "visualizers.md").read_text(encoding="utf-8")
    for name in Registry(find=False).visualizers:
        assert f"### onnxlens view {name}\n" in reference
        assert f"## {name}\n" in gallery
    assert {visualizer for visualizer, _, _ in pictures.PICTURES.values()} == set(Registry(find=False).visualizers)
    for name in pictures.PICTURES:
        assert f"    {pictures.command_of(name)}\n" in gallery
        assert f"](images/{name}.png)\n" in gallery
        assert (ROOT / "docs" / "images" / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["attention-lines", "compare", "patching"])
def test_the_command_of_a_picture_makes_it(name, command, tmp_path):
    arguments = shlex.split(pictures.command_of(name))[1:-1]
    path = tmp_path / f"{name}.json"
    ran = command(*arguments, path)
    assert ran.code == 0, ran.err
    visualizer, text, options = pictures.PICTURES[name]
    lens = onnxlens.load(provider="cpu", threads=1)
    assert path.read_bytes() == lens.view(visualizer, text, **options).encoded("json")


def test_docs_name_the_version_of_the_interface():
    assert f"`ONNXLENS_PLUGIN_API = {hookspecs.API_VERSION}`" in DOCS
