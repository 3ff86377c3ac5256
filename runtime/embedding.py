"""The embedding matrix W_E, whose rows are read from a file as they are needed."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from threading import Lock

import numpy as np

from onnxlens.runtime.errors import BundleError

__all__ = ["Embedding"]


class Embedding:
    """Rows of W_E.

    If ONNX Runtime looked them up, it would map the file into memory, and with each row the system maps its neighbours:
    of GPT-2's 154 MB a part or all, by how they lie in the system's cache.

    Args:
        path: the matrix, [V, D] float32, and nothing else.
        width: D.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, width: int) -> None:
        self._path, self._bytes, self._lock = path, 4 * width, Lock()
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # stays there if somebody deletes it
        weakref.finalize(self, os.close, self._file)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """The embeddings of token ids [B, P], [B, P, D] float32.

        Raises:
            BundleError: the file cannot be read, or ends too early.
        """
        tokens, where = np.unique(ids, return_inverse=True)
        with self._lock:
            found = b"".join(self._row(token) for token in tokens.tolist())
        rows: np.ndarray = np.frombuffer(found, np.float32).reshape(len(tokens), -1)[where.reshape(ids.shape)]
        return rows

    def _row(self, token: int) -> bytes:
        try:
            os.lseek(self._file, token * self._bytes, os.SEEK_SET)
            row = os.read(self._file, self._bytes)
        except OSError as error:
            raise BundleError(f"Cannot read what was prepared, {self._path}: {error.strerror}.") from error
        if len(row) < self._bytes:
            raise BundleError(
                f"What was prepared is damaged: {self._path} ends before the row of token {token}. Delete its folder; "
                "the next start makes it again."
            )
        return row
