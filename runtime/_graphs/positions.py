"""Positions: those that are read, and the last one, whose logits predict."""

from __future__ import annotations

from onnxlens.runtime._graphs.graph import Graph
from onnxlens.runtime._graphs.names import FINAL, POSITIONS

__all__ = ["cut_to_last", "pick_positions"]


def pick_positions(graph: Graph, name: str) -> str:
    """Takes the listed positions of a value; returns the name of the result."""
    graph.add_input(POSITIONS, 1, "INT64")
    picked = f"{name}.picked"
    graph.add("Gather", [name, POSITIONS], picked, axis=graph.model.points[name].position_axis)
    graph.check(picked)
    return picked


def cut_to_last(graph: Graph) -> None:
    """Computes the logits at the last position only."""
    graph.replace_inputs({FINAL: "last.output"})
    graph.add_slice(FINAL, "last.output", -1, 2**31 - 1, 1, "last")
    graph.check("last.output")
