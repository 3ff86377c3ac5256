"""A matrix in a file of its own, read as it is needed: W_E by rows, W_U by parts."""

from __future__ import annotations

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
        try:
            with self._lock:
                self._file.seek(start * 4 * self._width)
                read = self._file.readinto(found.data)
        except OSError as error:
            raise BundleError(f"Cannot read what was prepared, {self._path}: {error.strerror}.") from error
        if read < found.nbytes:
            raise BundleError(
                f"What was prepared is damaged: {self._path} ends before the row of token "
                f"{start + read // (4 * self._width)}. Delete its folder; the next start makes it again."
            )
        return found
