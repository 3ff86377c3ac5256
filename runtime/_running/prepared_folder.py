"""A folder of prepared files: what it holds, whether that is intact, and whether somebody else could have written it.

A record in the folder has the size and the xxHash (XXH3, 128 bits) of each file. The hash finds damage by disks,
cleaning programs and mistakes. It does not stop an attacker, who could write another record. So a folder is used only
if nobody but its user, or root, can write to it.

Hashing takes about 0.1 s a gigabyte. So it is done once after each start of the machine, for files that stay the same:
a second file remembers what was checked, by inode, size and times, which the system sets at every change.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from onnxlens.runtime._bundle.json_file import JsonFileError, read_json

__all__ = ["Record", "damage", "distrust", "is_usable", "read_record", "seal", "sync"]

_RECORD, _CHECKED = "contents.json", "checked.json"
_LIMIT = 100_000  # bytes of either; a few hundred are usual
_BLOCK = 1 << 20  # bytes that are hashed at a time
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Record:
    """What a prepared folder is for, and what it holds.

    Attributes:
        bundle: the path of the bundle from which it was made.
        made_for: the version of the layout, the library and the processor, as one hash.
        files: size and hash of each file, by name.
    """

    bundle: str
    made_for: str
    files: dict[str, tuple[int, str]]


def seal(folder: Path, *, bundle: str, made_for: str) -> None:
    """Writes a complete folder's record, removes others' write permission, and waits for the disk.

    Raises:
        OSError: it cannot be written.
    """
    paths = sorted(folder.iterdir())
    record = Record(bundle, made_for, {path.name: (path.stat().st_size, _hash(path)) for path in paths})
    (folder / _RECORD).write_text(json.dumps(asdict(record)), encoding="utf-8")
    for path in (*paths, folder / _RECORD, folder):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_OTHERS)
        sync(path)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: they cannot be written.
    """
    if path.is_dir() and os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_record(folder: Path) -> Record:
    """Reads the record of a folder.

    Raises:
        JsonFileError: it cannot be read, or is not such a record.
    """
    entries = read_json(folder / _RECORD, _LIMIT)
    try:
        files = {str(name): (size, digest) for name, (size, digest) in entries["files"].items()}
        record = Record(entries["bundle"], entries["made_for"], files)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise JsonFileError("it is not a record of prepared files") from error
    texts = [record.bundle, record.made_for, *(digest for _, digest in files.values())]
    plain = all(Path(name).name == name and type(size) is int for name, (size, _) in files.items())
    if not (files and plain and all(isinstance(text, str) for text in texts)):
        raise JsonFileError("it is not a record of prepared files")
    return record


def is_usable(folder: Path, *, thorough: bool = False) -> bool:
    """Whether a folder exists, no other user can have written it, and it is intact; see `damage`."""
    return distrust(folder) is None and damage(folder, thorough=thorough) is None


def damage(folder: Path, *, thorough: bool = False) -> str | None:
    """The damage to the content of a folder, as a clause; None if it is intact.

    Args:
        folder: the folder.
        thorough: hash all files, also those that were checked before and have not changed since.
    """
    try:
        record = read_record(folder)
    except JsonFileError as error:
        return f"its {_RECORD} cannot be used: {error}"
    try:
        states = {name: _state(folder / name) for name in record.files}
        for name, (size, _) in record.files.items():
            if states[name][1] != size:
                return f"{name} has {states[name][1]} bytes in place of {size}"
        memory = {"boot": _boot(), "files": states}
        if not thorough and memory["boot"] and _remembered(folder) == memory:
            return None
        for name, (_, digest) in record.files.items():
            if _hash(folder / name) != digest:
                (folder / _CHECKED).unlink(missing_ok=True)
                return f"{name} was altered"
    except OSError as error:
        return f"its files cannot be read: {error.strerror}"
    if memory["boot"]:
        _remember(folder, memory)
    return None


def distrust(folder: Path) -> str | None:
    """The reason why an existing folder must not be used, as a clause; None if it may be used."""
    if not hasattr(os, "geteuid"):
        return None
    try:
        return _distrust(folder) or next(filter(None, map(_distrust, folder.iterdir())), None)
    except OSError:  # it is not a folder, or cannot be read, which is damage
        return None


def _distrust(path: Path) -> str | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        return f"{path} is a symbolic link"
    if status.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to another user ({status.st_uid})"
    if status.st_mode & _OTHERS:
        return f"others can write to {path} (its mode is {stat.S_IMODE(status.st_mode):o})"
    return None


def _state(path: Path) -> list[int]:
    """The facts about a file that change when the file does."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, f"{path.name} is not a regular file")
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hash(path: Path) -> str:
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:  # mapped, the file would count as memory of this process
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _boot() -> str | None:
    """An id that changes when the machine starts again; None where the system has no such id."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _remembered(folder: Path) -> Any:
    try:
        return read_json(folder / _CHECKED, _LIMIT)
    except JsonFileError:
        return None


def _remember(folder: Path, memory: dict[str, Any]) -> None:
    scratch = folder / f".{_CHECKED}-{os.getpid()}"
    with suppress(OSError):  # a folder that cannot be written is checked again next time
        with open(scratch, "w", encoding="utf-8", opener=_for_one_user) as file:
            json.dump(memory, file)
        scratch.replace(folder / _CHECKED)


def _for_one_user(path: str, flags: int) -> int:
    return os.open(path, flags, 0o644)
