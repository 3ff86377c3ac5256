"""From the PyTorch model to an ONNX graph of its gradients: the vector-Jacobian product at every hook point.

PyTorch's autograd runs while the model is traced (`make_fx` records the operations of both passes), and the recorded
operations are exported like any other computation. As for the graph with hook points, this needs no weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from torch import Tensor
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from onnxlens.export._graph import OPSET, declare_shapes, name_values, quiet, simplify, strip
from onnxlens.export.families import Family
from onnxlens.export.families.parts import Decoder
from onnxlens.runtime._graphs.names import COTANGENT, GRADIENT

__all__ = ["gradients_graph", "with_gradients"]

# Sizes of the example that is traced; primes, as for the other graphs.
_BATCH, _POSITIONS = 7901, 7907


def with_gradients(
    model: Decoder,
    weights: Mapping[str, Tensor],
    input_ids: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor,
    cotangent: Tensor,
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Runs the model, and autograd after it.

    Args:
        model: the model.
        weights: the weights by parameter name; none of them requires a gradient.
        input_ids: [B, P] int64.
        attention_mask: [B, P] int64, 0 where a position is padding.
        position_ids: [B, P] int64.
        cotangent: [B, P, V], the factor of the logits' Jacobian, from the left.

    Returns:
        Logits [B, P, V]; every hook point's value; and the gradient of sum(cotangent * logits) at each of them.
    """
    values: dict[str, Tensor] = {}

    def tap(name: str, value: Tensor) -> Tensor:
        # The embeddings are the leaves of autograd, since the weights require no gradient.
        values[name] = value if value.requires_grad else value.requires_grad_()
        return value

    with torch.enable_grad():
        arguments = (input_ids, attention_mask, position_ids, None, tap)
        logits, _ = functional_call(model, dict(weights), arguments)
        gradients = torch.autograd.grad(logits, list(values.values()), cotangent)
    return logits, values, dict(zip(values, gradients, strict=True))


def gradients_graph(family: Family) -> ir.Model:
    """Traces the model and its gradients, and names everything in the graph.

    Returns:
        A model whose weights are initializers with Hugging Face's names and without data. Inputs are `input_ids`,
        `attention_mask` and `position_ids` of a whole text, and the cotangent `grad.logits`; outputs are `logits`,
        and for each hook point but the ones computed on request its value, under its name, and the gradient at it,
        under `grad.` and its name.
    """
    model, parameters = _trace(family)
    graph, described = model.graph, family.description()
    points = [point.name for point in described.hook_points if not point.on_request]
    assert not graph.initializers  # otherwise they would be taken for weights
    weights = graph.inputs[: len(parameters)]
    name_values(weights, parameters)
    for weight in weights:
        graph.inputs.remove(weight)
        graph.initializers.add(weight)
    simplify(model, family)
    _undo_double_transposes(model)
    _keep_square_weights(model)
    name_values(graph.inputs, ["input_ids", "attention_mask", "position_ids", COTANGENT])
    name_values(graph.outputs, ["logits", *points, *(GRADIENT + name for name in points)])
    declare_shapes(graph, described, keys="sequence_length")
    strip(model)
    return model


def _silu_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """The backward pass through x * sigmoid(x), for which the exporter to ONNX has no operators of its own."""
    sigmoid = torch.sigmoid(x)
    return gradient * sigmoid * (1 + x * (1 - sigmoid))


def _undo_double_transposes(model: ir.Model) -> None:
    """Lets the backward pass through the unembedding use W_U as it is stored, not the transpose of its transpose."""
    for node in model.graph:
        producer = node.inputs[0].producer() if node.op_type == "Transpose" and node.inputs[0] is not None else None
        if producer is not None and producer.op_type == "Transpose":
            first, second = producer.attributes["perm"].as_ints(), node.attributes["perm"].as_ints()
            original = producer.inputs[0]
            if original is not None and [first[axis] for axis in second] == sorted(first):
                for user, index in node.outputs[0].uses():
                    user.replace_input_with(index, original)
    passes.RemoveUnusedNodesPass()(model)


def _keep_square_weights(model: ir.Model) -> None:
    """Computes the product with a square weight's transpose, g @ Wᵀ, as (W @ gᵀ)ᵀ.

    OpenVINO 2026.4 takes W and the folded Wᵀ, which have the same shape, for one constant, and computes wrong gradients
    without a word. In this form both passes multiply with W itself.
    """
    graph = model.graph
    for node in list(graph):
        gradient, transposed = node.inputs if node.op_type == "MatMul" else (None, None)
        producer = transposed.producer() if transposed is not None else None
        weight = producer.inputs[0] if producer is not None and producer.op_type == "Transpose" else None
        if gradient is None or weight is None or weight.name not in graph.initializers:
            continue
        assert weight.shape is not None
        if weight.shape[0] == weight.shape[1]:
            columns = ir.node("Transpose", [gradient], {"perm": [1, 0]})  # [D, B * P]: the gradient has two axes here
            product = ir.node("MatMul", [weight, columns.outputs[0]])
            rows = ir.node("Transpose", [product.outputs[0]], {"perm": [1, 0]})  # [B * P, D]
            for new, name in ((columns, "columns"), (product, "product"), (rows, "rows")):
                new.name = new.outputs[0].name = f"{node.outputs[0].name}.{name}"
            node.outputs[0].replace_all_uses_with(rows.outputs[0], replace_graph_outputs=True)
            graph.insert_before(node, [columns, product, rows])
            graph.remove(node, safe=True)
    passes.RemoveUnusedNodesPass()(model)


def _trace(family: Family) -> tuple[ir.Model, list[str]]:
    """The traced model, and the names of its first inputs: the parameters."""
    with torch.device("meta"):
        model = family.module().eval().requires_grad_(requires_grad=False)
        ids = torch.zeros(_BATCH, _POSITIONS, dtype=torch.int64)
        cotangent = torch.zeros(_BATCH, _POSITIONS, family.cfg.d_vocab)
    names = [name for name, _ in model.named_parameters()]

    def computed(weights: list[Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
        input_ids, attention_mask, position_ids, grad_logits = inputs
        named = dict(zip(names, weights, strict=True))
        logits, values, gradients = with_gradients(model, named, input_ids, attention_mask, position_ids, grad_logits)
        return logits, *values.values(), *gradients.values()

    example = ([*model.parameters()], ids, torch.ones_like(ids), ids.clone(), cotangent)
    rows = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with quiet():
        recorded = make_fx(
            computed,
            decomposition_table={torch.ops.aten.silu_backward.default: _silu_backward},
            tracing_mode="symbolic",
            _allow_non_fake_inputs=True,
        )(*example)
        program = torch.export.export(recorded, example, dynamic_shapes=([None] * len(names), *[rows] * 4))
        exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False)
    assert exported is not None
    return exported.model, names
