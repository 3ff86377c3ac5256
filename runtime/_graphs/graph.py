"""A copy of the prepared graph while passes change it for a request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxlens.runtime._bundle.description import ModelDescription

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

__all__ = ["Graph", "Segment", "needed"]


@dataclass(frozen=True)
class Segment:
    """A part of a pass between two calls of Python functions; most passes have one.

    Attributes:
        model: the graph.
        inputs: its inputs: those of the model, of edits, and values from earlier segments.
        outputs: what it computes of the request, and what later segments need.
        calls: the hook points at which functions are called after it, on its outputs `uncalled(name)`.
    """

    model: ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: tuple[str, ...]


class Graph:
    """The nodes of a prepared graph, to which passes add their own.

    Every value has one producer, a node or an input; `check` makes sure of it for the values that a pass has rewritten.

    Args:
        prepared: the graph that `prepare` made; it is not changed.
        model: the model that it is a graph of.

    Attributes:
        prepared: the same.
        model: the same.
        nodes: the nodes, in any order.
        producer: for each value the node that computes it.
        inputs: added inputs with their element type and rank.
        bools: values that are not float.
    """

    def __init__(self, prepared: ModelProto, model: ModelDescription) -> None:
        self.prepared, self.model = prepared, model
        self.nodes = [_copy(node) for node in prepared.graph.node]
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.inputs: dict[str, tuple[int, int]] = {}
        self.bools: set[str] = set()
        self._constants: list[TensorProto] = []

    def rank(self, name: str) -> int:
        """How many axes a hook point has."""
        return len(self.model.points[name].axes)

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Adds a node with one output."""
        from onnx import helper

        node = helper.make_node(operator, inputs, [output], **attributes)
        self.nodes.append(node)
        self.producer[output] = node

    def add_input(self, name: str, rank: int, kind: str = "FLOAT") -> None:
        """Adds an input, of floats by default."""
        from onnx import TensorProto

        self.inputs[name] = (getattr(TensorProto, kind), rank)

    def constant(self, name: str, values: list[int]) -> str:
        """Adds whole numbers as a constant, unless they are there; returns their name."""
        from onnx import TensorProto, helper

        if all(tensor.name != name for tensor in self._constants):
            self._constants.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def add_slice(self, name: str, output: str, start: int, end: int, axis: int, constants: str) -> None:
        """Adds a slice of a value along one axis; `constants` begins the names of its bounds."""
        bounds = {"start": start, "end": end, "axis": axis}
        numbers = [self.constant(f"{constants}.{key}", [number]) for key, number in bounds.items()]
        self.add("Slice", [name, *numbers], output)

    def add_weight(self, weight: str, name: str) -> None:
        """Takes a weight from the stored tensor that it lies in."""
        view, value = self.model.weights[weight], self.model.tensor(weight)
        steps: list[tuple[str, list[str], dict[str, Any]]] = []
        if view.slice is not None:
            axis, *bounds = view.slice
            numbers = {"start": bounds[0], "end": bounds[1], "axis": axis}
            inputs = [self.constant(f"{name}.{key}", [number]) for key, number in numbers.items()]
            steps.append(("Slice", inputs, {}))
        if view.reshape is not None:
            steps.append(("Reshape", [self.constant(f"{name}.shape", list(view.reshape))], {}))
        if view.transpose is not None:
            steps.append(("Transpose", [], {"perm": list(view.transpose)}))
        for number, (kind, inputs, attributes) in enumerate(steps or [("Identity", [], {})], start=1):
            made = name if number >= len(steps) else f"{name}.{number}"
            self.add(kind, [value, *inputs], made, **attributes)
            value = made

    def rename_output(self, name: str, new: str) -> None:
        """Renames a computed value; nodes that read the old name then need another producer for it."""
        node = self.producer.pop(name)
        node.output[:] = [new if output == name else output for output in node.output]
        self.producer[new] = node

    def replace_inputs(self, new: dict[str, str]) -> None:
        """Lets all present nodes read other values."""
        for node in self.nodes:
            node.input[:] = [new.get(name, name) for name in node.input]

    def check(self, *names: str) -> None:
        """Checks that each of these values is computed once, by a node of this graph.

        Raises:
            AssertionError: one is not; the pass that rewrote it is wrong.
        """
        for name in names:
            producers = [node for node in self.nodes if name in node.output]
            assert len(producers) == 1 and self.producer.get(name) is producers[0], f"{name} has no single producer"

    def segment(
        self, nodes: list[NodeProto], outputs: list[str], calls: tuple[str, ...], floats: dict[str, int] | None = None
    ) -> Segment:
        """A graph of some of the nodes.

        Args:
            nodes: in an order in which they can be computed.
            outputs: what it computes.
            calls: see `Segment`.
            floats: further inputs, of floats, with their ranks.
        """
        from onnx import ModelProto, TensorProto, helper

        model = ModelProto()
        model.ir_version = self.prepared.ir_version
        model.opset_import.extend(self.prepared.opset_import)
        graph: GraphProto = model.graph
        graph.name = "request"
        graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input if name} | set(outputs)
        computed = {name for node in nodes for name in node.output}
        graph.initializer.extend(t for t in (*self.prepared.graph.initializer, *self._constants) if t.name in used)
        inputs = [value for value in self.prepared.graph.input if value.name in used]
        known = {value.name for value in (*inputs, *graph.initializer)}
        kinds = dict.fromkeys(self.bools, TensorProto.BOOL)
        ranks = {**self.inputs, **{name: (TensorProto.FLOAT, rank) for name, rank in (floats or {}).items()}}
        for name in sorted(used - computed - known):  # of edits, and values of earlier segments
            kind, rank = ranks.get(name, (kinds.get(name, TensorProto.FLOAT), None))
            shape = None if rank is None else [None] * rank
            inputs.append(helper.make_tensor_value_info(name, kind, shape))
        graph.input.extend(inputs)
        graph.output.extend(
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in outputs
        )
        return Segment(model, tuple(value.name for value in inputs), tuple(outputs), calls)


def needed(nodes: list[NodeProto], outputs: Sequence[str], known: Collection[str] = ()) -> list[NodeProto]:
    """The nodes on which the outputs depend, in order; known values need no node."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name not in known}
    found: set[int] = set()
    waiting = list(outputs)
    while waiting:
        index = producer.get(waiting.pop())
        if index is not None and index not in found:
            found.add(index)
            waiting += nodes[index].input
    return [node for index, node in enumerate(nodes) if index in found]


def _copy(node: NodeProto) -> NodeProto:
    copied = type(node)()
    copied.CopyFrom(node)
    return copied
