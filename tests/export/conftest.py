"""What the export's tests share: tracing, which takes nearly all of an export's time, done once for each shape."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxlens.export import _bundle as bundle
from onnxlens.export import _graph as graph
from onnxlens.export.families import Family
from onnxlens.runtime._bundle.config import ModelConfig

_traced: dict[ModelConfig, ir.Model] = {}


@pytest.fixture
def quick_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets an export take a copy of the graph that an earlier one of the same configuration traced."""

    def hooks_graph(family: Family) -> ir.Model:
        if family.cfg not in _traced:
            _traced[family.cfg] = graph.hooks_graph(family)
        return _traced[family.cfg].clone()

    monkeypatch.setattr(bundle, "hooks_graph", hooks_graph)
