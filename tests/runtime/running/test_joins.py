"""Rows that join a pass at a later block: the logits of each are those of a pass that it begins."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from yardstick import close

from onnxlens import Intervention
from onnxlens.runtime.errors import InputError

PLACES = ("hook_resid_pre", "attn.hook_z", "attn.hook_pattern", "attn.hook_result", "mlp.hook_post", "hook_resid_post")


def stream(layer):
    return f"blocks.{layer}.hook_resid_pre"


@settings(max_examples=25)
@given(data=st.data())
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_a_pass_that_all_rows_begin(runner, name, data):
    model = runner(name)
    layers = model.config.n_layers
    length = data.draw(st.integers(2, 6), label="length")
    before = data.draw(st.integers(0, length - 1), label="positions in the cache")
    padding = data.draw(st.integers(0, 1), label="padding")
    begins = sorted(data.draw(st.lists(st.integers(0, layers - 1), min_size=1, max_size=5), label="begin at"))
    logits = data.draw(st.sampled_from(["all", "last"]), label="logits")
    ids = np.random.default_rng(length).integers(0, model.config.d_vocab, (1, length))
    mask = np.ones_like(ids)
    mask[:, :padding] = 0
    common = model.run(ids, mask, names_filter="blocks.*.hook_resid_pre", logits="none")
    past = common.kv_cache.until(before)
    edits = [
        Intervention.scale(
            f"blocks.{data.draw(st.integers(begin, layers - 1))}.{data.draw(st.sampled_from(PLACES))}",
            data.draw(st.sampled_from([0.5, 2.0])), rows=row,
        )
        for row, begin in enumerate(begins)
    ]  # fmt: skip
    new = np.repeat(ids[:, before:], len(begins), axis=0), np.repeat(mask[:, before:], len(begins), axis=0)
    options = {"interventions": edits, "logits": logits, "keep_cache": False, "kv_cache": past}
    options["cache_rows"] = np.zeros(len(begins), np.int64)

    given = {
        stream(layer): np.repeat(common.activations[stream(layer)][:, before:], begins.count(layer), axis=0)
        for layer in range(begins[0], layers)
    }
    feeds = {stream(begins[0]): given.pop(stream(begins[0]))} if begins[0] else {}
    given.pop(stream(0), None)
    joined = model.run(*new, feeds=feeds, joins=given, **options)
    alone = model.run(*new, **options)
    assert joined.logits.shape == alone.logits.shape
    real = new[1][:, -joined.logits.shape[1] :] == 1
    close(joined.logits[real], alone.logits[real])
    assert joined.applied == alone.applied


def test_what_comes_before_is_not_computed_for_rows_that_join(runner):
    model = runner("scaled")
    ids = np.array([[1, 2, 3]] * 4)
    joining = {stream(1): np.zeros((3, 3, model.config.d_model), np.float32)}
    plan = model.plan(ids, joins=joining, keep_cache=False)
    assert plan.inputs["input_ids"].shape == (1, 3)
    assert plan.shapes["logits"][0] == 4
    with pytest.raises(InputError, match=r"^The intervention at 'blocks.0.hook_attn_out' is never reached"):
        edit = Intervention.zero("blocks.0.hook_attn_out")
        feeds, joins = {stream(1): joining[stream(1)]}, {stream(2): joining[stream(1)][:1]}
        model.run(ids, joins=joins, feeds=feeds, interventions=edit, keep_cache=False)


@pytest.mark.parametrize(
    ("joins", "options", "text"),
    [
        ({"blocks.1.hook_resid_post": (1, 3, 32)}, {}, r"not at 'blocks.1.hook_resid_post' with \[1, 3, 32\]\.$"),
        ({stream(1): (1, 4, 32)}, {}, r"a stream of shape \[rows, 3, 32\], not at '.*' with \[1, 4, 32\]\.$"),
        ({stream(9): (1, 3, 32)}, {}, r"^Rows join at blocks\.N\.hook_resid_pre"),
        ({stream(1): (2, 3, 32)}, {}, r"^Of 2 rows, 2 join later; at least one must begin the pass\.$"),
        ({stream(1): (1, 3, 32)}, {"attention_mask": [[1, 1, 1], [0, 1, 1]]}, "must be padded as all others"),
        ({stream(1): (1, 3, 32)}, {"names_filter": "hook_embed"}, "nothing can be read, called or kept"),
        ({stream(1): (1, 3, 32)}, {"keep_cache": True}, "nothing can be read, called or kept"),
        ({stream(1): (1, 3, 32)}, {"stop_at_layer": 1}, "nothing can be read, called or kept"),
        ({stream(1): (1, 3, 32)}, {"fwd_hooks": [("hook_embed", print)]}, "nothing can be read, called or kept"),
    ],
)
def test_rows_that_cannot_join_are_refused(runner, joins, options, text):
    streams = {name: np.zeros(shape, np.float32) for name, shape in joins.items()}
    with pytest.raises(InputError, match=text):
        runner("base").run([[1, 2, 3]] * 2, joins=streams, **{"keep_cache": False, **options})
