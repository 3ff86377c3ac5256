"""A file that is opened once and must then stay as it was."""

from __future__ import annotations

import hashlib
import os
import stat
import weakref
from pathlib import Path
from threading import Lock

import numpy as np

from onnxlens.runtime.errors import BundleError

__all__ = ["OpenFile"]

_BLOCK = 1 << 18  # bytes that are read at a time


class OpenFile:
    """A regular file, opened once.

    If the path is deleted or replaced later, this is still the file that was opened. If the file itself is cut or
    overwritten, the next use raises an error. Without that check, numbers of two models could be mixed, and reading a
    mapping behind the end of a file that was cut kills the process (SIGBUS on Linux), which no Python code can catch.

    Args:
        path: the file; symbolic links are followed.
        remedy: a sentence that ends errors: what to do about a damaged file.
        sha256: the hash of its content, as hexadecimal digits, if it is known. A file that was only touched, with a new
            time and the old content, can still be used.

    Attributes:
        path: the path.
        size: in bytes.

    Raises:
        OSError: the file cannot be opened.
        BundleError: it is not a regular file.
    """

    def __init__(self, path: Path, *, remedy: str = "Copy it again.", sha256: str | None = None) -> None:
        self.path, self._remedy, self._sha256 = path, remedy, sha256
        try:
            self._file = open(path, "rb", buffering=0, opener=_opened_at_once)  # noqa: SIM115 (kept open)
        except IsADirectoryError as error:
            raise BundleError(f"{path} is not a regular file. {remedy}") from error
        weakref.finalize(self, self._file.close)
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):  # reading a pipe or a device may never end
            raise BundleError(f"{path} is not a regular file. {remedy}")
        self._lock = Lock()
        self._state = self._stat()
        self.size = self._state[0]

    def check(self) -> None:
        """Checks that the file still is as it was when it was opened.

        Raises:
            BundleError: it is not.
        """
        state = self._stat()
        if state == self._state:
            return
        if state[0] == self.size and self._sha256 is not None and self._hash() == self._sha256:
            self._state = state  # touched, or written again with the same content
            return
        what = f"was cut from {self.size} to {state[0]} bytes" if state[0] < self.size else "was changed"
        raise BundleError(f"{self.path} {what} while it was in use. {self._remedy}")

    def real_path(self) -> Path | None:
        """Returns the path that leads to this file without symbolic links; None if it was replaced or deleted."""
        try:
            real = self.path.resolve(strict=True)
            return real if os.path.samestat(real.stat(), os.fstat(self._file.fileno())) else None
        except OSError:
            return None

    def map(self) -> np.ndarray:
        """Maps the whole file into memory, [size] uint8, read-only.

        Raises:
            BundleError: the file was changed.
        """
        self.check()
        return np.memmap(self._file, np.uint8, mode="r")

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """Reads `length` bytes from `start` on, or all up to the end.

        Raises:
            BundleError: the file was changed, cannot be read, or ends earlier.
        """
        buffer = bytearray(max(0, self.size - start) if length is None else length)
        self.read_into(memoryview(buffer), start)
        return bytes(buffer)

    def read_into(self, view: memoryview, start: int = 0) -> None:
        """Fills a buffer of bytes with what the file has from `start` on; errors are those of `read`."""
        self.check()
        if (done := self._fill(view, start)) < len(view):
            self.check()
            raise BundleError(f"{self.path} is damaged: it ends at byte {start + done}. {self._remedy}")

    def sha256(self) -> str:
        """Returns the SHA-256 of the content, as hexadecimal digits; errors are those of `read`."""
        self.check()
        return self._hash()

    def _hash(self) -> str:
        digest, buffer, done = hashlib.sha256(), memoryview(bytearray(_BLOCK)), 0
        while count := self._fill(buffer, done):
            digest.update(buffer[:count])
            done += count
        return digest.hexdigest()

    def _fill(self, view: memoryview, start: int) -> int:
        """Reads into a buffer until it is full or the file ends; returns the number of bytes read."""
        done = 0
        try:
            while done < len(view) and (count := self._read(start + done, view[done:])):
                done += count
        except OSError as error:
            raise BundleError(f"{self.path} cannot be read: {error.strerror}. {self._remedy}") from error
        return done

    def _read(self, start: int, into: memoryview) -> int:
        if hasattr(os, "preadv"):  # does not move the position in the file, which threads and forked processes share
            return os.preadv(self._file.fileno(), [into], start)
        with self._lock:
            self._file.seek(start)
            return self._file.readinto(into) or 0

    def _stat(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns


def _opened_at_once(path: str, flags: int) -> int:
    """Opens a file without waiting: opening a pipe would wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
