"""The programs of a model: requests compiled when they are first made, and kept open."""

from __future__ import annotations

from functools import cached_property, lru_cache

from onnxlens.runtime.compile import PLAIN, Request, compile_request
from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.matrix_file import MatrixFile
from onnxlens.runtime.part import Part
from onnxlens.runtime.prepared import EMBEDDING, UNEMBEDDING, Prepared
from onnxlens.runtime.program import Program
from onnxlens.runtime.unembedding import Unembedding

__all__ = ["Programs"]


class Programs:
    """Compiles and opens requests.

    Args:
        prepared: what they are cut from.
        config: the model's shape.
        threads: how many threads compute; None for as many as there are physical cores.
        most: how many are kept open; the least recently used goes first.

    Attributes:
        open: from a request to its program.
    """

    def __init__(self, prepared: Prepared, config: ModelConfig, threads: int | None, most: int) -> None:
        self._prepared, self._config, self._threads = prepared, config, threads
        self.open = lru_cache(maxsize=most)(self._open)

    @cached_property
    def embedding(self) -> MatrixFile:
        """W_E, whose rows programs take for an input.

        Raises:
            BundleError: it cannot be opened.
        """
        return self._prepared.open_matrix(EMBEDDING, self._config.n_embd)

    def _open(self, request: Request) -> Program:
        """The program of a request.

        Raises:
            BundleError: what was prepared cannot be opened.
            ProviderError: the provider did not start.
        """
        if request == PLAIN:
            return Program([Part.open_plain(self._prepared, self._threads)])
        segments = compile_request(self._prepared.graph, request, self._config)
        several = len(segments) > 1
        parts = [Part.open(segment, self._prepared, self._threads, takes_turns=several) for segment in segments]
        return Program(parts, self._unembedding if request.logits == "all" else None)

    @cached_property
    def _unembedding(self) -> Unembedding:
        return Unembedding(self._prepared, self._config, self._threads, self._open_unembedding_matrix)

    def _open_unembedding_matrix(self) -> MatrixFile:
        if self._config.tie_word_embeddings:
            return self.embedding
        return self._prepared.open_matrix(UNEMBEDDING, self._config.n_embd)
