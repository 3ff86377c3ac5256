"""Compares two versions of onnxlens on this machine: does a change cost time or memory?

    python benchmarks/versions.py main~20             # against the working tree
    python benchmarks/versions.py v0.1.0 v0.2.0       # two revisions

Each version is built from its revision, exports the same checkpoint of GPT-2 124M's shape, and is measured in processes
of its own, which take turns. A ratio above 1 means that the second version needs more.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import checkpoints
import click
import onnxruntime
from measure import Process, process
from run import processor

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "benchmarks"

# Each prints the seconds that it measured, by name, as JSON. Only names that all versions have are used.
_IMPORT = """
import json, time
started = time.perf_counter()
import onnxlens
imported = time.perf_counter() - started
onnxlens.Lens
print(json.dumps({"`import onnxlens`": imported, "`onnxlens.Lens`": time.perf_counter() - started}))
"""
_RUN = """
import json, sys, time
import numpy as np
import onnxlens

lens = onnxlens.load(sys.argv[1], provider="cpu", threads=int(sys.argv[2]))
ids, found = np.arange(1, 129)[None], {}

def measure(name, call):
    started = time.perf_counter()
    call()
    found[name] = min(found.get(name, 1e9), time.perf_counter() - started)

def decode():
    cache = prompt.kv_cache
    for token in range(32):
        cache = lens.runner.run([[token]], logits="last", kv_cache=cache).kv_cache

prompt = lens.runner.run(ids, logits="last")
for block in range(6):
    name = f"blocks.{block}.attn.hook_pattern"
    measure("first", lambda: lens.runner.run(ids[:, :4], logits="last", names_filter=name))
    measure("second", lambda: lens.runner.run(ids[:, :4], logits="last", names_filter=name))
for _ in range(5):
    measure("decoding 32 tokens after 128", decode)
    measure("a pass of 128 tokens", lambda: lens.runner.run(ids, logits="last"))
    measure("a pass of 128 tokens that reads everything", lambda: lens.run_with_cache(ids))
found["compiling a request"] = found.pop("first") - found.pop("second")
print(json.dumps(found))
"""
_PEAK = """
import sys
import onnxlens
onnxlens.load(sys.argv[1], provider="cpu", threads=int(sys.argv[2])).run_with_cache([range(128)])
"""
_EXPORT = "import sys; from onnxlens.export import export; export(sys.argv[1], sys.argv[2], force=True)"


@click.command()
@click.argument("first")
@click.argument("second", required=False)
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Processes of each version.")
def main(first: str, second: str | None, threads: int, rounds: int) -> None:
    """Measure revision FIRST against SECOND, or against the working tree."""
    checkpoint = checkpoints.write(WORK, "gpt2", None)
    with TemporaryDirectory() as scratch:
        sites = [build(first, Path(scratch) / "first"), build(second, Path(scratch) / "second")]
        best: list[dict[str, float]] = [{}, {}]
        bundles = []
        for site in sites:
            bundles.append(site / "bundle")
            run(site, _EXPORT, checkpoint, bundles[-1])
            run(site, _PEAK, bundles[-1], threads)  # prepares the model
            command(site)
        for _ in range(rounds):
            for site, bundle, found in zip(sites, bundles, best, strict=True):
                seconds = json.loads(run(site, _IMPORT).output) | json.loads(run(site, _RUN, bundle, threads).output)
                seconds["`onnxlens predict`, the model that ships, cold process"] = command(site).seconds
                for name, value in seconds.items():
                    found[name] = min(found.get(name, value), value)
                peak = run(site, _PEAK, bundle, threads).peak
                found["peak memory of reading everything"] = max(
                    found.get("peak memory of reading everything", 0), peak
                )
    machine = f"{processor()}, {threads} threads, Python {platform.python_version()}"
    print(f"Measured on: {machine}, ONNX Runtime {onnxruntime.__version__}.\n")
    print(f"| what | {first} | {second or 'working tree'} | ratio |", "| --- | --- | --- | --- |", sep="\n")
    for name, before in best[0].items():
        after = best[1][name]
        shown = [f"{value / 1e6:.0f} MB" if "memory" in name else f"{value * 1e3:.1f} ms" for value in (before, after)]
        print(f"| {name} | {' | '.join(shown)} | {after / before:.2f} |")


def build(revision: str | None, folder: Path) -> Path:
    """Installs a revision, or the working tree, into a folder of its own."""
    source = folder / "source"
    source.mkdir(parents=True)
    tree = revision or subprocess.check_output(["git", "stash", "create"], cwd=ROOT, text=True).strip() or "HEAD"
    archive = subprocess.run(["git", "archive", tree], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", folder / "site", source], check=True)
    return folder / "site"


def run(site: Path, code: str, *arguments: object) -> Process:
    """Runs code with the version in a folder."""
    environment = {"PYTHONPATH": str(site), "ONNXLENS_CACHE": str(site / "cache")}
    return process(sys.executable, "-P", "-c", code, *map(str, arguments), environment=environment)


def command(site: Path) -> Process:
    """Runs `onnxlens predict` of the version in a folder."""
    environment = {"PYTHONPATH": str(site), "ONNXLENS_CACHE": str(site / "cache")}
    text = "Data visualization empowers users to"
    return process(sys.executable, "-P", "-m", "onnxlens", "predict", text, environment=environment)


if __name__ == "__main__":
    main()
