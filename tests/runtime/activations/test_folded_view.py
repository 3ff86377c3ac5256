"""The folded view against float64 weights that are really folded and centred."""

from __future__ import annotations

import numpy as np
import processed
import pytest
from checkpoints import CONFIGS
from readings import reading
from yardstick import DOUBLE, close, is_close

from onnxlens.runtime._activations.folding import folded_logits
from onnxlens.runtime.errors import InputError, OutputError

CASES = pytest.mark.parametrize("fold_value_biases", [True, False], ids=["value biases folded", "kept"])


@CASES
@pytest.mark.parametrize("name", CONFIGS)
def test_every_activation_is_what_processed_weights_compute(name, fold_value_biases):
    got = reading(name)
    weights = processed.processed(got.config, got.weights, fold_value_biases=fold_value_biases)
    true = processed.run(got.config, weights, got.cache.tokens)
    folded = got.cache.folded(fold_value_biases=fold_value_biases)
    assert list(folded) == list(got.cache)
    assert set(folded) | {"logits"} == set(true)
    for point in folded:
        close(folded[point], true[point], point)
    close(folded_logits(got.true["logits"].astype(np.float32)), true["logits"], "logits")


@CASES
@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_is_the_processed_one(name, fold_value_biases):
    got = reading(name)
    weights = processed.processed(got.config, got.weights, fold_value_biases=fold_value_biases)
    found = got.cache.folded(fold_value_biases=fold_value_biases).facts.weights
    for key, value in weights.items():
        close(found[key], value, key)
        assert found[key].dtype == np.float32, key
        assert not found[key].flags.writeable, key
    for key in set(found) - set(weights):
        assert ".ln" in key or key.startswith("ln_final."), key
        np.testing.assert_array_equal(found[key], key.endswith(".w"))


def test_the_processing_changes_what_it_should_and_leaves_the_predictions():
    """Else the tests above would compare a model with itself."""
    got = reading("base")
    true = processed.run(got.config, processed.processed(got.config, got.weights), got.cache.tokens)
    unchanged = ("scale", "normalized", "_q", "_k", "attn_scores", "pattern", "_pre", "_post")
    for point, value in got.true.items():
        same = is_close(true[point], value, within=DOUBLE)
        assert same == (point.endswith(unchanged) and "resid" not in point), point
    logs = [x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (true["logits"], got.true["logits"])]
    close(*logs, within=DOUBLE)


def test_padding_changes_nothing_for_real_tokens():
    got = reading("base", padded=True)
    row = got.cache.folded()["blocks.1.attn.hook_z"][0, 3:]
    weights = processed.processed(got.config, got.weights)
    true = processed.run(got.config, weights, got.cache.tokens[:1, 3:])
    close(row, true["blocks.1.attn.hook_z"][0])


def test_methods_of_the_view_use_its_weights():
    got = reading("wide")
    folded = got.cache.folded()
    close(folded.get_full_resid_decomposition().sum(axis=0), folded["resid_post", -1])
    heads = folded.stack_head_results(1).sum(axis=0) + folded.facts.weights["blocks.0.attn.b_O"]
    close(heads, folded["attn_out", 0])
    logit = folded.logit_attrs(folded.decompose_resid(), 5).sum(axis=0) + folded.logit_bias(5)
    close(logit, folded_logits(got.true["logits"])[..., 5])


def test_without_batch_axis_it_is_the_same():
    expected = reading(batch=1).cache.folded()
    found = reading(batch=1).cache.remove_batch_dim().folded()
    for point, value in expected.items():
        np.testing.assert_array_equal(found[point], value[0])


def test_what_stays_the_same_is_not_copied_and_the_raw_cache_is_not_changed():
    cache = reading().cache
    before = {name: value.copy() for name, value in cache.items()}
    folded = cache.folded()
    assert folded["pattern", 0] is cache["pattern", 0]
    assert folded.is_folded and not cache.is_folded
    for name, value in before.items():
        np.testing.assert_array_equal(cache[name], value)


def test_a_view_is_neither_folded_again_nor_saved_nor_taken_for_raw_activations(tmp_path):
    folded = reading().cache.folded()
    with pytest.raises(InputError, match=r"^These activations are folded already\.$"):
        folded.folded()
    with pytest.raises(OutputError) as caught:
        folded.save(tmp_path / "trace")
    assert str(caught.value) == (
        f"Cannot write {tmp_path / 'trace'}: a folded view is not what the model computed. Save the raw cache, and "
        "fold it when it is opened."
    )
    assert list(tmp_path.iterdir()) == []
