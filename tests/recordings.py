"""Records what the models of the tests compute, and compares it with an earlier record, to the last bit.

For changes of the code that must change no number:

    python tests/recordings.py write before.json
    python tests/recordings.py compare before.json

A record holds a SHA-256 for each value: weights, hook points with and without padding and past, edited runs, folded
weights, gradients, generated ids of each sampler, and the numbers (not the words) of each view.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from checkpoints import write_checkpoint
from exports import MOST_USED, export_named
from plugin_options import SAMPLERS, VIEWS

import onnxlens
from onnxlens.metrics import logit
from onnxlens.plugins._registry import Registry

TEXT = "the cat sat on the mat"
TEXTS = [TEXT, "the"]
EDITED = ("hook_resid_pre", "attn.hook_pattern", "attn.hook_z", "attn.hook_k", "mlp.hook_post")


def values(lens: onnxlens.Lens) -> Iterator[tuple[str, Any]]:
    """Names and values of everything that is recorded of a model."""
    yield from ((f"weights/{name}", array) for name, array in lens.weights.items())
    for label, text in (("text", TEXT), ("padded", TEXTS)):
        logits, cache = lens.run_with_cache(text, names_filter="*")
        yield f"{label}/logits", logits
        yield from ((f"{label}/{name}", array) for name, array in cache.items())
    yield from ((f"folded/{name}", array) for name, array in cache.folded().items())
    layer = lens.cfg.n_layers - 1
    for hook in EDITED:
        for edit in (onnxlens.Intervention.zero, lambda name: onnxlens.Intervention.scale(name, 0.5)):
            made = edit(f"blocks.{layer}.{hook}")
            _, cache = lens.run_with_cache(TEXT, names_filter="*", interventions=[made])
            yield from ((f"edited/{made.operation} {hook}/{name}", array) for name, array in cache.items())
    if lens.runner.bundle.has_gradients:
        found = lens.grad(TEXTS, metric=logit(" the"))
        yield from ((f"gradients/{name}", array) for name, array in found.gradients.items())
    known = Registry(find=False)
    for name in known.samplers:
        sampler = known.samplers[name].plugin(**SAMPLERS.get(name, {}))
        yield f"samplers/{name}", np.array(lens.generate(TEXT, max_new_tokens=8, sampler=sampler, seed=1).ids)
    for name in known.visualizers:
        if name == "attribution" and not lens.runner.bundle.has_gradients:
            continue
        options = VIEWS.get(name, {}) | ({"seed": 1} if name in ("sampling", "generation") else {})
        yield f"views/{name}", np.array(list(numbers(json.loads(lens.view(name, TEXT, **options).encoded("json")))))


def numbers(document: Any) -> Iterator[float]:
    """The numbers of a JSON document, in order."""
    if isinstance(document, dict | list):
        for inner in document.values() if isinstance(document, dict) else document:
            yield from numbers(inner)
    elif isinstance(document, int | float):
        yield float(document)


def digest(value: np.ndarray) -> str:
    """The SHA-256 of an array's type, shape and content."""
    array = np.ascontiguousarray(value)
    return hashlib.sha256(f"{array.dtype.str}{value.shape}".encode() + array.tobytes()).hexdigest()


def record() -> dict[str, str]:
    """The digest of everything, of every bundle that the tests share."""
    found = {}
    with TemporaryDirectory() as scratch:
        for name in MOST_USED:
            source = write_checkpoint(Path(scratch) / f"{name}-checkpoint", name.split("-")[0])
            export_named(name, source, Path(scratch) / name)
            with onnxlens.load(Path(scratch) / name, provider="cpu", threads=1) as lens:
                found.update({f"{name}/{key}": digest(value) for key, value in values(lens)})
    return found


def main() -> int:
    """Returns 1 if something differs from the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    if asked.action == "write":
        asked.file.write_text(json.dumps(found := record(), indent=1))
        print(f"{len(found)} values recorded")
        return 0
    before, now = json.loads(asked.file.read_text()), record()
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    for name in differing:
        print(f"{name}: " + ("new" if name not in before else "gone" if name not in now else "differs"))
    print(f"{len(now)} values, of which {len(differing)} differ")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
