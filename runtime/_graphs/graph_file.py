"""The graphs of a bundle: read, and checked before anything is computed from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxlens.runtime._bundle.bundle import GRADIENTS_GRAPH, HOOKS_GRAPH, WEIGHTS
from onnxlens.runtime._escape import quoted
from onnxlens.runtime._graphs.names import COTANGENT, GRADIENT
from onnxlens.runtime.errors import BundleError, parsing

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

    from onnxlens.runtime._bundle.bundle import Bundle

__all__ = ["OPERATORS", "read_graph", "tensors"]

_LIMIT = 200_000_000  # bytes; a graph of 48 blocks with its gradients takes one million

OPERATORS = frozenset({
    "Abs", "Add", "And", "Cast", "Clip", "Concat", "Constant", "Cos", "Div", "Equal", "Erf", "Exp", "Expand", "Flatten",
    "Gather", "Gelu", "Greater", "GreaterOrEqual", "Identity", "IsNaN", "LayerNormalization", "Less", "LessOrEqual",
    "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean",
    "ReduceSum", "Relu", "Reshape", "Shape", "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze",
    "Sub", "Tanh", "Transpose", "Trilu", "Unsqueeze", "Where",
})  # fmt: skip
"""What a graph may consist of: what an export writes, and what another version of PyTorch may write in its place.

The running time of each is bounded by its inputs and outputs. That of a `Loop` is not: nothing could interrupt one of
2^62 steps.
"""


def read_graph(bundle: Bundle, name: str) -> ModelProto:
    """Reads a graph of a bundle.

    Args:
        bundle: the bundle.
        name: the graph's path in it, such as `HOOKS_GRAPH`.

    Returns:
        The graph. It consists of `OPERATORS` only, takes data from the weights file only, and each weight from its own
        place; and it has the hook points and the cache of the bundle's configuration, or their gradients.

    Raises:
        BundleError: it cannot be read, or does not meet these conditions.
    """
    import onnx

    path = bundle.path / name
    if (size := bundle.manifest.files[name].size) > _LIMIT:
        raise BundleError(f"The graph {path} has {size:,} bytes, and no graph of a bundle needs more than {_LIMIT:,}.")
    with parsing(path, "an ONNX graph"):
        model = onnx.load_from_string(bundle.read(name))
        _check_text(model)
        _check_tensors(model, bundle, path)
        _check_operators(model, path)
        if name == HOOKS_GRAPH:
            _check_interface(model, bundle)
        elif name == GRADIENTS_GRAPH:
            _check_gradients_interface(model, bundle)
    return model


def tensors(message: Any) -> Iterator[TensorProto]:
    """All tensors in a protocol buffer message: in initializers, attributes, subgraphs and functions."""
    from onnx import TensorProto

    for description, value in message.ListFields():
        if description.type == description.TYPE_MESSAGE:
            for inner in _listed(value):
                if isinstance(inner, TensorProto):
                    yield inner
                yield from tensors(inner)


def _check_text(message: Any) -> None:
    """Checks that every text in a protocol buffer message is UTF-8, which the protobuf library does not check."""
    for description, value in message.ListFields():
        if description.type == description.TYPE_MESSAGE:
            for inner in _listed(value):
                _check_text(inner)
        elif description.type == description.TYPE_STRING:
            for text in [value] if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    raise ValueError(f"{description.name!r} is not UTF-8")


def _listed(value: Any) -> Any:
    """The messages in a field, which may hold one or several."""
    from google.protobuf.message import Message

    return [value] if isinstance(value, Message) else value


def _check_tensors(model: ModelProto, bundle: Bundle, path: Path) -> None:
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data
    from onnx.helper import np_dtype_to_tensor_dtype

    for tensor in filter(uses_external_data, tensors(model)):
        info = ExternalDataInfo(tensor)
        if info.location != Path(WEIGHTS).name:
            raise BundleError(
                f"The graph {path} takes {quoted(tensor.name)} from {quoted(info.location)}; a bundle's graphs may "
                f"take data from {Path(WEIGHTS).name} beside them only."
            )
        entry = bundle.weights.entries.get(tensor.name)
        if entry is None or entry.offset != info.offset or entry.length != info.length:
            raise BundleError(f"The graph {path} looks for {quoted(tensor.name)} in a wrong place.")
        if tensor.data_type != np_dtype_to_tensor_dtype(entry.dtype):
            raise BundleError(f"The graph {path} takes {quoted(tensor.name)} as another data type than {entry.dtype}.")
        if tuple(tensor.dims) != entry.shape:
            raise BundleError(
                f"The graph {path} takes {quoted(tensor.name)} as one of shape {quoted(list(tensor.dims))}; it has "
                f"{list(entry.shape)}."
            )


def _check_operators(model: ModelProto, path: Path) -> None:
    found = "functions of its own" if model.functions else ""
    for node in model.graph.node:
        if node.domain or node.op_type not in OPERATORS:
            found = f"the operator {quoted(f'{node.domain}::{node.op_type}'.removeprefix('::'))}"
        elif any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            found = "a graph inside a graph"
        elif not node.output or not (node.input or node.op_type == "Constant"):
            found = f"the operator {quoted(node.op_type)} without {'inputs' if node.output else 'outputs'}"
        if found:
            break
    if found:
        raise BundleError(f"The graph {path} uses {found}, which no export of onnxlens writes. Export the model again.")


def _check_interface(model: ModelProto, bundle: Bundle) -> None:
    """Checks that the graph has this configuration's hook points and cache."""
    config = bundle.config
    outputs = {value.name for value in model.graph.output}
    missing = [p.name for p in bundle.description.hook_points if not p.on_request and p.name not in outputs]
    caches = [value for value in model.graph.input if value.name.startswith("past_key_values.")]
    sizes = {tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1::2]) for value in caches}
    expected = {(config.key_value_heads, config.d_head)}
    if missing or len(caches) != 2 * config.n_layers or sizes != expected:
        raise BundleError(f"The graph {bundle.path / HOOKS_GRAPH} does not fit the bundle's manifest.")


def _check_gradients_interface(model: ModelProto, bundle: Bundle) -> None:
    """Checks that the graph has this configuration's hook points, the gradients at them, and the cotangent."""
    outputs = {value.name for value in model.graph.output}
    names = [point.name for point in bundle.description.hook_points if not point.on_request]
    vocabulary = [v.type.tensor_type.shape.dim[-1].dim_value for v in model.graph.input if v.name == COTANGENT]
    complete = all({name, GRADIENT + name} <= outputs for name in names)
    if not complete or vocabulary != [bundle.config.d_vocab]:
        raise BundleError(f"The graph {bundle.path / GRADIENTS_GRAPH} does not fit the bundle's manifest.")
