"""The unembedding: graphs from what it reads to logits, the same for every request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._graphs.graph import Graph, Segment, needed
from onnxlens.runtime._graphs.names import FINAL, UNEMBEDDING_PART

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["product_graph", "unembedding_graph"]


def unembedding_graph(prepared: ModelProto, model: ModelDescription) -> Segment:
    """Cuts what computes `logits` from `FINAL` out of a prepared graph."""
    graph = Graph(prepared, model)
    return graph.segment(needed(graph.nodes, ["logits"], {FINAL}), ["logits"], (), {FINAL: 3})


def product_graph(prepared: ModelProto) -> Segment:
    """A graph for some logits [N, T]: the product of `FINAL` [N, D] with a part of W_U's transpose, [T, D]."""
    from onnx import TensorProto, helper

    node = helper.make_node("Gemm", [FINAL, UNEMBEDDING_PART], ["logits"], transB=1)
    inputs, (out,) = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in names]
        for names in (node.input, node.output)
    )
    graph = helper.make_graph([node], "product", inputs, [out])
    model = helper.make_model(graph, ir_version=prepared.ir_version, opset_imports=list(prepared.opset_import))
    return Segment(model, (FINAL, UNEMBEDDING_PART), ("logits",), ())
