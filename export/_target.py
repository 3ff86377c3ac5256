"""Checks whether a bundle can be written to a folder, and which of its files belong to a bundle."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from onnxlens.runtime._bundle.bundle import CONFIG, GRADIENTS_GRAPH, HOOKS_GRAPH, PLAIN_GRAPH, TOKENIZER, WEIGHTS
from onnxlens.runtime._bundle.manifest import MANIFEST, Manifest
from onnxlens.runtime.errors import BundleError, OutputError

__all__ = ["bundle_files", "check_replaceable", "check_target", "unlisted"]

_ALWAYS = {PLAIN_GRAPH, HOOKS_GRAPH, WEIGHTS, CONFIG, TOKENIZER}  # in every bundle
_FILES = {PurePosixPath(name) for name in (*_ALWAYS, GRADIENTS_GRAPH)}
_NAMES = _FILES | {folder for path in _FILES for folder in path.parents}


def check_target(target: Path, *, source: Path | None, force: bool, needed: int) -> None:
    """Checks, before any work, whether a bundle can be written.

    Args:
        target: the folder to be, absolute and without symbolic links.
        source: the checkpoint's folder, if it is one.
        force: whether an existing bundle may be replaced.
        needed: bytes that will be written.

    Raises:
        OutputError: the target contains the checkpoint, exists and is not a bundle, cannot be written to, or the disk
            is too full.
    """
    try:
        if source is not None and (inside := _inside(source, target)) is not None:
            raise OutputError(f"Cannot write {target}: the checkpoint's {inside} is in it. Give another folder.")
        status = _status(target)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise OutputError(f"{target} is a file; give a folder to write the bundle to.")
        if status is not None and os.path.ismount(target):
            raise OutputError(
                f"Cannot write {target}: it is a mount point, which cannot be replaced as a whole. "
                f"Give a folder in it, such as {target / 'model'}."
            )
        if status is not None and any(target.iterdir()):
            check_replaceable(target, lambda path: path in _NAMES)
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


def check_replaceable(folder: Path, needed: Callable[[PurePosixPath], bool]) -> None:
    """Checks that a folder is a bundle, and that other files in it can be kept in the new one.

    Args:
        folder: the folder.
        needed: whether the new bundle has a file of its own at a path.

    Raises:
        OutputError: it is not a bundle, or has a file that the new bundle would overwrite.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError(f"{folder} is a file; give a folder to write the bundle to.")
    for path in unlisted(folder, bundle_files(folder)):
        if needed(path):
            raise OutputError(
                f"{folder / path} does not belong to the existing bundle, but the new bundle needs its name. Nothing "
                "was written; move it elsewhere, or give another folder."
            )


def bundle_files(folder: Path) -> frozenset[PurePosixPath]:
    """The files of a bundle, the manifest too, as paths inside it: all that may be removed when it is replaced.

    Raises:
        OutputError: the folder is not a bundle, or its manifest was not written by an export.
    """
    if not (folder / MANIFEST).is_file():
        raise OutputError(f"{folder} exists and is not a bundle; it will not be replaced. Give another folder.")
    refused = f"{folder} has files in it, and an {MANIFEST} that was not written by an export; it will not be replaced"
    try:
        names = Manifest.read(folder).files
    except BundleError as error:
        raise OutputError(f"{refused}. Give another folder, or remove it yourself. ({error})") from error
    paths = frozenset(PurePosixPath(name) for name in names)
    if not names.keys() >= _ALWAYS or any(path.is_absolute() or ".." in path.parts for path in paths):
        raise OutputError(f"{refused}. Give another folder, or remove it yourself.")
    return paths | {PurePosixPath(MANIFEST)}


def unlisted(folder: Path, listed: frozenset[PurePosixPath]) -> list[PurePosixPath]:
    """The other content of a folder, as paths inside it: files, and folders without listed files."""
    folders = {parent for path in listed for parent in path.parents}

    def walk(inside: PurePosixPath) -> Iterator[PurePosixPath]:
        for entry in (folder / inside).iterdir():
            path = inside / entry.name
            is_folder = stat.S_ISDIR(entry.lstat().st_mode)
            if is_folder and path in folders:
                yield from walk(path)
            elif is_folder or path not in listed:
                yield path

    return sorted(walk(PurePosixPath()))


def _inside(source: Path, target: Path) -> str | None:
    """The part of a checkpoint that lies in the target: its folder, or a file behind a link; None if there is none."""
    if source.resolve().is_relative_to(target):
        return f"folder {source}"
    for path in source.iterdir():
        if path.is_symlink() and Path(os.path.realpath(path)).is_relative_to(target):
            return f"file {path.name}"
    return None


def _status(path: Path) -> os.stat_result | None:
    """The status of a path, or None if it does not exist; unlike `Path.exists`, errors do not count as absence."""
    try:
        return path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def _existing(folder: Path) -> Path:
    while _status(folder) is None:
        folder = folder.parent
    return folder
