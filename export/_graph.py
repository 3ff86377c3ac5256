"""From the PyTorch model to an ONNX graph in which every hook point is a named output.

The model is traced without its weights (on PyTorch's `meta` device), so the time and memory of this step do not depend
on the model's width; the weights are added later, from the file that stores them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from onnxlens.export.families import Family
from onnxlens.export.families.parts import Decoder, KeyValue
from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._graphs.names import GRADIENT, cache_inputs, cache_outputs, cache_shape
from onnxlens.runtime._process_wide import ProcessWide

__all__ = [
    "OPSET",
    "declare_shapes",
    "hooks_graph",
    "name_values",
    "plain_graph",
    "quiet",
    "simplify",
    "strip",
]

# The first opset with a Gelu operator: one node in place of eight, in both of its forms.
OPSET = 20

# The version of the file format that came with this opset, and all that the graphs need. ONNX Runtime 1.17, the first
# that has the opset, refuses a newer one.
_IR_VERSION = 9

# Sizes of the example that is traced. They are large primes, so that no size of a model is a multiple: the tracer would
# generalise equations that hold by chance.
_BATCH, _NEW, _PAST = 7901, 7907, 7919

_DIMENSION = {"batch": "batch_size", "pos": "sequence_length", "query_pos": "sequence_length"}


class _Traced(nn.Module):
    """The model with its hook points as outputs, in a form that torch.export can trace."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past_key_values: list[KeyValue]
    ) -> tuple[Tensor, list[KeyValue], dict[str, Tensor]]:
        values: dict[str, Tensor] = {}

        def tap(name: str, value: Tensor) -> Tensor:
            values[name] = value
            return value

        logits, present = self.model(input_ids, attention_mask, position_ids, past_key_values, tap)
        return logits, present, values


def hooks_graph(family: Family) -> ir.Model:
    """Traces the model and names everything in the graph.

    Returns:
        A model whose weights are initializers with Hugging Face's names and without data. Inputs are `input_ids`,
        `attention_mask`, `position_ids` and `past_key_values.N.key` / `.value`; outputs are `logits`,
        `present.N.key` / `.value` and every hook point but the ones computed on request.
    """
    model = _trace(family)
    graph, described = model.graph, family.description()
    points = [point.name for point in described.hook_points if not point.on_request]
    simplify(model, family)
    _state_sizes(graph)
    passes.RemoveUnusedNodesPass()(model)
    name_values(graph.inputs, ["input_ids", "attention_mask", "position_ids", *cache_inputs(family.cfg)])
    name_values(graph.outputs, ["logits", *cache_outputs(family.cfg), *points])
    declare_shapes(graph, described, keys="past_sequence_length + sequence_length")
    _put_on_path(graph, family.cfg.n_layers)
    strip(model)
    return model


def plain_graph(model: ir.Model) -> ir.Model:
    """Returns a copy of the hooks graph that outputs only logits and the cache."""
    plain = model.clone()
    graph = plain.graph
    kept = [value for value in graph.outputs if value.name == "logits" or str(value.name).startswith("present.")]
    graph.outputs.clear()
    graph.outputs.extend(kept)
    passes.IdentityEliminationPass()(plain)
    passes.RemoveUnusedNodesPass()(plain)
    return plain


def _trace(family: Family) -> ir.Model:
    layers = family.cfg.n_layers
    with torch.device("meta"):
        model = _Traced(family.module()).eval()
        cached = torch.empty(cache_shape(family.cfg, _BATCH, _PAST))
        ids = torch.zeros(_BATCH, _NEW, dtype=torch.int64)
        mask = torch.ones(_BATCH, _PAST + _NEW, dtype=torch.int64)
    any_size = torch.export.Dim.DYNAMIC
    rows = {0: any_size, 1: any_size}
    cache_sizes = {0: any_size, 2: any_size}
    with quiet():
        program = torch.export.export(
            model,
            (ids, mask, ids.clone(), [(cached.clone(), cached.clone()) for _ in range(layers)]),
            dynamic_shapes=(rows, rows, rows, [(cache_sizes, cache_sizes)] * layers),
        )
        # `simplify` optimises: the exporter's own optimisation would need the weights' data.
        exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False)
    assert exported is not None
    return exported.model


def name_values(values: Iterable[ir.Value], names: list[str]) -> None:
    """Names values in order."""
    for value, name in zip(values, names, strict=True):
        value.name = name


def declare_shapes(graph: ir.Graph, model: ModelDescription, *, keys: str) -> None:
    """Declares the shape of every input and output, with the dimension names that other runtimes expect.

    Args:
        graph: its inputs and outputs have their final names; a gradient has the shape of the value that it belongs to.
        model: its description.
        keys: the name of the dimension of past and new positions together.
    """
    _, heads, _, width = cache_shape(model.cfg, _BATCH, _PAST)
    shapes: dict[str, list[str | int]] = {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", keys],
        "position_ids": ["batch_size", "sequence_length"],
        "past_key_values": ["batch_size", heads, "past_sequence_length", width],
        "present": ["batch_size", heads, keys, width],
        "logits": ["batch_size", "sequence_length", model.cfg.d_vocab],
    }
    dimension = {**_DIMENSION, "key_pos": keys}
    for point in model.hook_points:
        sizes = point.shape(model.cfg, _BATCH, _NEW, _PAST)
        shapes[point.name] = [dimension.get(axis, size) for axis, size in zip(point.axes, sizes, strict=True)]
    declared = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for value in (*graph.inputs, *graph.outputs):
        name = str(value.name).removeprefix(GRADIENT)
        value.shape = ir.Shape(shapes[name] if name in shapes else shapes[name.split(".")[0]])
    for node in graph:
        for value in node.outputs:
            if id(value) not in declared:
                value.shape = None  # the tracer's symbols are meaningless to readers


def simplify(model: ir.Model, family: Family) -> None:
    """Folds constants and removes unused nodes, with the weights treated as inputs."""
    graph = model.graph
    weights = list(graph.initializers.values())
    graph.initializers.clear()
    for weight in weights:
        weight.const_value = None
    graph.inputs.extend(weights)
    with quiet():
        optimizer.optimize(model, onnx_shape_inference=False)
    for weight in weights:
        graph.inputs.remove(weight)
        weight.name = str(weight.name).removeprefix("model.")
        if weight.name == family.UNEMBEDDING:
            weight.name = family.head  # one tensor if they are tied, under its name in checkpoints
    for weight in weights:
        if weight.uses():
            graph.initializers.add(weight)


def _state_sizes(graph: ir.Graph) -> None:
    """Makes reshapes keep the present sizes of batch and text, instead of computing them from the inputs.

    So a graph can be cut in two, and rows can join a pass in the middle of it.
    """
    for node in list(graph):
        source, target = (node.inputs[0], node.outputs[0]) if node.op_type == "Reshape" else (None, None)
        if source is None or target is None or source.shape is None or target.shape is None:
            continue
        sizes = [
            size if isinstance(size, int) else 0 if place < len(source.shape) and source.shape[place] == size else -1
            for place, size in enumerate(target.shape)
        ]
        if sizes.count(-1) <= 1 and len(sizes) > 1:
            value = ir.Value(name=f"{target.name}.shape", const_value=ir.tensor(sizes, ir.DataType.INT64))
            graph.initializers.add(value)
            node.replace_input_with(1, value)
            node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)


def _put_on_path(graph: ir.Graph, layers: int) -> None:
    """Makes every block read its `hook_resid_pre`, which the tracer left as a copy beside the path."""
    outputs = {value.name: value for value in graph.outputs}
    for layer in range(layers):
        pre = outputs[f"blocks.{layer}.hook_resid_pre"]
        copy = pre.producer()
        source = copy.inputs[0] if copy is not None and copy.op_type == "Identity" else None
        if source is None:  # it is a sum, such as that of the embeddings
            continue
        for node, index in source.uses():
            if node is not copy:
                node.replace_input_with(index, pre)
    graph.sort()


def strip(model: ir.Model) -> None:
    """Removes the tracer's metadata, such as stack traces, which name folders of the exporting machine.

    It also states the producer and the version of the format.
    """
    passes.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.producer_name, model.producer_version = "onnxlens", version("onnxlens")
    model.ir_version = _IR_VERSION


@contextmanager
def _silenced() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


# Hides the exporter's own warnings and log lines, which are not about this model.
quiet = ProcessWide(_silenced)
