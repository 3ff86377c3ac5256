"""Measures what docs/deploying.md says of memory: what a process holds after each of several requests. Linux only.

    python benchmarks/memory.py                    # prints the table
    python benchmarks/memory.py --write            # and puts it into docs/deploying.md

The checkpoint has GPT-2 124M's shape and random weights: memory does not depend on their values.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

import click
import onnxruntime
from measure import process
from pages import publish
from run import ROOT, WORK, exported, processor

PAGE = ROOT / "docs" / "deploying.md"

# Prints, as JSON, what the process holds after each step, in bytes. The memory that the system counts for a file once,
# however often it is mapped, is the proportional one as long as no other process maps it.
_REQUESTS = """
import gc, json, sys
import numpy as np
from onnxlens.runtime._running.runner import Runner

def held():
    gc.collect()
    lines = [line.split() for line in open("/proc/self/smaps_rollup") if line.endswith("kB\\n")]
    kilobytes = {name: int(value) for name, value, _ in lines}
    return [1024 * kilobytes[name] for name in ("Rss:", "Pss:", "Anonymous:")]

found = {"packages imported": held()}
with Runner(sys.argv[1], provider="cpu", threads=int(sys.argv[2]), max_sessions=int(sys.argv[3]) or None) as runner:
    ids = np.arange(32)
    runner.run(ids, logits="last")
    found["1 request"] = held()
    for number in range(1, 7):
        runner.run(ids, logits="last", names_filter=f"blocks.{number}.hook_resid_post")
        if number in (1, 3, 6):
            found[f"{number + 1} requests"] = held()
found["closed"] = held()
print(json.dumps(found))
"""


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="A bundle that is there; None to export one.")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
@click.option("--write", is_flag=True, help=f"Put the table into {PAGE.relative_to(ROOT)}.")
def main(bundle: Path | None, threads: int, write: bool) -> None:
    """Measure the memory of a process that makes several requests, with all of them open and with two."""
    os.environ.setdefault("ONNXLENS_CACHE", str(WORK / "cache"))
    path = bundle or exported(None)
    default, few = (
        json.loads(process(sys.executable, "-c", _REQUESTS, str(path), str(threads), most).output)
        for most in ("0", "2")
    )
    lines = [
        "| after | resident (RSS) | counted once (PSS) | not from files | RSS, `max_sessions=2` |",
        "| --- | --- | --- | --- | --- |",
    ]
    for step, sizes in default.items():
        shown = [f"{size / 1e6:,.0f} MB" for size in (*sizes, few[step][0])]
        lines.append(f"| {' | '.join([step, *shown])} |")
    machine = (
        f"{processor()}, {threads} threads, Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}"
    )
    table = "\n".join([f"Measured on: {machine}.", "", *lines])
    publish(table, PAGE, Path(__file__).name, write=write)


if __name__ == "__main__":
    main()
