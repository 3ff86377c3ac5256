"""Compiles a request: the prepared graph, less all that the request does not need, with its changes spliced in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, Literal

from onnxlens.runtime.description import ModelDescription
from onnxlens.runtime.kv_cache import cache_inputs, cache_outputs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

__all__ = [
    "EMBEDDED",
    "FINAL",
    "PLAIN",
    "POSITIONS",
    "ROWS",
    "UNEMBEDDING_PART",
    "EditKind",
    "Logits",
    "Request",
    "Segment",
    "before",
    "compile_product",
    "compile_request",
    "compile_unembedding",
    "edit_inputs",
    "fed",
    "joining",
    "needed",
]

Logits = Literal["last", "all", "none"]
EditKind = Literal["set", "affine"]

# The input with the rows of W_E, which are looked up by token id outside of the graph.
EMBEDDED = "embedded"

# The value that the unembedding reads; kept alive so that a request can cut it down to the last position.
FINAL = "ln_final.output"

# The input with some rows of W_U's transpose, where the logits of those tokens alone are computed.
UNEMBEDDING_PART = "unembed.part"

# The input that says which positions are read, where not all are.
POSITIONS = "read.positions"

# The input that says which rows of the KV cache the rows of a pass continue, where they are not the same.
ROWS = "past.rows"

_FIRST = {"start": 0, "end": 1, "axis": 0}  # of a Slice that leaves the first row
_LAST = {"start": -1, "end": 2**31 - 1, "axis": 1}  # of a Slice that leaves the last position


@dataclass(frozen=True)
class Request:
    """What a pass shall compute. Equal requests share a session; which positions, heads or values are meant is input.

    Attributes:
        reads: hook points to read, in the order of computation.
        logits: at the last position only, at all, or not at all.
        edits: hook points that are changed inside the graph, and how, in the order in which that happens: `set`
            puts a value in place of some elements, `affine` multiplies and adds.
        calls: hook points that Python functions may change; the graph is cut there.
        feeds: hook points whose values are given, in place of being computed.
        joins: hook points of the residual stream at which more rows join the pass.
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


@dataclass(frozen=True)
class Segment:
    """A part of a pass between two calls of Python functions; most passes have one.

    Attributes:
        model: the graph.
        inputs: its inputs: those of the model, of edits, and values from earlier segments.
        outputs: what it computes of the request, and what later segments need.
        calls: the hook points at which functions are called after it, on its outputs `before(name)`.
    """

    model: ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: tuple[str, ...]


def before(name: str) -> str:
    """The name of a hook point's value before Python functions have seen it."""
    return f"{name}.before"


def fed(name: str) -> str:
    """The name of the input with a hook point's value."""
    return f"{name}.fed"


def joining(name: str) -> str:
    """The name of the input with the rows that join at a hook point."""
    return f"{name}.joining"


def edit_inputs(index: int, kind: EditKind) -> tuple[str, ...]:
    """Names of an edit's inputs: which elements, the value, and for `affine` the factor."""
    parts = ("where", "value") if kind == "set" else ("where", "value", "factor")
    return tuple(f"edit.{index}.{part}" for part in parts)


def compile_request(prepared: ModelProto, request: Request, model: ModelDescription) -> list[Segment]:
    """Cuts a prepared graph down to what a request needs.

    Args:
        prepared: the graph that `runtime.prepare` made; it is not changed.
        request: what to compute.
        model: the model that it is a graph of.

    Returns:
        The segments, to be run one after the other; together they have the outputs `logits` where only the last ones
        are wanted, and what the unembedding reads (`FINAL`) where all are, `present.N.key` / `.value`, and the hook
        points read, as far as the request wants them.
    """
    graph = _Graph(prepared, model)
    for name in request.feeds:
        graph.feed(name)
    if request.joins:
        graph.share_positions()
    for name in request.joins:
        graph.join(name)
    # The results of heads are computed from what comes before them, so their changes go in first.
    changed = {name for name, _ in request.edits} | set(request.calls)
    for name in sorted({*request.reads, *changed}):
        if model.points[name].on_request:
            graph.add_result(name, changed=name in changed)
    graph.note_calls(request.calls)
    for index, (name, kind) in enumerate(request.edits):
        graph.edit(name, kind, index)
    for name in request.calls:
        graph.rename_output(name, before(name))
    if request.some_rows:
        graph.pick_rows(some_later=bool(request.joins))
    outputs = list(request.reads)
    if request.some_positions:
        outputs = [graph.pick_positions(name) for name in outputs]
    if request.logits == "all":
        outputs.insert(0, FINAL)
    if request.logits == "last":
        outputs.insert(0, "logits")
        graph.cut_to_last()
    if request.keys_and_values:
        outputs += cache_outputs(model.cfg)
    return graph.segments(outputs, request.calls)


def compile_unembedding(prepared: ModelProto, model: ModelDescription) -> Segment:
    """Cuts what computes `logits` from `FINAL` out of a prepared graph: the same for every request."""
    return _Graph(prepared, model).end()


def compile_product(prepared: ModelProto) -> Segment:
    """A graph for some logits [N, T]: the product of `FINAL` [N, D] with a part of W_U's transpose, [T, D]."""
    from onnx import TensorProto, helper

    node = helper.make_node("Gemm", [FINAL, UNEMBEDDING_PART], ["logits"], transB=1)
    given, (out,) = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in names]
        for names in (node.input, node.output)
    )
    graph = helper.make_graph([node], "product", given, [out])
    model = helper.make_model(graph, ir_version=prepared.ir_version, opset_imports=list(prepared.opset_import))
    return Segment(model, (FINAL, UNEMBEDDING_PART), ("logits",), ())


class _Graph:
    """A copy of the prepared graph while it is being changed."""

    def __init__(self, prepared: ModelProto, model: ModelDescription) -> None:
        self._prepared, self._model, self._config = prepared, model, model.cfg
        self._nodes = [_copy(node) for node in prepared.graph.node]
        self._producer = {name: node for node in self._nodes for name in node.output}
        self._constants: list[TensorProto] = []
        self._inputs: dict[str, tuple[int, int]] = {}  # added: element type and rank
        self._points = model.points
        self._unchanged: dict[str, str] = {}  # hook points with where their values are that nothing has changed
        self._bools: set[str] = set()  # values that are not float

    def note_calls(self, calls: Sequence[str]) -> None:
        """Tells at which hook points functions will be called, after the edits there."""
        self._unchanged |= {name: before(name) for name in calls}

    def feed(self, name: str) -> None:
        """Takes a hook point's value from an input."""
        from onnx import TensorProto

        self._nodes.remove(self._producer.pop(name))
        self._inputs[fed(name)] = (TensorProto.FLOAT, len(self._points[name].axes))
        self._add("Identity", [fed(name)], name)

    def share_positions(self) -> None:
        """Takes the positions of the first row for all rows, which those that join have, too."""
        bounds = [self._constant(f"positions.{key}", [value]) for key, value in _FIRST.items()]
        for node in self._nodes:
            node.input[:] = ["position_ids.first" if name == "position_ids" else name for name in node.input]
        self._add("Slice", ["position_ids", *bounds], "position_ids.first")

    def join(self, name: str) -> None:
        """Puts more rows behind those of a stream."""
        from onnx import TensorProto

        begun = f"{name}.begun"
        self.rename_output(name, begun)
        self._inputs[joining(name)] = (TensorProto.FLOAT, len(self._points[name].axes))
        self._add("Concat", [begun, joining(name)], name, axis=0)

    def add_result(self, name: str, *, changed: bool) -> None:
        """Computes a product head by head: [B, P, H, d] and [H, d, D] to [B, P, H, D].

        Where it will be changed, the sum of the differences over the heads is added to what attention gives, rather
        than the sum of the heads put in its place: where nothing is changed, that is 0, and no bit differs.
        """
        product = self._points[name].product
        assert product is not None  # as it is computed on request
        self._add_weight(product.weight, f"{name}.weight")  # [H, d, D]
        self._add("Transpose", [product.activation], f"{name}.activation", perm=[0, 2, 1, 3])  # [B, H, P, d]
        self._add("MatMul", [f"{name}.activation", f"{name}.weight"], f"{name}.heads")  # [B, H, P, D]
        self._add("Transpose", [f"{name}.heads"], name, perm=[0, 2, 1, 3])  # [B, P, H, D]
        if changed:
            out = product.added_to
            plain, original = f"{out}.plain", f"{name}.original"
            self.rename_output(out, plain)
            self.rename_output(name, original)
            self._add("Identity", [original], name)
            self._add("Sub", [name, original], f"{name}.difference")  # [B, P, H, D]
            axis = self._constant("result.axis", [2])
            self._add("ReduceSum", [f"{name}.difference", axis], f"{name}.sum", keepdims=0)  # [B, P, D]
            self._add("Add", [plain, f"{name}.sum"], out)

    def _add_weight(self, weight: str, name: str) -> None:
        """Takes a weight from the stored tensor that it lies in."""
        view, value = self._model.weights[weight], self._model.tensor(weight)
        steps: list[tuple[str, list[str], dict[str, Any]]] = []
        if view.slice is not None:
            axis, *bounds = view.slice
            numbers = {"start": bounds[0], "end": bounds[1], "axis": axis}
            inputs = [self._constant(f"{name}.{key}", [number]) for key, number in numbers.items()]
            steps.append(("Slice", inputs, {}))
        if view.reshape is not None:
            steps.append(("Reshape", [self._constant(f"{name}.shape", list(view.reshape))], {}))
        if view.transpose is not None:
            steps.append(("Transpose", [], {"perm": list(view.transpose)}))
        for number, (kind, inputs, attributes) in enumerate(steps or [("Identity", [], {})], start=1):
            made = name if number >= len(steps) else f"{name}.{number}"
            self._add(kind, [value, *inputs], made, **attributes)
            value = made

    def edit(self, name: str, kind: EditKind, index: int) -> None:
        """Lets everything that reads a hook point read what an edit makes of it."""
        from onnx import TensorProto

        unedited = f"{name}.{index}"
        self.rename_output(name, unedited)
        if self._unchanged.get(name, before(name)) == before(name):
            self._unchanged[name] = unedited
        rank = len(self._points[name].axes)
        where, value, *factor = edit_inputs(index, kind)
        self._inputs[where] = (TensorProto.BOOL, rank)
        self._inputs |= dict.fromkeys((value, *factor), (TensorProto.FLOAT, rank))
        if kind == "affine":
            self._add("Mul", [unedited, *factor], f"{unedited}.scaled")
            self._add("Add", [f"{unedited}.scaled", value], f"{unedited}.changed")
            value = f"{unedited}.changed"
        if "key_pos" in self._points[name].axes:
            self._add("And", [where, self._seen(name)], f"{unedited}.where")
            where = f"{unedited}.where"
            self._bools.add(where)
        self._add("Where", [where, value, unedited], name)

    def _seen(self, name: str) -> str:
        """Which keys each query of an attention sees: those neither later nor padding, whatever scores are changed."""
        scores = f"{name.rpartition('.')[0]}.hook_attn_scores"
        seen = f"{scores}.seen"
        if seen not in self._producer:
            masked = f"{scores}.masked"
            self._add("IsInf", [self._unchanged.get(scores, scores)], masked)
            self._add("Not", [masked], seen)
            self._bools |= {masked, seen}
        return seen

    def rename_output(self, name: str, new: str) -> None:
        """Gives what is computed under a name another one; what reads the name waits for something else."""
        node = self._producer.pop(name)
        node.output[:] = [new if output == name else output for output in node.output]
        self._producer[new] = node

    def pick_positions(self, name: str) -> str:
        """Takes the listed positions of a value; returns the name of the result."""
        from onnx import TensorProto

        self._inputs[POSITIONS] = (TensorProto.INT64, 1)
        self._add("Gather", [name, POSITIONS], f"{name}.picked", axis=self._points[name].position_axis)
        return f"{name}.picked"

    def pick_rows(self, *, some_later: bool) -> None:
        """Takes the listed rows of the KV cache; where some join later, as many at each block as are there."""
        from onnx import TensorProto

        picked = {name: f"{name}.picked" for name in cache_inputs(self._config)}
        for node in self._nodes:
            node.input[:] = [picked.get(name, name) for name in node.input]
        self._inputs[ROWS] = (TensorProto.INT64, 1)
        for name, new in picked.items():
            rows = ROWS
            if some_later:
                rows = f"{name}.rows"
                stream = f"blocks.{name.split('.')[1]}.hook_resid_pre"
                self._add("Shape", [stream], f"{name}.count", start=0, end=1)
                self._add("Slice", [ROWS, self._constant("rows.start", [0]), f"{name}.count"], rows)
            self._add("Gather", [name, rows], new, axis=0)

    def cut_to_last(self) -> None:
        """Computes the logits at the last position only."""
        bounds = [self._constant(f"last.{key}", [value]) for key, value in _LAST.items()]
        for node in self._nodes:
            node.input[:] = ["last.output" if name == FINAL else name for name in node.input]
        self._add("Slice", [FINAL, *bounds], "last.output")

    def end(self) -> Segment:
        """What comes after `FINAL`."""
        from onnx import TensorProto

        self._inputs[FINAL] = (TensorProto.FLOAT, 3)
        return self._segment(needed(self._nodes, ["logits"], {FINAL}), ["logits"], ())

    def segments(self, outputs: Sequence[str], calls: Sequence[str]) -> list[Segment]:
        """Cuts the graph where functions are called, as rarely as their order allows."""
        raw = {name: before(name) for name in calls}
        wanted = [name for name in outputs if name not in raw]  # what a function returned is there already
        nodes = needed(self._nodes, [*wanted, *raw.values()])
        level = self._levels(nodes, raw)
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
            given = {name for name in computed if level[name] < index} | set(raw)
            found.append(self._segment(needed(nodes, results, given), results, here))
        return found

    def _levels(self, nodes: list[NodeProto], raw: dict[str, str]) -> dict[str, int]:
        """In which segment each value is computed; what needs no activation is not listed, and goes where needed."""
        sorter: TopologicalSorter[str] = TopologicalSorter({name: [value] for name, value in raw.items()})
        producer = {name: node for node in nodes for name in node.output}
        for name, node in producer.items():
            sorter.add(name, *node.input)
        activations = self._points.keys() | set(raw.values())
        level: dict[str, int] = {}
        for name in sorter.static_order():
            if name in raw:
                level[name] = level[raw[name]] + 1
            elif name in producer:
                levels = [level[value] for value in producer[name].input if value in level]
                if levels or name in activations:
                    level[name] = max(levels, default=0)
            elif name in activations:  # given
                level[name] = 0
        return level

    def _segment(self, nodes: list[NodeProto], outputs: list[str], calls: tuple[str, ...]) -> Segment:
        from onnx import ModelProto, TensorProto, helper

        model = ModelProto()
        model.ir_version = self._prepared.ir_version
        model.opset_import.extend(self._prepared.opset_import)
        graph: GraphProto = model.graph
        graph.name = "request"
        graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input if name} | set(outputs)
        computed = {name for node in nodes for name in node.output}
        graph.initializer.extend(t for t in (*self._prepared.graph.initializer, *self._constants) if t.name in used)
        given = [value for value in self._prepared.graph.input if value.name in used]
        known = {value.name for value in (*given, *graph.initializer)}
        kinds = dict.fromkeys(self._bools, TensorProto.BOOL)
        for name in sorted(used - computed - known):  # of edits, and values of earlier segments
            kind, rank = self._inputs.get(name, (kinds.get(name, TensorProto.FLOAT), None))
            shape = None if rank is None else [None] * rank
            given.append(helper.make_tensor_value_info(name, kind, shape))
        graph.input.extend(given)
        graph.output.extend(
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in outputs
        )
        return Segment(model, tuple(value.name for value in given), tuple(outputs), calls)

    def _constant(self, name: str, values: list[int]) -> str:
        from onnx import TensorProto, helper

        if all(tensor.name != name for tensor in self._constants):
            self._constants.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        node = helper.make_node(operator, inputs, [output], **attributes)
        self._nodes.append(node)
        self._producer[output] = node


def needed(nodes: list[NodeProto], outputs: Sequence[str], given: Collection[str] = ()) -> list[NodeProto]:
    """The nodes on which the outputs depend, in the order given; what is given needs no node."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name not in given}
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
