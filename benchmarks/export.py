"""Time and peak memory of an export, by shape; random weights.

python benchmarks/export.py gpt2 gpt2-xl
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import checkpoints
import click
from measure import process

WORK = Path(__file__).parents[1] / "build" / "benchmarks"

_EXPORT = """
import sys
from onnxlens.export import export
bundle = export(sys.argv[1], sys.argv[2], force=True)
print(bundle.weights_bytes, bundle.manifest.verification["largest_relative_error"])
"""


@click.command()
@click.argument("shapes", nargs=-1, type=click.Choice(sorted(checkpoints.SHAPES)))
@click.option("--keep", is_flag=True, help="Keep checkpoint and bundle.")
def main(shapes: tuple[str, ...], keep: bool) -> None:
    """Export each of SHAPES in a process of its own."""
    print("| shape | weights | time | peak memory, in weights | largest error |\n| --- | --- | --- | --- | --- |")
    for shape in shapes:
        source, target = checkpoints.write(WORK, shape, None), WORK / f"{shape}-exported"
        done = process(sys.executable, "-c", _EXPORT, str(source), str(target))
        weights, error = done.output.split()
        print(
            f"| {shape} | {int(weights) / 1e6:,.0f} MB | {done.seconds:.0f} s | "
            f"{done.peak / int(weights):.2f} ({done.peak / 1e6:,.0f} MB) | {float(error):.1e} |",
            flush=True,
        )
        if not keep:
            shutil.rmtree(source)
            shutil.rmtree(target)


if __name__ == "__main__":
    main()
