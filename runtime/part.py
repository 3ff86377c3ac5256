"""A session, with what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnxruntime

from onnxlens.runtime.compile import Segment
from onnxlens.runtime.prepared import Prepared
from onnxlens.runtime.providers import Provider
from onnxlens.runtime.session import Session

__all__ = ["Part", "Value"]

Value: TypeAlias = "np.ndarray | onnxruntime.OrtValue"


@dataclass(frozen=True)
class Part:
    """A segment with the session that runs it.

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
    def open(cls, segment: Segment, prepared: Prepared, threads: int | None, *, takes_turns: bool = False) -> Part:
        """Opens a session on a segment; `threads` and `takes_turns` as in `session_options`.

        Raises:
            BundleError: ONNX Runtime cannot open it.
            ProviderError: the provider did not start.
        """
        session = prepared.open(segment.model, threads, takes_turns=takes_turns)
        return cls(session, prepared.provider, segment.inputs, segment.outputs, segment.calls)

    @classmethod
    def open_plain(cls, prepared: Prepared, threads: int | None) -> Part:
        """Opens a session on the request that reads no hook point; errors likewise."""
        session = prepared.open_plain(threads)
        opened = session.get()
        inputs, outputs = (tuple(v.name for v in values) for values in (opened.get_inputs(), opened.get_outputs()))
        return cls(session, prepared.provider, inputs, outputs)

    def run(self, values: Mapping[str, Value], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Runs the session.

        Args:
            values: its inputs, and perhaps others, by name.
            arrays: where outputs go, by name; ONNX Runtime writes straight into them. The others stay where the model
                runs.

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
        session.run_with_iobinding(binding)
        outputs = zip(self.outputs, binding.get_outputs(), strict=True)
        return {name: arrays.get(name, value) for name, value in outputs}
