"""The page of the explorer as one HTML text, with what it shows inside."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxlens.runtime.errors import OutputError

__all__ = ["Assets", "assets", "document", "json_script", "packed"]


@dataclass(frozen=True)
class Assets:
    """The code and the style of the page, as they may stand in HTML."""

    code: str
    style: str


def assets(built: Path) -> Assets:
    """Reads the page that `make explore` built.

    Raises:
        OutputError: it is of another form.
    """
    index = (built / "index.html").read_text(encoding="utf-8")
    script, style = (
        re.search(pattern, index) for pattern in (r'src="\./(assets/[^"]+\.js)"', r'href="\./(assets/[^"]+\.css)"')
    )
    if script is None or style is None:
        raise OutputError("The page of the explorer is not as expected: build it anew with 'make explore'.")
    # In a script element, only its own end and the beginning of a comment mean something to HTML.
    code = re.sub(r"<(/script|!--)", r"<\\\1", (built / script[1]).read_text(encoding="utf-8"), flags=re.IGNORECASE)
    css = re.sub("<(/style)", r"<\\\1", (built / style[1]).read_text(encoding="utf-8"), flags=re.IGNORECASE)
    return Assets(code, css)


def document(page: Assets, contents: Sequence[str], *, runs: bool = False) -> str:
    """Puts the page and what it shows into one HTML text, whose policy lets nothing else in.

    Args:
        page: the page.
        contents: script elements with what it shows.
        runs: whether a model is inside, which runs in a worker as WebAssembly.
    """
    run = " 'wasm-unsafe-eval'; worker-src blob:" if runs else ""
    policy = (
        f"default-src 'none'; script-src {_hash(page.code)}{run}; style-src {_hash(page.style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<meta http-equiv="content-security-policy" content="{policy}">',
            '<title>onnxlens explore</title><link rel="icon" href="data:,">',
            f'<style>{page.style}</style></head><body><div id="app"></div>',
            *contents,
            f'<script type="module">{page.code}</script></body></html>\n',
        ]
    )


def json_script(name: str, value: Any) -> str:
    """A script element with JSON, in which no text can end the element."""
    content = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{content}</script>'


def packed(content: bytes) -> str:
    """Content for a script element: compressed, in base64."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
