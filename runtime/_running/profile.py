"""How long each value of a pass takes: ONNX Runtime's own times of the nodes of the graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

    from onnxlens.runtime._running.compiled import RequestCache

__all__ = ["profiled"]


def profiled(
    requests: RequestCache,
    feeds: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    hook_names: Sequence[str],
    times: int,
) -> dict[str, float]:
    """Measures the pass that computes the last logits, on the CPU, in a session of its own.

    The first pass warms up, and is not counted.

    Args:
        requests: what opens the session.
        feeds: its inputs.
        shapes: the shapes of its results.
        hook_names: the hook points, in the order of computation.
        times: how many passes to measure.

    Returns:
        Seconds in the fastest pass, by the value that a node computes. This is the first of the hook points and outputs
        that need it.
    """
    with TemporaryDirectory() as folder:
        segment, graph = requests.open_profiled(Path(folder) / "profile")
        for _ in range(times + 1):
            segment.run(feeds, {name: np.empty(shape, np.float32) for name, shape in shapes.items()})
        events = json.loads(Path(segment.session.get().end_profiling()).read_text(encoding="utf-8"))
    owners = _owners(graph, hook_names)
    passes = _passes([event for event in events if event.get("cat") == "Node"])[1:]
    fastest = min(passes, key=lambda nodes: sum(node["dur"] for node in nodes))
    seconds: dict[str, float] = {}
    for node in fastest:
        owner = owners[node["name"].removesuffix("_kernel_time")]
        seconds[owner] = seconds.get(owner, 0.0) + node["dur"] / 1e6
    return seconds


def _passes(events: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """The events of kernels, pass by pass: a pass ends where its first node comes again."""
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    passes: list[list[Any]] = []
    for event in sorted(kernels, key=lambda event: event["ts"]):
        place = event["args"]["node_index"]
        if not passes or place == passes[-1][0]["args"]["node_index"]:
            passes.append([])
        passes[-1].append(event)
    return passes


def _owners(graph: ModelProto, hook_names: Sequence[str]) -> dict[str, str]:
    """By a node's name, the first of the hook points and outputs that need it."""
    outputs = [value.name for value in graph.graph.output]
    order = {name: place for place, name in enumerate([*hook_names, *outputs])}
    needed: dict[str, int] = {}  # by a value's name, the place in that order
    owners: dict[str, str] = {}
    names = list(order)
    for index, node in reversed(list(enumerate(graph.graph.node))):  # which are in topological order
        own = [order[name] for name in node.output if name in order]
        places = own or [needed[name] for name in node.output if name in needed]
        first = min(places, default=len(names) - 1)
        owners[node.name or f"{node.op_type}_{index}"] = names[first]  # as ONNX Runtime names a node without a name
        for name in node.input:
            needed[name] = min(first, needed.get(name, first))
    return owners
