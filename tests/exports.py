"""The exports that tests share, by name; written for a Python without PyTorch by `python tests/exports.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from checkpoints import write_checkpoint

__all__ = ["MOST_USED", "export_named"]

MOST_USED = ("base", "wide", "scaled", "llama", "base-gradients", "base-float16")


def export_named(name: str, source: Path, folder: Path) -> None:
    """Exports a checkpoint.

    Args:
        name: that of the checkpoint, with `-float16` behind it to store the matrices as that, and `-gradients` for the
            graph of the gradients.
        source: the checkpoint's folder.
        folder: where the bundle is to be.
    """
    from onnxlens.export import export

    options = name.split("-")[1:]
    export(source, folder, storage="float16" if "float16" in options else "float32", gradients="gradients" in options)


if __name__ == "__main__":
    for each in MOST_USED:
        with TemporaryDirectory() as scratch:
            made = write_checkpoint(Path(scratch) / each, each.split("-")[0])
            export_named(each, made, Path(sys.argv[1]) / each)
