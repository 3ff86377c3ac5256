"""Cuts a graph where Python functions are called, as rarely as their order allows."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from onnxlens.runtime._graphs.graph import Graph, Segment, needed
from onnxlens.runtime._graphs.names import uncalled

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["cut"]


def cut(graph: Graph, outputs: Sequence[str], calls: Sequence[str]) -> list[Segment]:
    """Cuts a graph into segments, to be run one after the other.

    Args:
        graph: the graph.
        outputs: what they compute together.
        calls: hook points at which functions are called, on their values `uncalled(name)`.
    """
    raw = {name: uncalled(name) for name in calls}
    wanted = [name for name in outputs if name not in raw]  # functions return the others
    nodes = needed(graph.nodes, [*wanted, *raw.values()])
    level = _levels(graph, nodes, raw)
    last_use: dict[str, int] = {}
    for node in nodes:
        for name in node.input:
            last_use[name] = max(last_use.get(name, 0), level.get(node.output[0], 0))
    computed = [name for node in nodes for name in node.output if name in level]
    found = []
    for index in range(1 + max(level.get(name, 0) for name in (*wanted, *raw.values()))):
        here = tuple(name for name in raw if level[raw[name]] == index)
        results = [name for name in wanted if level.get(name, 0) == index]
        results += [raw[name] for name in here]
        results += [name for name in computed if level[name] == index < last_use.get(name, 0)]
        results = list(dict.fromkeys(results))
        known = {name for name in computed if level[name] < index} | set(raw)
        found.append(graph.segment(needed(nodes, results, known), results, here))
    return found


def _levels(graph: Graph, nodes: list[NodeProto], raw: dict[str, str]) -> dict[str, int]:
    """The segment in which each value is computed; those that depend on no activation are computed where needed."""
    sorter: TopologicalSorter[str] = TopologicalSorter({name: [value] for name, value in raw.items()})
    producer = {name: node for node in nodes for name in node.output}
    for name, node in producer.items():
        sorter.add(name, *node.input)
    activations = graph.model.points.keys() | set(raw.values())
    level: dict[str, int] = {}
    for name in sorter.static_order():
        if name in raw:
            level[name] = level[raw[name]] + 1
        elif name in producer:
            levels = [level[value] for value in producer[name].input if value in level]
            if levels or name in activations:
                level[name] = max(levels, default=0)
        elif name in activations:  # fed
            level[name] = 0
    return level
