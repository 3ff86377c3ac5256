"""The unembedding: logits at all positions, which every request shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._graphs.graph import Segment
from onnxlens.runtime._graphs.names import FINAL, UNEMBEDDING_PART
from onnxlens.runtime._graphs.unembed import product_graph, unembedding_graph
from onnxlens.runtime._running.matrix_file import MatrixFile
from onnxlens.runtime._running.prepared import Prepared
from onnxlens.runtime._running.providers import CPU

if TYPE_CHECKING:
    from onnxlens.runtime._running.compiled import SegmentSession

__all__ = ["Unembedding"]

# The length of a text, in tokens, from which on W_U is read part by part. That takes longer, but little beside the rest
# of a pass of that length; and what is returned is then so large that all of W_U, and logits in two places, would show
# beside it.
_LONG = 512

_PART = 16_000_000  # bytes at most of W_U that are read at a time, and of the logits computed with it

# How many positions are computed at a time, all tokens or those of a part: these logits are in memory twice, as they
# are computed and in the result. With fewer, the products take longer.
_WHOLE_POSITIONS, _PART_POSITIONS = 256, 512


class Unembedding:
    """Computes logits.

    For short texts, it uses all of W_U, packed for this processor and mapped into memory. For long texts on the CPU, it
    reads W_U from a file part by part, so that W_U need not be mapped. The two ways do not round alike.

    Args:
        prepared: where both forms of W_U are.
        model: the model that is run.
        open_segment: opens a session on a graph.
        open_matrix: opens W_U, transposed, [V, D].
    """

    def __init__(
        self,
        prepared: Prepared,
        model: ModelDescription,
        open_segment: Callable[[Segment], SegmentSession],
        open_matrix: Callable[[], MatrixFile],
    ) -> None:
        self._prepared, self._model, self._open, self._open_matrix = prepared, model, open_segment, open_matrix

    def open(self, length: int) -> None:
        """Opens the sessions that texts of that many tokens need; opening takes memory for a moment.

        Raises:
            BundleError: the prepared files cannot be opened.
            ProviderError: the provider did not start.
        """
        _ = self._product if self._by_parts(length) else self._whole

    def run(self, final: np.ndarray, logits: np.ndarray) -> None:
        """Computes logits [B, P, V] from what the unembedding reads, [B, P, D].

        Raises:
            BundleError: the prepared files cannot be opened or read.
        """
        rows, out = final.reshape(-1, final.shape[-1]), logits.reshape(-1, logits.shape[-1])  # [B * P, D], [B * P, V]
        (self._run_parts if self._by_parts(final.shape[1]) else self._run_whole)(rows, out)

    def _by_parts(self, length: int) -> bool:
        # By the length of texts, not by how many there are, so that runs in a batch round as they do alone.
        return length >= _LONG and self._prepared.provider is CPU

    def _run_whole(self, rows: np.ndarray, out: np.ndarray) -> None:
        for some, there in _some(rows, out, _WHOLE_POSITIONS):
            self._whole.run({FINAL: some[np.newaxis]}, {"logits": there[np.newaxis]})

    def _run_parts(self, rows: np.ndarray, out: np.ndarray) -> None:
        for start, stop in pairwise(self._bounds):
            part = self._matrix.part(start, stop)
            for some, there in _some(rows, out, _PART_POSITIONS):
                found = np.empty((len(some), stop - start), np.float32)
                self._product.run({FINAL: some, UNEMBEDDING_PART: part}, {"logits": found})
                there[:, start:stop] = found

    @property
    def _bounds(self) -> list[int]:
        """Where parts of W_U start and end. All have one size, since the rounding of a product can depend on it."""
        vocabulary, width = self._model.cfg.d_vocab, self._model.cfg.d_model
        count = -(-vocabulary * 4 * max(width, _PART_POSITIONS) // _PART)
        return [vocabulary * index // count for index in range(count + 1)]

    @cached_property
    def _whole(self) -> SegmentSession:
        return self._open(unembedding_graph(self._prepared.graph, self._model))

    @cached_property
    def _product(self) -> SegmentSession:
        return self._open(product_graph(self._prepared.graph))

    @cached_property
    def _matrix(self) -> MatrixFile:
        return self._open_matrix()


def _some(rows: np.ndarray, out: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows in pieces of at most `most`, with their places in the result."""
    count = -(-len(rows) // most)
    return zip(np.array_split(rows, count), np.array_split(out, count), strict=True)
