"""One graph that reads and changes hook points by its inputs, for where a session for each request costs too much.

A browser runs one session at a time and shares no weights between sessions. So the changes of the explorer are inputs
there: for each hook point that can be changed, which elements (`where`), what they are multiplied by (`factor`), and
what is added (`value`).
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._graphs.graph import Graph, Segment, needed
from onnxlens.runtime._graphs.names import EditKind
from onnxlens.runtime._graphs.request import Request, compile_request

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["changeable", "editable_graph", "lens_graph"]

_CHANGED = (
    "hook_resid_pre",
    "attn.hook_pattern",
    "attn.hook_z",
    "hook_attn_out",
    "mlp.hook_post",
    "hook_mlp_out",
)
_KIND: EditKind = "affine"


def changeable(model: ModelDescription) -> tuple[str, ...]:
    """The hook points that the inputs of `editable_graph` change, in the order of `edit_inputs`."""
    layers = model.cfg.n_layers
    names = [f"blocks.{layer}.{kind}" for layer in range(layers) for kind in _CHANGED]
    return tuple(name for name in [*names, final_state(model)] if name in model.points)


def final_state(model: ModelDescription) -> str:
    """The residual stream that the final normalisation reads."""
    return model.normalizations["ln_final"].reads


def editable_graph(portable: ModelProto, model: ModelDescription) -> ModelProto:
    """Makes the graph of a model up to its final residual stream, with inputs that change hook points.

    Args:
        portable: the graph `model_hooks.onnx` of a bundle.
        model: the model that it is a graph of.

    Returns:
        A graph with the inputs of the bundle's graphs and those of `edit_inputs` for each of `changeable`; its outputs
        are all hook points up to the final residual stream that are not computed on request, and the extended KV cache.
        Where `where` is false, no bit of any value differs from those of the portable graph.
    """
    final = final_state(model)
    names = list(model.points)
    reads = [name for name in names[: names.index(final) + 1] if not model.points[name].on_request]
    edits = tuple((name, _KIND) for name in changeable(model))
    (segment,) = compile_request(portable, Request(tuple(reads), "none", edits), model)
    return _declared(segment, portable)


def lens_graph(portable: ModelProto, model: ModelDescription) -> ModelProto:
    """Makes the graph from states of the residual stream, [B, P, D], to logits: final normalisation and unembedding.

    Its outputs are the logits and the hook points of the final normalisation.
    """
    graph, final = Graph(portable, model), final_state(model)
    outputs = [*(name for name in model.points if name.startswith("ln_final.")), "logits"]
    nodes = needed(graph.nodes, outputs, {final})
    return _declared(graph.segment(nodes, outputs, (), {final: 3}), portable)


def _declared(segment: Segment, portable: ModelProto) -> ModelProto:
    """The graph of a segment as the ONNX standard asks for it: nodes in order, and outputs with their shapes."""
    graph = segment.model.graph
    nodes = list(graph.node)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output}
    order: TopologicalSorter[int] = TopologicalSorter()
    for index, node in enumerate(nodes):
        order.add(index, *(producer[name] for name in node.input if name in producer))
    sorted_nodes = [nodes[index] for index in order.static_order()]
    del graph.node[:]
    graph.node.extend(sorted_nodes)
    known = {value.name: value for value in portable.graph.output}
    for value in graph.output:
        if value.name in known:
            value.CopyFrom(known[value.name])
    return segment.model
