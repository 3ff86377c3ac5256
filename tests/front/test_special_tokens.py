"""A model whose tokenizer puts a token around every text, and whose texts end with several tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest
from checkpoints import tokenizer, write_checkpoint
from tokenizers.processors import TemplateProcessing

import onnxlens
from onnxlens.analysis import logit_lens
from onnxlens.decoding import beam_search, best_of, contrastive_search
from onnxlens.metrics import logit
from onnxlens.plugins.samplers import LogitBias
from onnxlens.runtime.errors import InputError

ENDS = (5, 7)


@pytest.fixture(scope="module")
def lens(tmp_path_factory):
    from onnxlens.export import export

    folder = tmp_path_factory.mktemp("special")
    source = write_checkpoint(folder / "source")
    made = tokenizer()
    made.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    made.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": list(ENDS)}))
    export(source, folder / "bundle")
    return onnxlens.load(folder / "bundle", provider="cpu", threads=1)


@pytest.fixture(scope="module")
def the():
    return tokenizer().token_to_id("Ġthe")


def test_a_prompt_gets_the_token(lens, the):
    assert lens.to_tokens(" the").tolist() == [[0, the]]


def test_a_word_does_not(lens, the):
    assert lens.to_single_token(" the") == the
    assert lens.tokenizer.encode_word("") == []
    assert logit_lens(lens, "the cat", watch=[" the"]).watched == (the,)
    with pytest.raises(InputError, match="'' is 0 tokens"):
        lens.to_single_token("")


def test_options_of_samplers_name_words(lens, the):
    for sampler in ("logit_bias={' the': 100.0} | greedy", "forced_bos=' the' | greedy"):
        assert lens.generate("the cat", sampler=sampler, max_new_tokens=1).ids == [the]
    chain = f"logit_bias={{{the}: 100.0}} | suppress_tokens=[' the'] | greedy"
    assert lens.generate("the cat", sampler=chain, max_new_tokens=1).ids != [the]


def test_metrics_name_words(lens, the):
    from onnxlens._measuring import Measure

    logits = np.arange(300, dtype=np.float32)[np.newaxis, np.newaxis]
    one = np.ones((1, 1), np.int64)
    assert Measure(logit(" the"), lens.tokenizer, 300, 1).value(logits, one, one) == [the]


@pytest.mark.parametrize("end", ENDS)
def test_each_of_several_ends_ends_a_text(lens, end):
    bias = LogitBias({end: 100.0})
    text = lens.generate("the cat", sampler=f"logit_bias={{{end}: 100.0}}", max_new_tokens=9)
    assert (text.ids, text.text, text.finish_reason) == ([end], "", "end_of_text")
    text = lens.generate("the cat", sampler=f"logit_bias={{{end}: 100.0}} | min_new_tokens=2", max_new_tokens=9)
    assert not set(text.ids[:2]) & set(ENDS)
    assert text.ids[2:] == [end]
    (found,) = beam_search(lens, "the cat", sampler=bias, max_new_tokens=4)
    assert (found.ids, found.text, found.finish_reason) == ((end,), "", "end_of_text")
    for found in best_of(lens, "the cat", sampler=f"logit_bias={{{end}: 100.0}}", count=2, max_new_tokens=4, seed=1):
        assert (found.ids, found.finish_reason) == ((end,), "end_of_text")


def test_what_config_json_says_counts_no_more(lens):
    text = lens.generate("the cat", sampler="logit_bias={0: 100.0}", max_new_tokens=3)
    assert (text.ids, text.finish_reason) == ([0, 0, 0], "length")


def test_searches_take_numbers_of_numpy(lens):
    plain = beam_search(lens, "the", num_beams=2, max_new_tokens=3, length_penalty=0.5, early_stopping=True)
    assert plain == beam_search(
        lens,
        "the",
        num_beams=np.int64(2),
        max_new_tokens=np.int32(3),
        length_penalty=np.float32(0.5),
        early_stopping=np.bool_(True),
    )
    assert contrastive_search(lens, "the", penalty_alpha=0.5, max_new_tokens=2) == contrastive_search(
        lens, "the", penalty_alpha=np.float32(0.5), top_k=np.int64(4), max_new_tokens=2
    )
    options = {"count": 2, "max_new_tokens": 2, "seed": 1}
    found = best_of(lens, "the", temperature=np.float32(0.5), top_k=np.int64(3), top_p=np.float64(0.9), **options)
    assert found == best_of(lens, "the", temperature=0.5, top_k=3, top_p=0.9, **options)
