"""Measures how long each visualizer takes to draw, and how large its pages are, on the model that ships.

python benchmarks/views.py          # prints the table
python benchmarks/views.py --write  # and puts it into docs/performance.md
"""

from __future__ import annotations

import os
import platform
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
import matplotlib
import onnxruntime
import plotly
from measure import in_turn
from pages import publish
from run import PAGE, ROOT, processor

import onnxlens
from onnxlens.plugins.visualizers.builtin import VISUALIZERS

TEXT = (
    "Once upon a time there was a girl called Emma. She lived near the lighthouse with her brother Tom. One day they "
    "found a key under a stone, and nobody knew which door it would open. The function returns a tuple of two values. "
)


@click.command()
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
@click.option("--tokens", default=100, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--write", is_flag=True, help=f"Put the table into {PAGE.relative_to(ROOT)}.")
def main(threads: int, tokens: int, rounds: int, write: bool) -> None:
    """Measure every visualizer: the best of some rounds, on an open model."""
    lens = onnxlens.load(provider="cpu", threads=threads)
    ids = lens.to_tokens(TEXT * 8)[0, :tokens]
    other = ids.copy()
    other[3] = lens.to_single_token(" man")
    options: dict[str, dict[str, Any]] = {
        "patching": {"corrupted": lens.to_string(other)},
        "compare": {"of": "attention", "other_text": lens.to_string(other)},
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in VISUALIZERS:
            view = partial(lens.view, name, ids, **options.get(name, {}))
            calls = {
                ending: lambda ending=ending, view=view, name=name: view().save(Path(folder, f"{name}.{ending}"))
                for ending in ("txt", "png", "html")
            }
            times = in_turn(rounds, **calls)
            size = Path(folder, f"{name}.html").stat().st_size / 1e6
            rows.append(f"| {name} | {times['txt']:.2f} | {times['png']:.2f} | {times['html']:.2f} | {size:.2f} |")
    machine = (
        f"{processor()}, {threads} threads, Python {platform.python_version()}, ONNX Runtime "
        f"{onnxruntime.__version__}, matplotlib {matplotlib.__version__}, plotly {plotly.__version__}"
    )
    heading = ["| visualizer | terminal, s | PNG, s | page, s | page, MB |", "| --- | --- | --- | --- | --- |"]
    table = "\n".join([f"Measured on: {machine}; {tokens} tokens.", "", *heading, *rows])
    publish(table, PAGE, Path(__file__).name, write=write)


if __name__ == "__main__":
    main()
