"""What tests of the explorer's page share."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from onnxlens.plugins.explorer._server import BUILT

__all__ = ["CHROMIUM", "NEEDS_PAGE", "number"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# The `pytestmark` of a module that opens the page; the CI installs Chromium and builds the page, so there it must run.
NEEDS_PAGE = [
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="needs Chromium on the PATH: apt-get install chromium"
    ),
    pytest.mark.skipif(
        not (BUILT / "index.html").is_file() and "CI" not in os.environ, reason="needs the built page: make explore"
    ),
]


def number(text: str) -> float:
    """The first number in a text of the page, whose minus is a real one."""
    found = re.search(r"[-+]?\d+(\.\d+)?(e-?\d+)?", text.replace("−", "-"))
    assert found, f"no number in {text!r}"
    return float(found.group())
