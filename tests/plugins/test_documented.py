"""Every hook has a test and an entry in the docs, and so has everything that is built in and every public name."""

from __future__ import annotations

from pathlib import Path

import onnxlens.plugins
from onnxlens.plugins import hookspecs, testing
from onnxlens.plugins.registry import Registry

ROOT = Path(__file__).parents[2]
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
    for name in testing.__all__:
        assert name == "HOSTILE" or f"## onnxlens.plugins.testing.{name}\n" in DOCS


def test_every_built_in_visualizer_is_documented():
    reference = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in Registry(find=False).visualizers:
        assert f"### onnxlens view {name}\n" in reference


def test_docs_name_the_version_of_the_interface():
    assert f"`ONNXLENS_PLUGIN_API = {hookspecs.API_VERSION}`" in DOCS
