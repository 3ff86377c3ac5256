"""The request compiler: only what a request needs stays in the graph, and few sessions serve many passes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from checkpoints import MODELS

from onnxlens.runtime._graphs.names import FINAL
from onnxlens.runtime._graphs.request import PLAIN, Request, compile_request
from onnxlens.runtime._graphs.unembed import unembedding_graph
from onnxlens.runtime._running.prepare import prepare
from onnxlens.runtime._running.prepared import Prepared
from onnxlens.runtime._running.providers import CPU
from onnxlens.runtime._running.runner import Runner


@pytest.fixture(scope="module")
def prepared(runner):
    """The prepared graph by the name of a checkpoint."""
    return lambda name: prepare(runner(name).bundle, CPU).graph


def compiled(prepared, runner, request):
    (segment,) = compile_request(prepared("base"), request, runner("base").bundle.description)
    return segment.model


def reaches(model: onnx.ModelProto, target: str) -> set[str]:
    """All values on which `target` depends."""
    found = {target}
    for node in reversed(model.graph.node):
        if found & set(node.output):
            found |= set(node.input)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_logits_depend_on_every_hook_point_of_the_prepared_graph(prepared, runner, name):
    """So that a changed value would change what follows, and no hook point is a copy beside the path."""
    path = reaches(prepared(name), "logits")
    points = [point.name for point in runner(name).hook_points if not point.on_request]
    assert [point for point in points if point not in path] == []
    for layer in range(1, runner(name).config.n_layers):
        readers = [node for node in prepared(name).graph.node if f"blocks.{layer - 1}.hook_resid_post" in node.input]
        assert [list(node.output) for node in readers] == [[f"blocks.{layer}.hook_resid_pre"]]


def test_nodes_of_the_prepared_graph_are_in_the_order_of_computation(prepared):
    """`reaches` above and the compiler rely on it."""
    seen = set()
    model = prepared("wide")
    produced = {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        assert not [name for name in node.input if name in produced and name not in seen]
        seen |= set(node.output)


def test_a_plain_request_outputs_logits_and_the_cache_only(prepared, runner):
    graph = compiled(prepared, runner, PLAIN).graph
    caches = [f"present.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]
    assert [value.name for value in graph.output] == ["logits", *caches]


def test_every_node_left_is_needed(prepared, runner):
    request = Request(reads=("blocks.0.attn.hook_result", "blocks.1.hook_resid_pre"), logits="all")
    graph = compiled(prepared, runner, request).graph
    consumed = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    assert [node.name for node in graph.node if not consumed & set(node.output)] == []
    assert {tensor.name for tensor in graph.initializer} <= consumed


def test_reading_a_value_on_the_path_adds_no_node(prepared, runner):
    plain = compiled(prepared, runner, Request(logits="all"))
    on_path = tuple(point.name for point in runner("base").hook_points if not point.on_request)
    reading = compiled(prepared, runner, Request(reads=on_path, logits="all"))
    assert len(reading.graph.node) == len(plain.graph.node)


def test_hook_result_is_computed_where_asked_for_only(prepared, runner):
    plain = compiled(prepared, runner, PLAIN)
    one = compiled(prepared, runner, Request(reads=("blocks.1.attn.hook_result",)))
    added = Counter(node.op_type for node in one.graph.node) - Counter(node.op_type for node in plain.graph.node)
    assert added == {"Reshape": 1, "Transpose": 2, "MatMul": 1}


def test_last_logits_unembed_one_position(prepared, runner):
    last, every = (compiled(prepared, runner, Request(logits=which)) for which in ("last", "all"))
    rest = unembedding_graph(prepared("base"), runner("base").bundle.description).model
    assert len(last.graph.node) == len(every.graph.node) + 1 + len(rest.graph.node)
    slices = [node for node in last.graph.node if list(node.output) == ["last.output"]]
    assert [node.input[0] for node in slices] == [FINAL]
    readers = [node for node in last.graph.node if FINAL in node.input]
    assert readers == slices
    assert next(value.name for value in every.graph.output) == FINAL == rest.graph.input[0].name


def test_compiling_leaves_the_prepared_graph_as_it_is(prepared, runner):
    model = prepared("base")
    before = model.SerializeToString(deterministic=True)
    for logits in ("last", "all"):
        compile_request(
            model, Request(reads=runner("base").hook_names, logits=logits), runner("base").bundle.description
        )
    assert model.SerializeToString(deterministic=True) == before


@pytest.fixture
def opened(monkeypatch):
    """Counts the sessions opened, by the runner's own calls."""
    sources = []
    for name in ("open", "open_plain"):
        real = getattr(Prepared, name)
        monkeypatch.setattr(Prepared, name, lambda *a, real=real, **k: sources.append(real) or real(*a, **k))
    return sources


def test_one_session_serves_prediction_and_generation(bundle, opened):
    import onnxlens

    lens = onnxlens.load(bundle("base"), provider="cpu", threads=1)
    lens.predict(["the cat", "dog"])
    list(lens.generate("the cat", max_new_tokens=5, seed=1))
    assert len(opened) == 1


def test_a_request_made_again_reuses_its_session_whatever_the_spelling(bundle, opened):
    model = Runner(bundle("base"), provider="cpu", threads=1)
    for names in (
        "blocks.0.hook_resid_*",
        ["blocks.0.hook_resid_post", "blocks.0.hook_resid_mid", "blocks.0.hook_resid_p*"],
    ):
        model.run([1, 2], names_filter=names)
        model.run([[1], [2]], names_filter=names)
    assert len(opened) == 2  # one of them the unembedding, which all requests share
    model.run([1], names_filter="hook_embed")
    assert len(opened) == 3


def test_the_least_recently_used_session_goes_first(bundle, opened):
    model = Runner(bundle("base"), provider="cpu", threads=1, max_sessions=2)
    model.run([1], names_filter="hook_embed", logits="last")
    model.run([1], logits="last")  # plain, used again
    model.run([1], names_filter="hook_pos_embed", logits="last")  # takes hook_embed's place
    assert len(opened) == 3
    model.run([1], logits="last")
    assert len(opened) == 3
    model.run([1], names_filter="hook_embed", logits="last")
    assert len(opened) == 4
    info = model._requests.open.cache_info()
    assert (info.currsize, info.maxsize) == (2, 2)


def test_many_requests_keep_a_bounded_number_of_sessions(bundle):
    model = Runner(bundle("base"), provider="cpu", threads=1, max_sessions=3)
    for name in model.hook_names[:10]:
        assert np.isfinite(model.run([1, 2], names_filter=name).logits).all()
    assert model._requests.open.cache_info().currsize == 3
