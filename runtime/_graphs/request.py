"""A request, and how it is compiled: cut from the prepared graph, with its changes spliced in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._graphs.edit import add_edits
from onnxlens.runtime._graphs.feed import feed
from onnxlens.runtime._graphs.graph import Graph, Segment
from onnxlens.runtime._graphs.heads import add_head_results
from onnxlens.runtime._graphs.names import FINAL, EditKind, cache_outputs
from onnxlens.runtime._graphs.positions import cut_to_last, pick_positions
from onnxlens.runtime._graphs.rows import join_rows, pick_rows, share_positions
from onnxlens.runtime._graphs.segments import cut

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["PLAIN", "Logits", "Request", "compile_request"]

Logits = Literal["last", "all", "none"]


@dataclass(frozen=True)
class Request:
    """What a pass shall compute. Equal requests share a session; positions, heads and values are inputs.

    Attributes:
        reads: hook points to read, in the order of computation.
        logits: at the last position only, at all, or not at all.
        edits: hook points that are changed inside the graph, and how, in the order in which that happens: `set`
            puts a value in place of some elements, `affine` multiplies and adds.
        calls: hook points that Python functions may change; the graph is cut there.
        feeds: hook points whose values are inputs instead of being computed.
        joins: hook points of the residual stream at which further rows join the pass.
        some_positions: whether only the positions that the input `read.positions` lists are read.
        some_rows: whether the pass continues those rows of the KV cache that the input `past.rows` lists.
        keys_and_values: whether the extended KV cache is wanted.
    """

    reads: tuple[str, ...] = ()
    logits: Logits = "last"
    edits: tuple[tuple[str, EditKind], ...] = ()
    calls: tuple[str, ...] = ()
    feeds: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    some_positions: bool = False
    some_rows: bool = False
    keys_and_values: bool = True


PLAIN = Request()


def compile_request(prepared: ModelProto, request: Request, model: ModelDescription) -> list[Segment]:
    """Cuts a prepared graph down to what a request needs, one pass after the other.

    Args:
        prepared: the graph that `prepare` made; it is not changed.
        request: what to compute.
        model: the model that it is a graph of.

    Returns:
        The segments, to be run one after the other; together they have the outputs `logits` where only the last ones
        are wanted, and what the unembedding reads (`FINAL`) where all are, `present.N.key` / `.value`, and the hook
        points read, as far as the request wants them.
    """
    graph = Graph(prepared, model)
    for name in request.feeds:
        feed(graph, name)
    if request.joins:
        share_positions(graph)
    for name in request.joins:
        join_rows(graph, name)
    # The results of heads are computed from what comes before them, so their changes go in first.
    changed = {name for name, _ in request.edits} | set(request.calls)
    for name in sorted({*request.reads, *changed}):
        if model.points[name].on_request:
            add_head_results(graph, name, changed=name in changed)
    add_edits(graph, request.edits, request.calls)
    if request.some_rows:
        pick_rows(graph, some_later=bool(request.joins))
    outputs = list(request.reads)
    if request.some_positions:
        outputs = [pick_positions(graph, name) for name in outputs]
    if request.logits == "all":
        outputs.insert(0, FINAL)
    if request.logits == "last":
        outputs.insert(0, "logits")
        cut_to_last(graph)
    if request.keys_and_values:
        outputs += cache_outputs(model.cfg)
    return cut(graph, outputs, request.calls)
