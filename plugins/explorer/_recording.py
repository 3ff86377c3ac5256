"""One file with the page and recorded answers: it opens offline, from a disk or a mail, and asks nobody."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from onnxlens.plugins.explorer._engine import Engine
from onnxlens.plugins.explorer._requests import (
    Answer,
    ModelRequest,
    RunRequest,
    SweepKind,
    SweepRequest,
    TokenizeRequest,
)
from onnxlens.runtime.errors import OutputError

__all__ = ["page", "record"]

_LARGEST = 48 * 2**20  # bytes of all arrays, before compression
_BOARD = ["next", "guesses", "effects", "sources"]
_MORE = ["ranks", "norms"]
_SWEEPS: tuple[SweepKind, ...] = ("head_scores", "ablate_heads", "ablate_mlps")

Progress = Callable[[str], None]


def record(engine: Engine, text: str, progress: Progress = lambda text: None) -> tuple[dict[str, Any], bytes]:
    """Runs what the page asks of a text, and keeps the answers.

    Recorded are, as far as they fit: the board at each position; the board without each head and each MLP; the sweeps;
    all activations; what heads and MLPs promote.

    Args:
        engine: answers.
        text: the text.
        progress: called with what is being recorded.

    Returns:
        Plain values, and the arrays as safetensors.

    Raises:
        OnnxLensError: the text cannot be run.
    """
    model = engine.model(ModelRequest())
    tokenization = engine.tokenize(TokenizeRequest(text=text))
    first = engine.run(RunRequest(text=text, reads=[*_BOARD, *_MORE, "surprisal", "neurons"]))
    recording = _Recording()
    recording.add("run||-1", first)
    ids = [token["id"] for token in first.facts["tokens"]]
    pair = {"token": first.facts["token"], "against": first.facts["against"]}
    layers, heads = first.arrays["effects.heads"].shape
    last = len(ids) - 1

    def run(**entries: Any) -> Callable[[], Answer]:
        return lambda: engine.run(RunRequest(ids=ids, **entries))

    def sweep(kind: SweepKind) -> Callable[[], Answer]:
        return lambda: engine.sweep(SweepRequest(ids=ids, kind=kind, **pair))

    def attempts() -> Iterator[tuple[str, str, Callable[[], Answer]]]:
        """What to record, the most useful first: its name, its key, and how."""
        for kind in _SWEEPS:
            yield kind, f"sweep|{kind}", sweep(kind)
        edits: list[tuple[str, dict[str, Any]]] = []
        for place in np.argsort(-np.abs(first.arrays["effects.heads"]), axis=None).tolist():
            layer, head = divmod(place, heads)
            hook = f"blocks.{layer}.attn.hook_z"
            edits.append((f"head {layer}.{head}", {"hook": hook, "heads": head, "operation": "zero"}))
        for layer in range(layers):
            edits.append((f"MLP {layer}", {"hook": f"blocks.{layer}.hook_mlp_out", "operation": "zero"}))
        for name, edit in edits:
            yield name, _key([edit]), run(edits=[edit], reads=[*_BOARD, *_MORE], **pair)
        for position in range(last):
            reads = [*_BOARD, *_MORE, "neurons"]
            yield f"position {position}", f"run||{position}", run(position=position, reads=reads)
        for point in model["hook_points"]:
            name = point["name"]
            yield name, f"tensor|{name}", run(reads=[name])

    for name, key, attempt in attempts():
        progress(name)
        recording.add(key, attempt())
    directions = [f"blocks.{layer}.attn.hook_result[{last},{head}]" for layer in range(layers) for head in range(heads)]
    directions += [f"blocks.{layer}.hook_mlp_out[{last}]" for layer in range(layers)]
    promoted = engine.run(RunRequest(ids=ids, reads=["unembedded"], directions=directions, **pair))
    recording.add("promoted", promoted)
    name = model["name"]
    model = {**model, "example": text}  # with which the page begins
    facts = {"text": text, "model": model, "tokenization": tokenization, "name": name, "answers": recording.facts}
    return facts, save(recording.arrays)


class _Recording:
    """Answers by their keys, up to a size: what does not fit is left out, and the page says how to see it."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self._bytes = 0

    def add(self, key: str, answer: Answer) -> None:
        size = sum(array.nbytes for array in answer.arrays.values())
        if self._bytes + size > _LARGEST:
            return
        self._bytes += size
        self.facts[key] = answer.facts
        for name, array in answer.arrays.items():
            # A tensor is found by its name alone.
            self.arrays[f"{key}|{name}" if not key.startswith("tensor|") else key] = array


def _key(edits: list[dict[str, Any]]) -> str:
    """The key of a run with edits at the last position; `recorded.ts` makes the same."""
    return f"run|{json.dumps(edits, separators=(',', ':'), sort_keys=True)}|-1"


def page(built: Path, facts: dict[str, Any], arrays: bytes) -> str:
    """Puts a recording and the built page into one HTML text.

    Args:
        built: the folder of the page that `make explore` built.
        facts: what `record` returned.
        arrays: likewise.

    Raises:
        OutputError: the built page is of another form.
    """
    index = (built / "index.html").read_text(encoding="utf-8")
    script, style = (
        re.search(pattern, index) for pattern in (r'src="\./(assets/[^"]+\.js)"', r'href="\./(assets/[^"]+\.css)"')
    )
    if script is None or style is None:
        raise OutputError("The page of the explorer is not as expected: build it anew with 'make explore'.")
    # In a script element, only its own end and the beginning of a comment mean something to HTML.
    code = (built / script[1]).read_text(encoding="utf-8").replace("</script", r"<\/script").replace("<!--", r"<\!--")
    css = (built / style[1]).read_text(encoding="utf-8").replace("</style", r"<\/style")
    policy = (
        f"default-src 'none'; script-src {_hash(code)}; style-src {_hash(css)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    content = json.dumps(facts, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    packed = base64.b64encode(gzip.compress(arrays, mtime=0)).decode()
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<meta http-equiv="content-security-policy" content="{policy}">',
            '<title>onnxlens explore</title><link rel="icon" href="data:,">',
            f'<style>{css}</style></head><body><div id="app"></div>',
            f'<script type="application/json" id="recording">{content}</script>',
            f'<script type="text/plain" id="recorded-arrays">{packed}</script>',
            f'<script type="module">{code}</script></body></html>\n',
        ]
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
