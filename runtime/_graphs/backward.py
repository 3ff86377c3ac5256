"""The vector-Jacobian product of a model, as two graphs cut to a request: forward and backward pass.

`model_gradients.onnx` computes, from a cotangent c on the logits (any array of their shape), the gradient of
sum(c * logits) at every hook point: c^T J, with J the Jacobian of the logits (Griewank and Walther 2008, "Evaluating
Derivatives", chapter 3, the reverse mode). With c the gradient of a metric of the logits, that is the metric's
gradient.

Nodes that depend on the cotangent are the backward pass, all others the forward pass. So the forward pass gives the
logits, from which the cotangent is made, and saves the values that the backward pass needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxlens.runtime._graphs.graph import needed
from onnxlens.runtime._graphs.names import COTANGENT, EMBEDDING, GRADIENT

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["GradientRequest", "backward_graph", "forward_graph", "saved_values"]


@dataclass(frozen=True)
class GradientRequest:
    """What a forward pass and the backward pass shall compute.

    Attributes:
        gradients: hook points at which the gradient is wanted, in the order of computation; if empty, only the forward
            pass runs.
        reads: hook points whose values are wanted.
        embedded: the token embeddings are an input, instead of being looked up by token id.
    """

    gradients: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    embedded: bool = False


def forward_graph(prepared: ModelProto, request: GradientRequest) -> ModelProto:
    """Cuts the prepared gradient graph down to the forward pass.

    Args:
        prepared: the graph that `runtime.prepare` made of `model_gradients.onnx`; it is not changed.
        request: what to compute.

    Returns:
        A graph with the outputs `logits`, the hook points read, and the values saved for the backward pass.
    """
    from_inputs = {EMBEDDING} if request.embedded else set()
    nodes = [node for node in _halves(prepared)[0] if not from_inputs.intersection(node.output)]
    outputs = dict.fromkeys(["logits", *request.reads, *saved_values(prepared, request)])
    inputs = [value for value in prepared.graph.input if value.name != COTANGENT]
    inputs += [value for value in prepared.graph.output if value.name in from_inputs]
    model = _cut(prepared, needed(nodes, [*outputs]))
    model.graph.input.extend(inputs)
    for name in outputs:
        if name not in from_inputs:
            model.graph.output.add().name = name  # ONNX Runtime infers the types
    return model


def backward_graph(prepared: ModelProto, request: GradientRequest, types: Mapping[str, int]) -> ModelProto:
    """Cuts the prepared gradient graph down to the backward pass.

    Args:
        prepared: as for `forward_graph`.
        request: what to compute.
        types: the ONNX data type of each saved value.

    Returns:
        A graph from the cotangent and the saved values to the gradients, named `grad.` and the hook point.
    """
    from onnx import helper

    wanted = {GRADIENT + name for name in request.gradients}
    model = _cut(prepared, needed(_halves(prepared)[1], [*wanted]))
    model.graph.input.extend(value for value in prepared.graph.input if value.name == COTANGENT)
    model.graph.input.extend(helper.make_tensor_value_info(name, kind, None) for name, kind in types.items())
    model.graph.output.extend(value for value in prepared.graph.output if value.name in wanted)
    return model


def saved_values(prepared: ModelProto, request: GradientRequest) -> tuple[str, ...]:
    """The values of the forward pass, including its inputs, that the backward pass needs."""
    forward, backward = _halves(prepared)
    known = {value.name for value in prepared.graph.input if value.name != COTANGENT}
    known.update(name for node in forward for name in node.output)
    used = needed(backward, [GRADIENT + name for name in request.gradients])
    return tuple(dict.fromkeys(name for node in used for name in node.input if name in known))


def _halves(prepared: ModelProto) -> tuple[list[NodeProto], list[NodeProto]]:
    """The nodes that the cotangent does not reach, and those that it does; ONNX lists nodes in order of computation."""
    reached = {COTANGENT}
    forward, backward = [], []
    for node in prepared.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            backward.append(node)
        else:
            forward.append(node)
    return forward, backward


def _cut(prepared: ModelProto, nodes: list[NodeProto]) -> ModelProto:
    """A model of these nodes and the weights that they use, without inputs and outputs yet."""
    from onnx import ModelProto

    model = ModelProto()
    model.ir_version = prepared.ir_version
    model.opset_import.extend(prepared.opset_import)
    model.graph.name = "gradients"
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    model.graph.initializer.extend(tensor for tensor in prepared.graph.initializer if tensor.name in used)
    return model
