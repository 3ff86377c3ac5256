"""The programs of a model: requests compiled when they are first made, and kept open."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

from onnxlens.runtime.compile import PLAIN, Request, Segment, compile_request, compile_unembedding
from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.embedding import Embedding
from onnxlens.runtime.prepared import Prepared
from onnxlens.runtime.program import Part, Program

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
    def embedding(self) -> Embedding:
        """What looks up the rows of W_E that programs take for an input.

        Raises:
            BundleError: it cannot be opened.
        """
        return self._prepared.open_embedding(self._config.n_embd)

    def _open(self, request: Request) -> Program:
        """The program of a request.

        Raises:
            BundleError: what was prepared cannot be opened.
            ProviderError: the provider did not start.
        """
        if request == PLAIN:
            return Program([Part.of_session(self._prepared.open_plain(self._threads))], self._prepared.provider)
        parts = self._parts(compile_request(self._prepared.graph, request, self._config))
        return Program(parts, self._prepared.provider, self._unembedding if request.logits == "all" else None)

    @cached_property
    def _unembedding(self) -> Part:
        """What computes the logits at all positions, for every request."""
        (part,) = self._parts([compile_unembedding(self._prepared.graph, self._config)])
        return part

    def _parts(self, segments: Sequence[Segment]) -> list[Part]:
        several = len(segments) > 1
        return [Part.of(s, self._prepared.open(s.model, self._threads, takes_turns=several)) for s in segments]
