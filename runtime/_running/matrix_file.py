"""A matrix in a file of its own, read as it is needed: W_E by rows, W_U by parts."""

from __future__ import annotations

import numpy as np

from onnxlens.runtime._bundle.open_file import OpenFile

__all__ = ["MatrixFile"]


class MatrixFile:
    """A matrix of one row for each token.

    If ONNX Runtime looked rows up, it would map the file into memory, and with each row the system maps its neighbours:
    part or all of GPT-2's 154 MB, depending on the system's cache.

    Args:
        file: the matrix, [V, D] float32, and nothing else.
        width: D.
    """

    def __init__(self, file: OpenFile, width: int) -> None:
        self._file, self._width = file, width

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """The rows of token ids [B, P], [B, P, D] float32.

        Raises:
            BundleError: the file was changed, cannot be read, or ends too early.
        """
        tokens, where = np.unique(ids, return_inverse=True)
        found = np.concatenate([self.part(token, token + 1) for token in tokens.tolist()])
        rows: np.ndarray = found[where.reshape(ids.shape)]
        return rows

    def part(self, start: int, stop: int) -> np.ndarray:
        """The rows of the tokens from `start` to before `stop`, [stop - start, D] float32; errors likewise."""
        found = np.empty((stop - start, self._width), np.float32)
        self._file.read_into(found.data.cast("B"), start * 4 * self._width)
        return found
