"""A compiled request that can be run: one session for each of its segments, and the unembedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onnxlens.runtime.compile import FINAL, before
from onnxlens.runtime.functions import Functions, Hook, call
from onnxlens.runtime.part import Part, Value
from onnxlens.runtime.unembedding import Unembedding

__all__ = ["Program"]


class Program:
    """A compiled request.

    Args:
        parts: its segments, in order.
        unembedding: what computes logits at all positions from what they leave; None where none are wanted, or the last
            ones only.

    Attributes:
        inputs: names of all inputs of all segments.
    """

    def __init__(self, parts: Sequence[Part], unembedding: Unembedding | None = None) -> None:
        self._parts, self._unembedding = tuple(parts), unembedding
        self.inputs = frozenset(name for part in self._parts for name in part.inputs)

    def open(self, length: int) -> None:
        """Opens what is opened when texts of some length are first run; it can as well be left to `run`.

        Raises:
            BundleError: what was prepared cannot be opened.
            ProviderError: the provider did not start.
        """
        if self._unembedding is not None:
            self._unembedding.open(length)

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
            values |= part.run(values, {**arrays, **raw})
            for name in part.calls:
                values[name] = call(functions[name], hooks[name], raw[before(name)])
        if self._unembedding is not None:
            self._unembedding.run(values.pop(FINAL).numpy(), arrays["logits"])
        return values
