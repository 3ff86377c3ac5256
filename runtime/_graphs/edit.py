"""Edits: everything that reads a hook point reads the edited value."""

from __future__ import annotations

from collections.abc import Sequence

from onnxlens.runtime._graphs.graph import Graph
from onnxlens.runtime._graphs.names import EditKind, edit_inputs, uncalled

__all__ = ["add_edits"]


def add_edits(graph: Graph, edits: Sequence[tuple[str, EditKind]], calls: Sequence[str]) -> None:
    """Inserts edits in order, and after them a place where functions can be called.

    Args:
        graph: the graph.
        edits: hook points, and how each is changed.
        calls: hook points at which functions will be called, after the edits there.
    """
    # Hook points that nothing has changed yet, with the names of their values.
    unchanged = {name: uncalled(name) for name in calls}
    for index, (name, kind) in enumerate(edits):
        _add_edit(graph, name, kind, index, unchanged)
    for name in calls:
        graph.rename_output(name, uncalled(name))
        graph.check(uncalled(name))


def _add_edit(graph: Graph, name: str, kind: EditKind, index: int, unchanged: dict[str, str]) -> None:
    unedited = f"{name}.{index}"
    graph.rename_output(name, unedited)
    if unchanged.get(name, uncalled(name)) == uncalled(name):
        unchanged[name] = unedited
    where, value, *factor = edit_inputs(index, kind)
    graph.add_input(where, graph.rank(name), "BOOL")
    for one in (value, *factor):
        graph.add_input(one, graph.rank(name))
    if kind == "affine":
        graph.add("Mul", [unedited, *factor], f"{unedited}.scaled")
        graph.add("Add", [f"{unedited}.scaled", value], f"{unedited}.changed")
        value = f"{unedited}.changed"
    if "key_pos" in graph.model.points[name].axes:
        graph.add("And", [where, _add_seen(graph, name, unchanged)], f"{unedited}.where")
        where = f"{unedited}.where"
        graph.bools.add(where)
    graph.add("Where", [where, value, unedited], name)
    graph.check(name, unedited)


def _add_seen(graph: Graph, name: str, unchanged: dict[str, str]) -> str:
    """Adds the mask of the keys that each query can attend to: neither later ones nor padding."""
    scores = f"{name.rpartition('.')[0]}.hook_attn_scores"
    seen = f"{scores}.seen"
    if seen not in graph.producer:
        masked = f"{scores}.masked"
        graph.add("IsInf", [unchanged.get(scores, scores)], masked)
        graph.add("Not", [masked], seen)
        graph.bools |= {masked, seen}
    return seen
