"""A value does not depend on what else is read, in which batch a text runs, or how it is cut into passes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from checkpoints import MODELS, config_entries, family
from hypothesis import given, settings
from hypothesis import strategies as st
from yardstick import close

from onnxlens.runtime._activations.cache import stitch
from onnxlens.runtime._running.runner import Runner

LIMIT, VOCABULARY = 48, 300
BASE = tuple(point.name for point in family(config_entries(n_layer=2)).description().hook_points)

ids_of = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=LIMIT)
slow = settings(max_examples=50)


@pytest.fixture(scope="module")
def alone(runner):
    """Each hook point read by itself from one fixed batch."""
    base = runner("base")
    ids = np.random.default_rng(3).integers(0, VOCABULARY, (2, 9))

    @lru_cache
    def read(name: str) -> np.ndarray:
        return base.run(ids, names_filter=name).activations[name]

    return ids, read


@slow
@given(names=st.sets(st.sampled_from(BASE), min_size=1), logits=st.sampled_from(["last", "all"]))
def test_what_is_read_together_has_the_very_bits_of_each_read_alone(runner, alone, names, logits):
    ids, read = alone
    output = runner("base").run(ids, names_filter=sorted(names), logits=logits)
    assert list(output.activations) == [name for name in BASE if name in names]
    for name in names:
        np.testing.assert_array_equal(output.activations[name], read(name), err_msg=name)
    plain = runner("base").run(ids, logits=logits)
    np.testing.assert_array_equal(output.logits, plain.logits)


@pytest.mark.parametrize("name", MODELS)
def test_reading_everything_changes_no_bit_of_any_hook_point(runner, name):
    model = runner(name)
    ids = np.random.default_rng(4).integers(0, VOCABULARY, (1, 11))
    together = model.run(ids, names_filter="*")
    for point in model.hook_names:
        single = model.run(ids, names_filter=point)
        np.testing.assert_array_equal(single.activations[point], together.activations[point], err_msg=point)
        np.testing.assert_array_equal(single.logits, together.logits, err_msg=point)


@slow
@given(ids=ids_of, copies=st.integers(1, 3))
def test_the_last_logits_are_the_last_of_all_logits(runner, ids, copies):
    rows = [ids] * copies
    every, last = (runner("base").run(rows, logits=which).logits for which in ("all", "last"))
    assert every.shape == (copies, len(ids), VOCABULARY)
    assert last.shape == (copies, 1, VOCABULARY)
    close(last, every[:, -1:])


def without_padding(name: str, value: np.ndarray, padding: int) -> np.ndarray:
    if name.endswith(("hook_attn_scores", "hook_pattern")):
        return value[:, padding:, padding:]
    return value[padding:]


@slow
@given(texts=st.lists(ids_of, min_size=1, max_size=4), more=st.integers(0, 60))
def test_each_text_of_a_padded_batch_gets_what_it_gets_alone(runner, texts, more):
    model = runner("base")
    width = max(map(len, texts)) + more
    ids = np.array([[7] * (width - len(text)) + text for text in texts])
    mask = np.array([[0] * (width - len(text)) + [1] * len(text) for text in texts])
    together = model.run(ids, mask, names_filter="*")
    for row, text in enumerate(texts):
        single = model.run(text, names_filter="*")
        padding = width - len(text)
        close(together.logits[row, padding:], single.logits[0], name="logits")
        for name, value in single.activations.items():
            close(without_padding(name, together.activations[name][row], padding), value[0], name=name)


@slow
@given(text=ids_of, filler=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20))
def test_nothing_depends_on_which_tokens_are_the_padding(runner, text, filler):
    model = runner("base")
    mask = [[0] * len(filler) + [1] * len(text)]
    one = model.run([filler + text], mask, names_filter="*")
    other = model.run([[0] * len(filler) + text], mask, names_filter="*")
    np.testing.assert_array_equal(one.logits[:, len(filler) :], other.logits[:, len(filler) :])
    for name, value in one.activations.items():
        np.testing.assert_array_equal(
            without_padding(name, value[0], len(filler)),
            without_padding(name, other.activations[name][0], len(filler)),
            err_msg=name,
        )


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15)
@given(data=st.data())
def test_passes_on_a_cache_join_to_what_one_pass_reads(runner, name, data):
    model = runner(name)
    ids = np.array(data.draw(st.lists(ids_of, min_size=1, max_size=2).map(_same_length), label="ids"))
    length = ids.shape[1]
    cuts = sorted(data.draw(st.sets(st.integers(1, length), max_size=4), label="cuts") | {length})
    steps, logits, cache, start = [], [], None, 0
    for cut in cuts:
        output = model.run(ids[:, start:cut], names_filter="*", kv_cache=cache)
        steps.append(output.activations)
        logits.append(output.logits)
        cache, start = output.kv_cache, cut
    whole = model.run(ids, names_filter="*")
    close(np.concatenate(logits, axis=1), whole.logits, name="logits")
    joined = stitch(model.hook_points, steps)
    assert list(joined) == list(model.hook_names)
    for point, value in joined.items():
        assert value.shape == whole.activations[point].shape, point
        close(value, whole.activations[point], name=point)


def _same_length(rows: list[list[int]]) -> list[list[int]]:
    return [row[: min(map(len, rows))] for row in rows]


def test_a_padded_batch_goes_on_from_its_cache(runner):
    model = runner("base")
    ids = np.random.default_rng(5).integers(1, VOCABULARY, (3, 12))
    mask = np.ones_like(ids)
    mask[0, :4] = mask[2, :7] = 0
    whole = model.run(ids, mask)
    first = model.run(ids[:, :8], mask[:, :8])
    second = model.run(ids[:, 8:], mask[:, 8:], kv_cache=first.kv_cache)
    close(second.logits, whole.logits[:, 8:], name="logits")


def test_two_continuations_can_start_from_one_cache(runner):
    model = runner("base")
    start = model.run([5, 6, 7])
    before = start.kv_cache.numpy(1)[0].copy()
    for token in (8, 9):
        continued = model.run([token], kv_cache=start.kv_cache)
        close(continued.logits[0, -1], model.run([5, 6, 7, token]).logits[0, -1], name="logits")
    np.testing.assert_array_equal(start.kv_cache.numpy(1)[0], before)
    assert len(start.kv_cache) == 3


def test_the_cache_stays_with_onnx_runtime_and_is_not_copied_through_python(runner, monkeypatch):
    import onnxruntime

    model = runner("base")
    output = model.run([5, 6, 7])
    monkeypatch.setattr(onnxruntime.OrtValue, "numpy", lambda self: pytest.fail("copied to Python"))
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", lambda *a: pytest.fail("copied from Python"))
    for token in (8, 9, 10):
        output = model.run([token], kv_cache=output.kv_cache, logits="last")
    assert all(isinstance(value, onnxruntime.OrtValue) for value in output.kv_cache.values.values())
    assert output.kv_cache.values["past_key_values.1.value"].shape() == [1, 4, 6, 8]


def test_a_cache_shows_keys_and_values_of_a_layer(runner):
    output = runner("base").run([5, 6, 7], names_filter="blocks.1.attn.hook_[kv]")
    for cached, name in zip(output.kv_cache.numpy(1), ("hook_k", "hook_v"), strict=True):
        np.testing.assert_array_equal(cached.swapaxes(1, 2), output.activations[f"blocks.1.attn.{name}"])


def test_weights_have_the_names_of_the_checkpoint_and_can_recompute_a_shown_number(runner):
    model: Runner = runner("base")
    output = model.run([[5, 6]], names_filter=["hook_embed", "ln_final.hook_normalized"])
    weights = model.bundle.weights
    np.testing.assert_array_equal(output.activations["hook_embed"][0], weights["wte.weight"][[5, 6]])
    final = output.activations["ln_final.hook_normalized"] * weights["ln_f.weight"] + weights["ln_f.bias"]
    close(final @ weights["wte.weight"].T, output.logits)
