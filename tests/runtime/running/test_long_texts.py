"""Long texts are computed in pieces: the same logits and cache, with less memory."""

from __future__ import annotations

import numpy as np
import pytest
from yardstick import close

from onnxlens.runtime._running import runner as module
from onnxlens.runtime.errors import ContextLengthError, InputError


@pytest.fixture
def in_pieces(monkeypatch):
    """Texts of more than 10 tokens are computed in pieces of 4."""
    monkeypatch.setattr(module, "_LONGEST_PASS", 10)
    monkeypatch.setattr(module, "_PIECE", 4)


def texts(length=23):
    ids = np.random.default_rng(0).integers(0, 300, (3, length))
    mask = np.ones_like(ids)
    mask[1, :7] = 0
    return ids, mask


@pytest.mark.parametrize("name", ["base", "llama"])
@pytest.mark.parametrize("logits", ["last", "none"])
def test_pieces_give_the_logits_and_the_cache_of_one_pass(runner, monkeypatch, name, logits):
    model, (ids, mask) = runner(name), texts()
    whole = model.run(ids, mask, logits=logits)
    monkeypatch.setattr(module, "_LONGEST_PASS", 10)
    monkeypatch.setattr(module, "_PIECE", 4)
    lengths = []
    execute = model.execute
    monkeypatch.setattr(
        model, "execute", lambda plan: lengths.append(plan.inputs["input_ids"].shape[1]) or execute(plan)
    )
    pieces = model.run(ids, mask, logits=logits)
    assert lengths == [4, 4, 4, 4, 4, 3]
    assert pieces.logits.shape == whole.logits.shape
    close(pieces.logits, whole.logits)
    real = mask == 1
    for layer in range(model.config.n_layers):
        for found, expected in zip(pieces.kv_cache.numpy(layer), whole.kv_cache.numpy(layer), strict=True):
            close(found.swapaxes(1, 2)[real], expected.swapaxes(1, 2)[real])


def test_rows_of_a_cache_are_continued_in_pieces(runner, in_pieces):
    model, (ids, _) = runner("llama"), texts()
    past = model.run(ids[:2, :5]).kv_cache
    found = model.run(ids[:, 5:], logits="last", kv_cache=past, cache_rows=[1, 0, 1], keep_cache=False)
    assert found.kv_cache is None
    expected = model.run(np.concatenate([ids[[1, 0, 1], :5], ids[:, 5:]], axis=1), logits="all")
    close(found.logits[:, 0], expected.logits[:, -1])


def test_what_needs_the_whole_text_gets_one_pass(runner, in_pieces):
    model, (ids, mask) = runner("llama"), texts()
    output = model.run(ids, mask, logits="last", names_filter="*.hook_pattern")
    assert output.activations["blocks.0.attn.hook_pattern"].shape == (3, 6, 23, 23)


def test_a_text_beyond_the_context_is_refused_before_anything_runs(runner, in_pieces, monkeypatch):
    model = runner("llama")
    monkeypatch.setattr(model, "execute", lambda *_: pytest.fail("it ran"))
    with pytest.raises(ContextLengthError, match=r"The text is 49 tokens long, and this model has 48 positions"):
        model.run(np.zeros((1, 49), np.int64), logits="last")
    with pytest.raises(InputError, match="attention_mask must hold 0 and 1 only"):
        model.run(np.zeros((1, 30), np.int64), np.full((1, 30), 2), logits="last")
