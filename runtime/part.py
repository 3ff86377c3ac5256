"""A session, with what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnxruntime

from onnxlens.runtime.compile import Segment
from onnxlens.runtime.providers import Provider

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

    session: onnxruntime.InferenceSession
    provider: Provider
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: tuple[str, ...] = ()

    @classmethod
    def of(cls, segment: Segment, session: onnxruntime.InferenceSession, provider: Provider) -> Part:
        """A segment and the session that was opened on it."""
        return cls(session, provider, segment.inputs, segment.outputs, segment.calls)

    @classmethod
    def of_session(cls, session: onnxruntime.InferenceSession, provider: Provider) -> Part:
        """A session that is a whole request."""
        inputs, outputs = (tuple(v.name for v in values) for values in (session.get_inputs(), session.get_outputs()))
        return cls(session, provider, inputs, outputs)

    def run(self, values: Mapping[str, Value], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Runs the session.

        Args:
            values: its inputs, and perhaps others, by name.
            arrays: where outputs go, by name; ONNX Runtime writes straight into them. The others stay where the model
                runs.

        Returns:
            The outputs by name.
        """
        binding = self.session.io_binding()
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
        self.session.run_with_iobinding(binding)
        outputs = zip(self.outputs, binding.get_outputs(), strict=True)
        return {name: arrays.get(name, value) for name, value in outputs}
