"""A matrix in a file of its own, read as it is needed: W_E by rows, W_U by parts."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from threading import Lock

import numpy as np

from onnxlens.runtime.errors import BundleError

__all__ = ["MatrixFile"]


class MatrixFile:
    """A matrix of one row for each token.

    If ONNX Runtime looked rows up, it would map the file into memory, and with each row the system maps its neighbours:
    of GPT-2's 154 MB a part or all, by how they lie in the system's cache.

    Args:
        path: the matrix, [V, D] float32, and nothing else.
        width: D.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, width: int) -> None:
        self._path, self._width, self._lock = path, width, Lock()
        self._file = path.open("rb", buffering=0)  # stays there if somebody deletes it
        weakref.finalize(self, self._file.close)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """The rows of token ids [B, P], [B, P, D] float32.

        Raises:
            BundleError: the file cannot be read, or ends too early.
        """
        tokens, where = np.unique(ids, return_inverse=True)
        found = np.concatenate([self.part(token, token + 1) for token in tokens.tolist()])
        rows: np.ndarray = found[where.reshape(ids.shape)]
        return rows

    def part(self, start: int, stop: int) -> np.ndarray:
        """The rows of the tokens from `start` to before `stop`, [stop - start, D] float32; errors likewise."""
        found = np.empty((stop - start, self._width), np.float32)
        size, view, read = 4 * self._width, found.data.cast("B"), 0
        try:
            while read < len(view) and (count := self._read(start * size + read, view[read:])):
                read += count
        except OSError as error:
            raise BundleError(f"Cannot read what was prepared, {self._path}: {error.strerror}.") from error
        if read < len(view):
            raise BundleError(
                f"What was prepared is damaged: {self._path} ends before the row of token {start + read // size}. "
                "Delete its folder; the next start makes it again."
            )
        return found

    def _read(self, start: int, into: memoryview) -> int:
        """Reads bytes from a place on, perhaps not all that would fit; returns how many."""
        if hasattr(os, "preadv"):  # moves no place in the file, which threads and forked processes would share
            return os.preadv(self._file.fileno(), [into], start)
        with self._lock:
            self._file.seek(start)
            return self._file.readinto(into)
