"""Writes a folder all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onnxlens.runtime.errors import OutputError
from onnxlens.runtime.files import umask
from onnxlens.runtime.manifest import MANIFEST

__all__ = ["check_target", "staged"]


def check_target(target: Path, *, force: bool, needed: int) -> None:
    """Finds out before any work whether a bundle can be written.

    Args:
        target: the folder to be.
        force: whether an existing bundle may be replaced.
        needed: bytes that will be written.

    Raises:
        OutputError: the target exists, is not a bundle, cannot be written to, or the disk is too full.
    """
    try:
        if target.exists() and not target.is_dir():
            raise OutputError(f"{target} is a file; give a folder to write the bundle to.")
        if target.is_dir() and any(target.iterdir()):
            if not (target / MANIFEST).is_file():
                raise OutputError(f"{target} exists and is no bundle; it will not be replaced. Give another folder.")
            if not force:
                raise OutputError(
                    f"The bundle {target} exists already; replace it with --force, or give another folder."
                )
        parent = _existing(target.parent)
        if not parent.is_dir():
            raise OutputError(f"Cannot write {target}: {parent} is a file.")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(f"Cannot write {target}: no permission to write in {parent}.")
        free = shutil.disk_usage(parent).free
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror or error}.") from error
    if free < needed:
        raise OutputError(
            f"Cannot write {target}: it needs {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free there."
        )


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yields a temporary folder beside the target, which takes the target's place when all went well.

    If anything goes wrong, an interruption included, the temporary folder is removed, and so are the folders made to
    hold it; the target stays as it was.

    Raises:
        OutputError: something cannot be written.
    """
    made: Path | None = None
    parent = target.parent
    parents_made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        # mkdtemp lets in the owner only; a bundle is as open as any folder the user makes.
        made.chmod(0o777 & ~umask())
        yield made
        _replace(target, made)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror or error}. Nothing was written.") from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        if not target.exists():
            for folder in parents_made:
                with suppress(OSError):  # somebody else uses it by now
                    folder.rmdir()


def _replace(target: Path, made: Path) -> None:
    if not target.exists():
        made.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        target.rename(old / "bundle")
        made.rename(target)
    finally:
        # An interruption can strike between any two steps, so what to do is read off the disk.
        if not target.exists():
            (old / "bundle").rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
