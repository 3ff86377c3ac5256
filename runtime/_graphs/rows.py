"""Rows of a batch: which rows of the KV cache they continue, and rows that join a pass at a later block."""

from __future__ import annotations

from onnxlens.runtime._graphs.graph import Graph
from onnxlens.runtime._graphs.names import ROWS, cache_inputs, join_input

__all__ = ["join_rows", "pick_rows", "share_positions"]


def share_positions(graph: Graph) -> None:
    """Uses the positions of the first row for all rows; rows that join have the same ones."""
    graph.replace_inputs({"position_ids": "position_ids.first"})
    graph.add_slice("position_ids", "position_ids.first", 0, 1, 0, "positions")
    graph.check("position_ids.first")


def join_rows(graph: Graph, name: str) -> None:
    """Appends further rows to those of a stream."""
    begun = f"{name}.begun"
    graph.rename_output(name, begun)
    graph.add_input(join_input(name), graph.rank(name))
    graph.add("Concat", [begun, join_input(name)], name, axis=0)
    graph.check(name, begun)


def pick_rows(graph: Graph, *, some_later: bool) -> None:
    """Takes the listed rows of the KV cache; where rows join later, only those present at each block."""
    picked = {name: f"{name}.picked" for name in cache_inputs(graph.model.cfg)}
    graph.replace_inputs(picked)
    graph.add_input(ROWS, 1, "INT64")
    for name, new in picked.items():
        rows = ROWS
        if some_later:
            rows = f"{name}.rows"
            stream = f"blocks.{name.split('.')[1]}.hook_resid_pre"
            graph.add("Shape", [stream], f"{name}.count", start=0, end=1)
            graph.add("Slice", [ROWS, graph.constant("rows.start", [0]), f"{name}.count"], rows)
        graph.add("Gather", [name, rows], new, axis=0)
    graph.check(*picked.values())
