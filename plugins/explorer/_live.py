"""One HTML file with the explorer and a model that runs in the browser, from a disk or a mail, without a request."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from onnxlens.plugins.explorer._engine import EXAMPLES, Engine
from onnxlens.plugins.explorer._page import assets, document, json_script, packed
from onnxlens.plugins.explorer._site import board_of, write_model
from onnxlens.runtime.errors import OutputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["live_page"]


def live_page(lens: Lens, built: Path, text: str) -> str:
    """Makes a page with a model inside.

    Args:
        lens: the model.
        built: the folder of the page that `make explore` built.
        text: the text with which the page begins.

    Raises:
        OutputError: the built page is of another form.
        OnnxLensError: the model cannot run the text.
    """
    files = {"worker.js": _asset(built, "worker-*.js"), "ort.wasm": _asset(built, "ort-wasm-*.wasm")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        more = [example for example in EXAMPLES if example != text]
        engine = Engine(lens)
        facts = write_model(folder, lens, engine, "models/0", {text: board_of(engine, text)}, *more)
        files |= {f"models/0/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}
    inside = [f'<script type="text/plain" data-file="{name}">{packed(one)}</script>' for name, one in files.items()]
    return document(assets(built), [json_script("site", {"models": [facts]}), *inside], runs=True)


def _asset(built: Path, pattern: str) -> bytes:
    found = list((built / "assets").glob(pattern))
    if len(found) != 1:
        raise OutputError("The page of the explorer is not as expected: build it anew with 'make explore'.")
    return found[0].read_bytes()
