"""What tests of the explorer's page share."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from onnxlens.plugins.explorer._server import BUILT

__all__ = ["CHROMIUM", "NEEDS_PAGE", "hosted", "number"]

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


class _Files(http.server.SimpleHTTPRequestHandler):
    """Serves files with further headers; reports nothing."""

    def __init__(self, *arguments: Any, headers_added: Mapping[str, str], **options: Any) -> None:
        self.headers_added = headers_added
        super().__init__(*arguments, **options)

    def end_headers(self) -> None:
        for name, value in self.headers_added.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def hosted(folder: Path, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serves a folder, as any web server does; yields its address."""
    handler = functools.partial(_Files, directory=folder, headers_added=headers or {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
