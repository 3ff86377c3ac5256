"""A compiled request that can be run: one session for each of its segments, and the unembedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnxruntime

from onnxlens.runtime.compile import FINAL, Segment, before
from onnxlens.runtime.functions import Functions, Hook, call
from onnxlens.runtime.providers import Provider

__all__ = ["Part", "Program"]

# W_U is in parts (see `prepare`), so the logits of the positions that are computed at a time are in memory twice: in
# parts and put together. With fewer positions than this, the products take longer.
_AT_A_TIME = 256

Value: TypeAlias = "np.ndarray | onnxruntime.OrtValue"


@dataclass(frozen=True)
class Part:
    """A segment with its session: what goes in, what comes out, and where functions are called after it."""

    session: onnxruntime.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: tuple[str, ...] = ()

    @classmethod
    def of(cls, segment: Segment, session: onnxruntime.InferenceSession) -> Part:
        """A segment and the session that was opened on it."""
        return cls(session, segment.inputs, segment.outputs, segment.calls)

    @classmethod
    def of_session(cls, session: onnxruntime.InferenceSession) -> Part:
        """A session that is a whole request."""
        inputs, outputs = (tuple(v.name for v in values) for values in (session.get_inputs(), session.get_outputs()))
        return cls(session, inputs, outputs)


class Program:
    """A compiled request.

    Args:
        parts: its segments, in order.
        provider: what runs them.
        unembedding: what computes logits at all positions from what the segments leave; None where none are wanted, or
            the last ones only.

    Attributes:
        inputs: names of all inputs of all segments.
    """

    def __init__(self, parts: Sequence[Part], provider: Provider, unembedding: Part | None = None) -> None:
        self._parts, self._provider, self._unembedding = tuple(parts), provider, unembedding
        self.inputs = frozenset(name for part in self._parts for name in part.inputs)

    def run(
        self,
        given: Mapping[str, Value],
        arrays: Mapping[str, np.ndarray],
        functions: Functions,
        hooks: Mapping[str, Hook],
        allocate: Callable[[str], np.ndarray],
    ) -> dict[str, Any]:
        """Computes everything.

        Args:
            given: values of the graph's inputs, by name.
            arrays: where results go, by name; ONNX Runtime writes straight into them.
            functions: what to call at hook points.
            hooks: what to hand them, by name.
            allocate: makes the array for a hook point's value before functions have seen it.

        Returns:
            All values by name: those given, the arrays, what functions left, and the rest where the model runs.
        """
        values: dict[str, Any] = dict(given)
        for part in self._parts:
            raw = {before(name): allocate(name) for name in part.calls}
            self._run_part(part, values, {**arrays, **raw})
            for name in part.calls:
                values[name] = call(functions[name], hooks[name], raw[before(name)])
        if self._unembedding is not None:
            self._unembed(self._unembedding, values.pop(FINAL).numpy(), arrays["logits"])
        return values

    def _unembed(self, part: Part, final: np.ndarray, logits: np.ndarray) -> None:
        """Computes logits [B, P, V] from what the unembedding reads [B, P, D], some positions at a time."""
        rows, out = final.reshape(-1, final.shape[-1]), logits.reshape(-1, logits.shape[-1])  # [B * P, D], [B * P, V]
        count = -(-len(rows) // _AT_A_TIME)
        for some, there in zip(np.array_split(rows, count), np.array_split(out, count), strict=True):
            self._run_part(part, {FINAL: some[np.newaxis]}, {"logits": there[np.newaxis]})

    def _run_part(self, part: Part, values: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Runs one segment; what it leaves for later ones stays where the model runs."""
        binding = part.session.io_binding()
        for name in part.inputs:
            value = values[name]
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        for name in part.outputs:
            if (array := arrays.get(name)) is not None:
                binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            else:
                binding.bind_output(name, self._provider.name)
        part.session.run_with_iobinding(binding)
        for name, value in zip(part.outputs, binding.get_outputs(), strict=True):
            values[name] = arrays.get(name, value)
