"""Compiled requests: sessions on the segments of a request, run one after the other, and kept open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
import onnxruntime

from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._graphs.graph import Segment
from onnxlens.runtime._graphs.names import FINAL, uncalled
from onnxlens.runtime._graphs.request import PLAIN, Request, compile_request
from onnxlens.runtime._interventions.functions import Functions, Hook, call
from onnxlens.runtime._running.matrix_file import MatrixFile
from onnxlens.runtime._running.prepared import EMBEDDING, UNEMBEDDING, Prepared
from onnxlens.runtime._running.providers import Provider, run_bound
from onnxlens.runtime._running.session import Session
from onnxlens.runtime._running.unembedding import Unembedding
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["CompiledRequest", "RequestCache", "SegmentSession", "refuse"]

Value: TypeAlias = "np.ndarray | onnxruntime.OrtValue"


@dataclass(frozen=True)
class SegmentSession:
    """A segment of a compiled request with the session that runs it.

    Attributes:
        session: the session.
        provider: what runs it.
        inputs: the names of its inputs.
        outputs: the names of its outputs.
        calls: the hook points at which functions are called after it.
    """

    session: Session
    provider: Provider
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: tuple[str, ...] = ()

    @classmethod
    def open(
        cls, segment: Segment, prepared: Prepared, threads: int | None, *, takes_turns: bool = False
    ) -> SegmentSession:
        """Opens a session on a segment; `threads` and `takes_turns` as in `session_options`.

        Raises:
            BundleError: ONNX Runtime cannot open it.
            ProviderError: the provider did not start.
        """
        session = prepared.open(segment.model, threads, takes_turns=takes_turns)
        return cls(session, prepared.provider, segment.inputs, segment.outputs, segment.calls)

    @classmethod
    def open_plain(cls, prepared: Prepared, threads: int | None, *, profile: Path | None = None) -> SegmentSession:
        """Opens a session on the request that reads no hook point; `profile` as in `Prepared.open_plain`."""
        session = prepared.open_plain(threads, profile=profile)
        opened = session.get()
        inputs, outputs = (tuple(v.name for v in values) for values in (opened.get_inputs(), opened.get_outputs()))
        return cls(session, prepared.provider, inputs, outputs)

    def run(self, values: Mapping[str, Value], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Runs the session.

        Args:
            values: its inputs, and perhaps others, by name.
            arrays: arrays for outputs, by name, into which ONNX Runtime writes directly. Other outputs stay where the
                model runs.

        Returns:
            The outputs by name.
        """
        session = self.session.get()
        binding = session.io_binding()
        for name in self.inputs:
            value = values[name]
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            if (array := arrays.get(name)) is not None:
                binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            else:
                binding.bind_output(name, self.provider.name)
        run_bound(session, binding, self.provider)
        outputs = zip(self.outputs, binding.get_outputs(), strict=True)
        return {name: arrays.get(name, value) for name, value in outputs}


class CompiledRequest:
    """A request that can be run: a session for each of its segments, and the unembedding.

    Args:
        segments: its segments, in order.
        unembedding: computes logits at all positions from their results; None where no logits are wanted, or the last
            ones only.

    Attributes:
        inputs: names of all inputs of all segments.
    """

    def __init__(self, segments: Sequence[SegmentSession], unembedding: Unembedding | None = None) -> None:
        self._segments, self._unembedding = tuple(segments), unembedding
        self.inputs = frozenset(name for segment in self._segments for name in segment.inputs)

    def open(self, length: int) -> None:
        """Opens the sessions that texts of some length need; optional, since `run` opens what it needs.

        Raises:
            BundleError: the prepared files cannot be opened.
            ProviderError: the provider did not start.
        """
        if self._unembedding is not None:
            self._unembedding.open(length)

    def run(
        self,
        inputs: Mapping[str, Value],
        arrays: Mapping[str, np.ndarray],
        functions: Functions,
        hooks: Mapping[str, Hook],
        allocate: Callable[[str], np.ndarray],
    ) -> dict[str, Any]:
        """Computes everything.

        Args:
            inputs: values of the graph's inputs, by name.
            arrays: arrays for results, by name, into which ONNX Runtime writes directly.
            functions: what to call at hook points.
            hooks: what to hand them, by name.
            allocate: makes the array for a hook point's value before functions have seen it.

        Returns:
            All values by name: the inputs, the arrays, the results of functions, and the others where the model runs.
        """
        values: dict[str, Any] = dict(inputs)
        for segment in self._segments:
            raw = {uncalled(name): allocate(name) for name in segment.calls}
            values |= segment.run(values, {**arrays, **raw})
            for name in segment.calls:
                values[name] = call(functions[name], hooks[name], raw[uncalled(name)])
        if self._unembedding is not None:
            self._unembedding.run(values.pop(FINAL).numpy(), arrays["logits"])
        return values


class RequestCache:
    """Compiles requests when they are first made, and keeps them open.

    Args:
        prepared: what they are cut from.
        model: the model that is run.
        threads: how many threads compute; None for as many as there are physical cores.
        most: how many are kept open; the least recently used goes first.

    Attributes:
        open: from a request to what runs it. It raises BundleError if the prepared files cannot be opened,
            ProviderError if the provider does not start, and InputError once they are closed.
    """

    def __init__(self, prepared: Prepared, model: ModelDescription, threads: int | None, most: int) -> None:
        self._opener: _Opener | None = _Opener(prepared, model, threads)
        # Not a method of this object: the two would refer to each other, and sessions would stay in memory after the
        # last use of the model, until Python next looks for such cycles.
        self.open = lru_cache(maxsize=most)(self._opener.open)

    @property
    def embedding(self) -> MatrixFile:
        """W_E, whose rows requests take for an input.

        Raises:
            BundleError: it cannot be opened.
            InputError: they are closed.
        """
        return self._opener.embedding if self._opener is not None else refuse()

    def open_profiled(self, profile: Path) -> tuple[SegmentSession, ModelProto]:
        """Opens a session of its own on the request that reads no hook point, which writes the time of each node.

        Args:
            profile: the beginning of the name of the file.

        Returns:
            The session, which is not kept, and its graph.

        Raises:
            BundleError: it cannot be opened.
            InputError: they are closed.
        """
        return self._opener.open_profiled(profile) if self._opener is not None else refuse()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be opened any more."""
        return self._opener is None

    def close(self) -> None:
        """Closes sessions that are not in use now, and the others as soon as their runs end."""
        self._opener, self.open = None, lru_cache(refuse)


def refuse(request: object = None) -> NoReturn:
    """Refuses a request of a closed model.

    Raises:
        InputError: always.
    """
    raise InputError("This model was closed; open it again with onnxlens.load.")


class _Opener:
    """Opens requests, and the files that they share."""

    def __init__(self, prepared: Prepared, model: ModelDescription, threads: int | None) -> None:
        self._prepared, self._model, self._threads = prepared, model, threads

    @cached_property
    def embedding(self) -> MatrixFile:
        return self._prepared.open_matrix(EMBEDDING, self._model.cfg.d_model)

    def open(self, request: Request) -> CompiledRequest:
        if request == PLAIN:
            return CompiledRequest([SegmentSession.open_plain(self._prepared, self._threads)])
        segments = compile_request(self._prepared.graph, request, self._model)
        several = len(segments) > 1
        opened = [
            SegmentSession.open(segment, self._prepared, self._threads, takes_turns=several) for segment in segments
        ]
        return CompiledRequest(opened, self._unembedding if request.logits == "all" else None)

    def open_profiled(self, profile: Path) -> tuple[SegmentSession, ModelProto]:
        session = SegmentSession.open_plain(self._prepared, self._threads, profile=profile)
        return session, self._prepared.plain_graph

    @cached_property
    def _unembedding(self) -> Unembedding:
        name = EMBEDDING if self._model.cfg.tie_word_embeddings else UNEMBEDDING
        # No method of this object: the two would refer to each other.
        open_segment = partial(SegmentSession.open, prepared=self._prepared, threads=self._threads)
        open_matrix = partial(self._prepared.open_matrix, name, self._model.cfg.d_model)
        return Unembedding(self._prepared, self._model, open_segment, open_matrix)
