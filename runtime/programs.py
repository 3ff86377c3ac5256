"""The programs of a model: requests compiled when they are first made, and kept open."""

from __future__ import annotations

from functools import cached_property, lru_cache, partial
from typing import NoReturn

from onnxlens.runtime.compile import PLAIN, Request, compile_request
from onnxlens.runtime.description import ModelDescription
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.matrix_file import MatrixFile
from onnxlens.runtime.part import Part
from onnxlens.runtime.prepared import EMBEDDING, UNEMBEDDING, Prepared
from onnxlens.runtime.program import Program
from onnxlens.runtime.unembedding import Unembedding

__all__ = ["Programs", "refuse"]


class Programs:
    """Compiles and opens requests.

    Args:
        prepared: what they are cut from.
        model: the model that is run.
        threads: how many threads compute; None for as many as there are physical cores.
        most: how many are kept open; the least recently used goes first.

    Attributes:
        open: from a request to its program. It raises BundleError if what was prepared cannot be opened, ProviderError
            if the provider does not start, and InputError once they are closed.
    """

    def __init__(self, prepared: Prepared, model: ModelDescription, threads: int | None, most: int) -> None:
        self._opener: _Opener | None = _Opener(prepared, model, threads)
        # Not a method of this object: the two would refer to each other, and sessions would stay in memory after the
        # last use of the model, until Python next looks for such cycles.
        self.open = lru_cache(maxsize=most)(self._opener.open)

    @property
    def embedding(self) -> MatrixFile:
        """W_E, whose rows programs take for an input.

        Raises:
            BundleError: it cannot be opened.
            InputError: they are closed.
        """
        return self._opener.embedding if self._opener is not None else refuse()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be opened any more."""
        return self._opener is None

    def close(self) -> None:
        """Closes what is not in use at this moment, and the rest when it no longer is."""
        self._opener, self.open = None, lru_cache(refuse)


def refuse(request: object = None) -> NoReturn:
    """What a closed model says to every request.

    Raises:
        InputError: always.
    """
    raise InputError("This model was closed; open it again with onnxlens.load.")


class _Opener:
    """Opens programs, and what they share."""

    def __init__(self, prepared: Prepared, model: ModelDescription, threads: int | None) -> None:
        self._prepared, self._model, self._threads = prepared, model, threads

    @cached_property
    def embedding(self) -> MatrixFile:
        return self._prepared.open_matrix(EMBEDDING, self._model.cfg.d_model)

    def open(self, request: Request) -> Program:
        if request == PLAIN:
            return Program([Part.open_plain(self._prepared, self._threads)])
        segments = compile_request(self._prepared.graph, request, self._model)
        several = len(segments) > 1
        parts = [Part.open(segment, self._prepared, self._threads, takes_turns=several) for segment in segments]
        return Program(parts, self._unembedding if request.logits == "all" else None)

    @cached_property
    def _unembedding(self) -> Unembedding:
        name = EMBEDDING if self._model.cfg.tie_word_embeddings else UNEMBEDDING
        open_matrix = partial(self._prepared.open_matrix, name, self._model.cfg.d_model)
        return Unembedding(self._prepared, self._model, self._threads, open_matrix)
