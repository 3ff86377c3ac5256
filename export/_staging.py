"""Writes a folder all or nothing, without losing earlier files.

A bundle is written into a hidden scratch folder beside the target, which contains

    target    the target's name; locked while the writing process lives new       the bundle while it is written
    replaced  after the swap, the earlier bundle; right before the swap, the complete new one

At every moment, these names show what has to be done next. So the same steps clean up after a success, an error, an
interruption, and, in a later run, after a process that was killed (`recover`).
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from onnxlens.export._exchange import exchange
from onnxlens.export._target import bundle_files, check_replaceable, unlisted
from onnxlens.runtime._bundle.manifest import MANIFEST
from onnxlens.runtime._files import umask
from onnxlens.runtime.errors import OutputError

try:
    import fcntl
except ModuleNotFoundError:  # Windows; there, it is not possible to tell whether the writing process is still alive
    fcntl = None  # type: ignore[assignment]

__all__ = ["recover", "staged"]

_SCRATCH = ".onnxlens-export-"
_TARGET, _NEW, _REPLACED = "target", "new", "replaced"
_UNNAMED = "target.unlocked"  # for the moment until it is locked
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # errors of renaming a folder to an existing name
_DAY = 86_400  # seconds

logger = logging.getLogger("onnxlens")


@contextmanager
def staged(target: Path, *, force: bool) -> Iterator[Path]:
    """Yields a temporary folder beside the target, which replaces the target on success.

    With `force`, the target may be a bundle. Its files are replaced, and other files in it are kept. This is checked at
    the moment of replacing, so files that appeared in the meantime are not lost.

    If anything goes wrong, an interruption included, the temporary folder is removed, and so are the folders made to
    hold it; the target stays as it was.

    Raises:
        OutputError: something cannot be written, or the target may not be replaced.
    """
    parent = target.parent
    parents_made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    scratch: Path | None = None
    lock: IO[bytes] | None = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=parent))
        lock = _locked(scratch, target.name)
        new = scratch / _NEW
        new.mkdir()
        yield new
        _sync(new)
        _put_in_place(target, scratch, force=force)
        _sync_folder(parent)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror or error}. Nothing was written.") from error
    finally:
        if scratch is not None:
            try:
                _settle(target, scratch)
            except OSError as error:
                logger.warning("cannot clean up %s: %s; the next export to %s will try", scratch, error, parent)
        if lock is not None:
            lock.close()
        if not os.path.lexists(target):
            for folder in parents_made:
                with suppress(OSError):  # another process uses it now
                    folder.rmdir()


def recover(folder: Path) -> None:
    """Cleans up after exports into a folder whose processes were killed, and gives each target back its bundle."""
    with suppress(OSError):  # it does not exist or cannot be read; writing to it will report that
        for scratch in folder.glob(f"{_SCRATCH}*"):
            with suppress(OSError):  # another process is cleaning up, too
                _recover(scratch)


def _recover(scratch: Path) -> None:
    status = scratch.lstat()
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "geteuid") and status.st_uid != os.geteuid()):
        return
    try:
        lock = (scratch / _TARGET).open("rb")
    except FileNotFoundError:  # its process is starting, or was killed at its start
        if time.time() - status.st_mtime > _DAY:
            (scratch / _UNNAMED).unlink(missing_ok=True)
            scratch.rmdir()
        return
    with lock:
        if _lock(lock):
            name = os.fsdecode(lock.read(1000))
            if name and Path(name).name == name and name != "..":
                _settle(scratch.parent / name, scratch)


def _locked(scratch: Path, name: str) -> IO[bytes]:
    """Writes the target's name into a file that is locked before other processes can see it."""
    path = scratch / _UNNAMED
    lock = path.open("xb")
    _lock(lock)
    lock.write(os.fsencode(name))
    lock.flush()
    os.fsync(lock.fileno())
    path.rename(scratch / _TARGET)
    return lock


def _lock(file: IO[bytes]) -> bool:
    """Locks a file until it is closed, by the end of the process at the latest; False if another process has it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # or the file system has no locks: then no scratch folder there counts as abandoned
        return False
    return True


def _put_in_place(target: Path, scratch: Path, *, force: bool) -> None:
    """Gives the new bundle its name."""
    new, replaced = scratch / _NEW, scratch / _REPLACED
    existing = target.lstat() if os.path.lexists(target) else None
    # With the permissions of the existing folder, or of any new folder of the user.
    mode = stat.S_IMODE(existing.st_mode) if existing and stat.S_ISDIR(existing.st_mode) else 0o777 & ~umask()
    new.chmod(mode | stat.S_IRWXU)
    try:
        if os.name == "nt":  # on systems where a folder cannot replace an empty one
            with suppress(OSError):
                target.rmdir()
        new.rename(target)  # atomic, and fails if anything but an empty folder is there
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
    else:
        return
    if not force:
        raise OutputError(
            f"{target} was written to while the export ran; it will not be replaced, and nothing was written. "
            "Give another folder."
        )
    check_replaceable(target, lambda path: os.path.lexists(new / path))
    new.rename(replaced)
    if not exchange(replaced, target):
        replaced.rename(new)
        target.rename(replaced)
        new.rename(target)
    try:
        # Checked again, now that it is out of reach and no longer changes.
        check_replaceable(replaced, lambda path: os.path.lexists(target / path))
    except OutputError as error:
        if not exchange(replaced, target):
            target.rename(new)
            replaced.rename(target)
        raise OutputError(f"{target} changed while it was replaced. Nothing was written.") from error


def _settle(target: Path, scratch: Path) -> None:
    """Finishes the work of a scratch folder, wherever it stopped, and removes the folder."""
    new, replaced = scratch / _NEW, scratch / _REPLACED
    shutil.rmtree(new, ignore_errors=True)
    if os.path.lexists(replaced):
        if not os.path.lexists(target):
            replaced.rename(target)
        elif replaced.is_symlink() or not replaced.is_dir():  # it was put there during the replacement
            _keep(replaced, target)
        else:
            _empty(replaced, target)
    for name in (_UNNAMED, _TARGET):
        (scratch / name).unlink(missing_ok=True)
    with suppress(OSError):
        scratch.rmdir()


def _empty(replaced: Path, target: Path) -> None:
    """Removes a replaced bundle; other files in it move into the new one."""
    try:
        listed = bundle_files(replaced)
    except OutputError:  # only empty folders are left, or it was changed during the replacement
        listed = frozenset()
    for path in unlisted(replaced, listed) if listed else []:
        if not os.path.lexists(target / path):
            with suppress(OSError):  # it stays where it is, and is kept below
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (replaced / path).rename(target / path)
    # The manifest goes last: it says what may be removed. Symbolic links are not followed.
    for last in (False, True):
        for folder, _, names in os.walk(replaced, topdown=False):
            for name in names:
                path = PurePosixPath((Path(folder) / name).relative_to(replaced).as_posix())
                if path in listed and (path == PurePosixPath(MANIFEST)) == last:
                    (Path(folder) / name).unlink()
    for folder, _, _ in os.walk(replaced, topdown=False):
        with suppress(OSError):  # it is not empty
            Path(folder).rmdir()
    if replaced.exists():
        _keep(replaced, target)


def _keep(folder: Path, target: Path) -> None:
    """Moves files that have no place in the new bundle into a folder beside it, with a warning."""
    for number in range(1, 1000):
        kept = target.with_name(f"{target.name}.kept-{number}")
        if not os.path.lexists(kept):
            folder.rename(kept)
            logger.warning("files in %s that are not part of a bundle were moved to %s", target, kept)
            return


def _sync(folder: Path) -> None:
    """Waits until all of a folder is on the disk, so that a bundle never gets its name before its content."""
    for path, _, names in os.walk(folder):
        for name in names:
            with (Path(path) / name).open("rb") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(path))


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # where folders cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
