"""The times of a pass are by value, in the order of the graph, and cover every node."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlens.runtime._running.profile import _owners
from onnxlens.runtime.errors import ContextLengthError


@pytest.mark.parametrize("name", ["base", "llama", "base-float16"])
def test_every_value_of_a_pass_has_a_time(runner, name):
    opened = runner(name)
    found = opened.profile(np.arange(1, 9))
    assert all(seconds >= 0 for seconds in found.values())
    assert sum(found.values()) > 0
    assert set(found) <= {*opened.hook_names, "logits", *(one for one in found if one.startswith("present."))}
    for layer in range(opened.config.n_layers):
        assert {f"blocks.{layer}.hook_attn_out", f"blocks.{layer}.hook_mlp_out"} <= set(found)


def test_a_node_belongs_to_the_first_value_that_needs_it(runner):
    graph = runner("base")._requests._opener._prepared.plain_graph
    owners = _owners(graph, runner("base").hook_names)
    softmax = [node for node in graph.graph.node if node.op_type == "Softmax"]
    assert [owners[node.name] for node in softmax] == [node.output[0] for node in softmax]
    (mask,) = [node for node in graph.graph.node if node.op_type == "Where"][:1]
    assert owners[mask.name] == "blocks.0.attn.hook_attn_scores"  # which all blocks need


def test_a_pass_that_does_not_fit_is_refused(runner):
    with pytest.raises(ContextLengthError):
        runner("base").profile(np.ones(1000, np.int64))
