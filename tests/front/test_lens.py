"""The front door in Python: predictions, tokens, activations."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import oracle
import pytest
from yardstick import close, probable

import onnxlens
from onnxlens._lens import Lens
from onnxlens.runtime.errors import BundleError, ContextLengthError, HookPointError, InputError, OutputError


@pytest.fixture(scope="module")
def lens(bundle) -> Lens:
    return onnxlens.load(bundle("base"), provider="cpu", threads=1)


def test_a_prediction_equals_the_oracle(lens):
    prediction = lens.predict("the cat sat on the", top=5)
    config = json.loads((lens.runner.bundle.path / "config.json").read_text())
    true = oracle.run(config, dict(lens.runner.bundle.weights), np.array([prediction.ids]))["logits"][0, -1]
    close(prediction.logits, true)
    assert [candidate.id for candidate in prediction.top] == np.argsort(-true)[:5].tolist()
    weights = np.exp(true - true.max())
    probable(prediction.probabilities, weights / weights.sum(), true)


def test_a_prediction_holds_together(lens):
    prediction = lens.predict("the cat", top=7)
    assert prediction.ids == lens.to_tokens("the cat")[0].tolist()
    assert prediction.tokens == lens.to_str_tokens("the cat")
    assert "".join(prediction.tokens) == "the cat"
    assert len(prediction.top) == 7
    probabilities = [candidate.probability for candidate in prediction.top]
    assert probabilities == sorted(probabilities, reverse=True)
    for candidate in prediction.top:
        assert candidate.logit == prediction.logits[candidate.id]
        assert candidate.probability == prediction.probabilities[candidate.id]
        assert [candidate.token] == lens.to_str_tokens([candidate.id])
    assert repr(prediction).startswith("Prediction('the cat': ")


def test_probabilities_are_over_the_whole_vocabulary_of_the_model(lens):
    prediction = lens.predict("the cat", top=10_000)
    assert prediction.logits.shape == prediction.probabilities.shape == (300,)
    assert len(prediction.top) == 300
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert sum(candidate.probability for candidate in prediction.top) == pytest.approx(1, abs=1e-12)
    padding = {candidate.id: candidate.token for candidate in prediction.top if candidate.id >= 290}
    assert padding == {token: f"[{token}]" for token in range(290, 300)}


def test_texts_of_different_lengths_get_what_each_gets_alone(lens):
    texts = ["the cat and the dog sat on the mat", "a", "", "when the rain"]
    together = lens.predict(texts, top=3)
    for text, prediction in zip(texts, together, strict=True):
        alone = lens.predict(text, top=3)
        assert prediction.ids == alone.ids
        close(prediction.logits, alone.logits)
        assert [candidate.id for candidate in prediction.top] == [candidate.id for candidate in alone.top]


def test_ids_do_as_well_as_the_text_they_come_from(lens):
    expected = lens.predict("the cat").logits
    ids = lens.to_tokens("the cat")
    for same in (ids, ids[0], ids[0].tolist(), tuple(ids[0].tolist()), [ids[0].tolist()]):
        np.testing.assert_array_equal(lens.predict(same).logits, expected)


def test_an_empty_text_predicts_from_end_of_text(lens):
    assert lens.predict("").tokens == ["<|endoftext|>"]
    np.testing.assert_array_equal(lens.predict("").logits, lens.predict([0]).logits)


def test_tokens_make_the_round_trip(lens):
    for text in ("the cat", " \n\t", "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve \N{SNOWMAN}", "<|endoftext|>x"):
        assert lens.to_string(lens.to_tokens(text)) == text
        assert lens.to_string(lens.to_tokens(text)[0].tolist()) == text
        assert lens.to_str_tokens(lens.to_tokens(text)) == lens.to_str_tokens(text)


def test_tokens_of_several_texts_are_padded_on_the_left(lens):
    ids = lens.to_tokens(["a", "the cat"])
    one, two = lens.to_tokens("a"), lens.to_tokens("the cat")
    assert ids.shape == (2, two.shape[1])
    assert ids.dtype == np.int64
    assert ids[0, -1] == one[0, 0]
    np.testing.assert_array_equal(ids[1], two[0])


def test_run_with_cache_gives_all_logits_and_what_was_named(lens):
    logits, cache = lens.run_with_cache("the cat", names_filter="blocks.*.attn.hook_pattern")
    length = cache.tokens.shape[1]
    assert logits.shape == (1, length, 300)
    assert list(cache) == ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]
    pattern = cache["blocks.0.attn.hook_pattern"]
    assert pattern.shape == (1, 4, length, length)
    close(pattern.sum(axis=-1), np.ones((1, 4, length)))
    assert (pattern[0, :, 0, 1:] == 0).all()
    close(logits[0, -1], lens.predict("the cat").logits)
    assert lens.to_string(cache.tokens) == "the cat"


def test_run_with_cache_reads_everything_where_nothing_is_named(lens):
    _, cache = lens.run_with_cache("a")
    assert tuple(cache) == tuple(point.name for point in lens.hook_points if not point.on_request)
    assert set(lens.estimate("a")) == {"logits", *cache}
    _, whole = lens.run_with_cache("a", names_filter="*")
    assert tuple(whole) == lens.runner.hook_names


def test_run_with_cache_of_several_texts_says_what_is_padding(lens):
    texts = ["the cat and the dog", "a"]
    _, cache = lens.run_with_cache(texts, names_filter="ln_final.hook_normalized")
    assert cache.attention_mask.sum(axis=1).tolist() == [len(lens.to_str_tokens(text)) for text in texts]
    for row, text in enumerate(texts):
        _, alone = lens.run_with_cache(text, names_filter="ln_final.*")
        found = cache["ln_final.hook_normalized"][row][cache.attention_mask[row] == 1]
        close(found, alone["ln_final.hook_normalized"][0])


def test_a_cache_knows_its_model_and_adds_up(lens):
    logits, cache = lens.run_with_cache(["the cat and the dog", "a"], names_filter="*")
    stream = cache["resid_post", -1]
    for parts in (cache.decompose_resid(), cache.get_full_resid_decomposition()):
        close(parts.sum(axis=0), stream, scale=parts)
    b_o = lens.weights["blocks.1.attn.b_O"]
    results = cache["result", 1]
    close(results.sum(axis=2) + b_o, cache["attn_out", 1], scale=results)
    token = lens.to_tokens(" the")[0, -1]
    shares = cache.logit_attrs(cache.decompose_resid(), token)
    close(shares.sum(axis=0) + cache.logit_bias(token), logits[..., token], scale=shares)
    assert cache.model_hash == lens.runner.bundle.model_hash
    assert cache.str_tokens is None


def test_heads_computed_from_z_are_those_that_the_graph_computes(lens):
    _, read = lens.run_with_cache("the cat", names_filter="*.hook_result")
    _, computed = lens.run_with_cache("the cat", names_filter="*.hook_z")
    close(computed.stack_head_results(), read.stack_head_results())


def test_run_with_cache_without_the_batch_axis(lens):
    logits, cache = lens.run_with_cache("the cat", names_filter="hook_embed")
    flat_logits, flat = lens.run_with_cache("the cat", names_filter="hook_embed", remove_batch_dim=True)
    np.testing.assert_array_equal(flat["embed"], cache["embed"][0])
    np.testing.assert_array_equal(flat_logits, logits)
    assert flat.str_tokens == lens.to_str_tokens("the cat")
    with pytest.raises(InputError, match=r"^The batch axis can be removed from one row, and this cache has 2\.$"):
        lens.run_with_cache(["a", "b"], remove_batch_dim=True)


def test_what_was_read_while_generating_knows_its_model_too(lens):
    generation = lens.generate("the cat", max_new_tokens=2, seed=1, names_filter="hook_*embed")
    list(generation)
    assert generation.cache.decompose_resid(0).shape[0] == 2
    assert generation.cache.model == "base"


def test_run_with_cache_takes_rows_of_ids(lens):
    logits, cache = lens.run_with_cache([[1, 2], [3, 4]], names_filter="hook_embed")
    assert logits.shape == (2, 2, 300)
    assert cache["hook_embed"].shape == (2, 2, 32)


def test_an_unknown_hook_point_is_an_error(lens):
    with pytest.raises(HookPointError, match=r"Unknown hook point 'hook_embd'\. Did you mean 'hook_embed'"):
        lens.run_with_cache("a", names_filter="hook_embd")


@pytest.mark.parametrize("top", [0, -1, 1.5, True, None])
def test_top_must_be_positive(lens, top):
    with pytest.raises(InputError) as caught:
        lens.predict("a", top=top)
    assert str(caught.value) == f"top must be a whole number of at least 1, not {top!r}."


def test_a_text_that_is_too_long_states_both_numbers(lens):
    for call in (lens.predict, lens.run_with_cache):
        with pytest.raises(ContextLengthError) as caught:
            call("a" * 49)
        assert str(caught.value) == "The text is 49 tokens long, and this model has 48 positions; shorten it."


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([300], "Token id 300 is out of range: this model's ids are 0 to 299."),
        ([-1], "Token id -1 is out of range: this model's ids are 0 to 299."),
        ([1.0], "input_ids must be whole numbers, not float64."),
        ([1, "a"], "Expected a text, a list of texts, or token ids, not [1, 'a']."),
        ([], "Expected a text or token ids, not an empty list; '' is a text without tokens."),
        (None, "Expected a text, a list of texts, or token ids, not None."),
        (5, "Expected a text, a list of texts, or token ids, not 5."),
        ({"a": 1}, "Expected a text, a list of texts, or token ids, not {'a': 1}."),
        (b"abc", "Expected a text, a list of texts, or token ids, not b'abc'."),
        ([[1, 2], [3, 4]], "Expected the token ids of one text, not an array of shape [2, 2]."),
        ([[1], [2, 3]], "The rows of token ids have different lengths; give one row, or texts."),
        (["a", 3], "Expected text, got int."),
        ("\ud800", "The text is not valid Unicode: a lone surrogate at character 0. Give UTF-8 text."),
    ],
)
def test_input_that_cannot_be_used(lens, ids, expected):
    with pytest.raises(InputError) as caught:
        lens.predict(ids)
    assert str(caught.value).startswith(expected)


def test_a_text_in_place_of_ids_says_how_to_make_ids_of_it(lens):
    with pytest.raises(InputError, match=r"^Expected token ids, not the text 'abc'; to_tokens makes ids of a text\.$"):
        lens.to_string("abc")


@pytest.mark.parametrize("name", [5, True, b"tiny", ["tiny"], ""])
def test_a_model_is_named_by_text(name):
    with pytest.raises(BundleError) as caught:
        onnxlens.load(name)
    assert str(caught.value) == (
        f"A model is named by its name or path, such as 'tiny' or 'models/mine', not {name!r}."
    )


def test_several_rows_of_ids_are_no_text(lens):
    for call in (lens.to_string, lens.to_str_tokens, lens.generate):
        with pytest.raises(InputError, match=r"^Expected the token ids of one text"):
            call(np.ones((2, 3), np.int64))


def test_what_a_lens_says_of_itself(lens):
    assert repr(lens) == "Lens('base', provider='cpu')"
    assert lens.config.n_layers == 2
    assert lens.provider == "cpu"


def test_loading_what_is_not_there(tmp_path):
    with pytest.raises(BundleError, match=r"There is no model 'no-such-model'; "):
        onnxlens.load("no-such-model")


def test_loading_with_verification(bundle, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle("base"), copy)
    onnxlens.load(copy, provider="cpu", threads=1)  # prepares it, which reads all weights
    with (copy / "onnx/model.onnx_data").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x77")
    onnxlens.load(copy, provider="cpu", threads=1)
    with pytest.raises(BundleError, match="not the file that was exported"):
        onnxlens.load(copy, provider="cpu", threads=1, verify=True)


def test_log_probabilities_are_natural_and_of_the_model_not_the_sampler(lens):
    (token,) = lens.generate("the cat", max_new_tokens=1, temperature=0.1, top_k=2, seed=1)
    prediction = lens.predict("the cat")
    close(token.logprob, math.log(prediction.probabilities[token.id]), scale=prediction.logits)


def test_the_id_of_a_text_that_is_one_token(runner):
    lens = Lens(runner("base"))
    assert lens.to_single_token(" cat") == lens.to_tokens(" cat")[0, 0]
    with pytest.raises(InputError, match=r"'the cat' is 2 tokens \('the', ' cat'\), and must be one"):
        lens.to_single_token("the cat")
    with pytest.raises(InputError, match="'' is 0 tokens, and must be one"):
        lens.to_single_token("")
    with pytest.raises(InputError, match="Expected the text of one token, not 5"):
        lens.to_single_token(5)


def test_a_lens_is_made_of_a_runner():
    with pytest.raises(InputError, match=r"made of a Runner, not of 'tiny'; onnxlens\.load opens a model by name\.$"):
        Lens("tiny")


def test_import_onnxlens_is_enough_for_its_modules():
    code = "import onnxlens; print(onnxlens.utils.get_act_name('z', 3), onnxlens.metrics, onnxlens.analysis)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("blocks.3.attn.hook_z "), ran.stderr


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.safetensors.gz"])
def test_a_trace_is_not_saved_under_the_name_of_another_kind_of_file(lens, tmp_path, name):
    _, cache = lens.run_with_cache("the cat")
    with pytest.raises(OutputError, match="a trace is a safetensors file, and its name ends in"):
        cache.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
