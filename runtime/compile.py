"""Compiles a request: the prepared graph, less all that the request does not need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.hooks import COMPUTED_ON_REQUEST
from onnxlens.runtime.kv_cache import cache_outputs

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["FINAL", "PLAIN", "Logits", "Request", "compile_request", "needed"]

Logits = Literal["last", "all"]

# The value that the unembedding reads; kept alive so that a request can cut it down to the last position.
FINAL = "ln_final.output"


@dataclass(frozen=True)
class Request:
    """What a pass shall compute.

    Attributes:
        reads: hook points to read, in the order of computation.
        logits: at the last position only, or at all.
    """

    reads: tuple[str, ...] = ()
    logits: Logits = "last"


PLAIN = Request()


def compile_request(prepared: ModelProto, request: Request, config: ModelConfig) -> ModelProto:
    """Cuts a prepared graph down to what a request needs.

    Args:
        prepared: the graph that `runtime.prepare` made; it is not changed.
        request: what to compute.
        config: the model's shape.

    Returns:
        A graph with the outputs `logits`, `present.N.key` / `.value`, and the hook points read.
    """
    from onnx import ModelProto, TensorProto, helper

    added: list[NodeProto] = []
    constants = []
    replaced: dict[str, str] = {}
    if request.logits == "last":
        constants += [
            helper.make_tensor(f"last.{key}", TensorProto.INT64, [1], [value])
            for key, value in (("start", -1), ("end", 2**31 - 1), ("axis", 1))
        ]
        added.append(helper.make_node("Slice", [FINAL, "last.start", "last.end", "last.axis"], ["last.output"]))
        replaced[FINAL] = "last.output"
    results = [name for name in request.reads if name.endswith(COMPUTED_ON_REQUEST)]
    if results:
        shape = [config.n_head, config.d_head, config.n_embd]
        constants.append(helper.make_tensor("result.shape", TensorProto.INT64, [3], shape))
    for name in results:
        added += _result_nodes(name)

    outputs = ["logits", *cache_outputs(config), *request.reads]
    kept = [_copy(node) for node in prepared.graph.node]
    for node in kept:
        node.input[:] = [replaced.get(name, name) for name in node.input]
    nodes = needed([*kept, *added], outputs)

    compiled = ModelProto()
    compiled.ir_version = prepared.ir_version
    compiled.opset_import.extend(prepared.opset_import)
    graph = compiled.graph
    graph.name = "request"
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    graph.initializer.extend(t for t in (*prepared.graph.initializer, *constants) if t.name in used)
    graph.input.extend(prepared.graph.input)
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    return compiled


def needed(nodes: list[NodeProto], outputs: list[str]) -> list[NodeProto]:
    """The nodes on which the outputs depend, in the order given."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output}
    found: set[int] = set()
    waiting = list(outputs)
    while waiting:
        index = producer.get(waiting.pop())
        if index is not None and index not in found:
            found.add(index)
            waiting += nodes[index].input
    return [node for index, node in enumerate(nodes) if index in found]


def _copy(node: NodeProto) -> NodeProto:
    copied = type(node)()
    copied.CopyFrom(node)
    return copied


def _result_nodes(name: str) -> list[NodeProto]:
    """The product z @ W_O, head by head: [B, P, H, d] and [H, d, D] to [B, P, H, D]."""
    from onnx import helper

    attention = name.removesuffix(f".{COMPUTED_ON_REQUEST}")
    layer = attention.split(".")[1]
    return [
        helper.make_node("Reshape", [f"h.{layer}.attn.c_proj.weight", "result.shape"], [f"{name}.W_O"]),  # [H, d, D]
        helper.make_node("Transpose", [f"{attention}.hook_z"], [f"{name}.z"], perm=[0, 2, 1, 3]),  # [B, H, P, d]
        helper.make_node("MatMul", [f"{name}.z", f"{name}.W_O"], [f"{name}.heads"]),  # [B, H, P, D]
        helper.make_node("Transpose", [f"{name}.heads"], [name], perm=[0, 2, 1, 3]),  # [B, P, H, D]
    ]
