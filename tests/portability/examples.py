"""Runs the examples of docs/runtimes.md on the model that ships, and compares what they print with onnxlens's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import onnxlens
from portability.environments import installed, node
from portability.runtimes import Example

__all__ = ["run_example"]

_EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
_PROMPT = "Once upon a time"
_POINT = "blocks.0.attn.hook_pattern"
_DECIMAL = re.compile(r"\d+\.\d+")
_PATIENCE = 300  # seconds


def run_example(example: Example, folder: Path, build: Path) -> list[str]:
    """Runs an example.

    Args:
        example: the example.
        folder: its environment.
        build: where the other environments are.

    Returns:
        What is wrong, in lines.
    """
    bundle = onnxlens.find().resolve()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        source = _EXAMPLES / example.file
        if source.suffix == ".py":
            command = [folder / "bin" / "python", source, bundle, *([scratch] if example.prints == "quantized" else [])]
        elif source.suffix == ".mjs":
            command = [node(), shutil.copy(source, folder), bundle]  # Node looks for packages beside the script
        elif source.suffix == ".c":
            library = next(installed("javascript", build).rglob("onnxruntime-node/bin/*/linux/*/libonnxruntime.so.1"))
            command = [scratch / "example", bundle]
            flags = ["-Wall", "-Wextra", "-Werror", f"-Wl,-rpath,{library.parent}"]
            _call(["cc", "-I", folder / "include", *flags, source, library, "-o", command[0]])
        else:
            _lay_out(example, source, bundle, folder / "node_modules", scratch)
            runner = Path(__file__).parent / "scripts" / "in_chromium.py"
            command = [installed("browser", build) / "bin" / "python", runner, scratch, source.name]
        found = _call(command)
    expected = _expected(example.prints)
    return [] if _same(found.strip(), expected) else [f"printed {found.strip()!r}, not {expected!r}"]


def _lay_out(example: Example, source: Path, bundle: Path, modules: Path, folder: Path) -> None:
    """Puts a page's files beside it, as its comment says."""
    shutil.copy(source, folder)
    inside = folder / "models" if example.prints == "text" else folder
    inside.mkdir(exist_ok=True)
    (inside / "bundle").symlink_to(bundle)
    for name, place in example.needs:
        (folder / name).symlink_to(modules / place)


def _call(command: list[str | Path]) -> str:
    variables = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    variables.pop("PYTHONPATH", None)
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=_PATIENCE, env=variables, check=False
    )
    return done.stdout if done.returncode == 0 else f"{done.stdout}{done.stderr}exit code {done.returncode}"


@cache
def _expected(prints: str) -> str:
    """What an example must print."""
    lens = onnxlens.load(provider="cpu", threads=1)
    if prints == "quantized":
        return f"quantised products {4 * lens.config.n_layers + 1}"
    if prints == "text":
        return _PROMPT + "".join(map(str, lens.generate(_PROMPT, max_new_tokens=12, temperature=0)))
    logits, cache = lens.run_with_cache(_PROMPT, names_filter=_POINT)
    pattern = cache[_POINT]
    shape, row = " ".join(map(str, pattern.shape)), " ".join(f"{value:.4f}" for value in pattern[0, 0, -1])
    return f"shape {shape}\nhead 0, last token {row}\nnext token {logits[0, -1].argmax()}"


def _same(found: str, expected: str) -> bool:
    """Whether two texts are the same but for rounding of decimal fractions."""
    numbers = [[float(number) for number in _DECIMAL.findall(text)] for text in (found, expected)]
    near = all(abs(one - other) < 2e-4 for one, other in zip(*numbers, strict=False))
    return _DECIMAL.sub("#", found) == _DECIMAL.sub("#", expected) and near
