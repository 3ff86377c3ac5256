"""Searches: against transformers on the trained model, and against the same written without any cache."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import onnxlens
from onnxlens import Intervention
from onnxlens.decoding import beam_search, best_of, contrastive_search
from onnxlens.plugins.samplers import Chain, Greedy, Multinomial, NoRepeatNGram, Temperature, TopK
from onnxlens.runtime.contrastive import NORMALIZED
from onnxlens.runtime.errors import ContextLengthError, InputError
from onnxlens.runtime.logits import log_softmax

PROMPTS = ["The function returns", "When Mary and John went to the shop, John gave", "Once upon a time there was"]


@pytest.fixture(scope="module")
def lens():
    return onnxlens.load(provider="cpu", threads=1)


@pytest.fixture(scope="module")
def theirs(lens):
    model = GPT2LMHeadModel(GPT2Config.from_pretrained(lens.runner.bundle.path)).eval()
    weights = {f"transformer.{n}": torch.from_numpy(np.array(w)) for n, w in lens.runner.bundle.weights.items()}
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    return model


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -0.5])
def test_beam_search_is_transformers(lens, theirs, early_stopping, length_penalty):
    for number, prompt in enumerate(PROMPTS):
        beams = number + 2
        options = {"num_beams": beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
        found = beam_search(lens, prompt, num_return_sequences=beams, max_new_tokens=24, **options)
        ids = torch.from_numpy(lens.to_tokens(prompt))
        with torch.inference_mode():
            expected = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
                num_return_sequences=beams, pad_token_id=lens.tokenizer.eos_token_id, output_scores=True,
                return_dict_in_generate=True, **options,
            )  # fmt: skip
        for ours, row, score in zip(found, expected.sequences.tolist(), expected.sequences_scores, strict=True):
            assert ours.ids == tuple(row[ids.shape[1] : ids.shape[1] + len(ours.ids)]), prompt
            assert set(row[ids.shape[1] + len(ours.ids) :]) <= {lens.tokenizer.eos_token_id}
            assert ours.score == pytest.approx(float(score), abs=1e-4)
            assert ours.finish_reason == ("end_of_text" if ours.ids[-1] == lens.tokenizer.eos_token_id else "length")
            assert lens.to_tokens(ours.text).size


def test_the_score_of_a_beam_is_the_model_s(lens):
    prompt = lens.to_tokens(PROMPTS[0])[0].tolist()
    for found in beam_search(lens, prompt, num_beams=3, num_return_sequences=3, max_new_tokens=9):
        ids = np.array([[*prompt, *found.ids]])
        logprobs = log_softmax(lens.run(ids).logits[0, len(prompt) - 1 : -1])
        expected = logprobs[np.arange(len(found.ids)), list(found.ids)].sum()
        assert found.logprob == pytest.approx(expected, abs=1e-4)
        assert found.score == pytest.approx(expected / len(found.ids), abs=1e-4)


def test_one_beam_is_greedy(lens):
    (found,) = beam_search(lens, PROMPTS[0], num_beams=1, max_new_tokens=12)
    generation = lens.generate(PROMPTS[0], max_new_tokens=12, temperature=0)
    assert found.ids == tuple(token.id for token in generation)


def diverse(lens, prompt, groups, width, penalty, steps):
    """Diverse beam search without a cache: every text is computed anew, and nothing ends before its length."""
    ids = lens.to_tokens(prompt)[0].tolist()
    beams = [[(0.0, [])] for _ in range(groups)]
    for _ in range(steps):
        taken = np.zeros(lens.config.vocab_size)
        for group in range(groups):
            candidates = []
            for total, new in beams[group]:
                logprobs = log_softmax(lens.run(np.array([[*ids, *new]]), logits="last").logits[0, -1])
                scores = total + logprobs - penalty * taken
                scores[lens.tokenizer.eos_token_id] = -np.inf
                best = np.argsort(-scores)[:width]
                candidates += [(float(scores[token]), [*new, int(token)]) for token in best]
            beams[group] = sorted(candidates, key=lambda one: -one[0])[:width]
            for _, new in beams[group]:
                taken[new[-1]] += 1
    return sorted((beam for group in beams for beam in group), key=lambda one: -one[0])


def test_diverse_beam_search_is_its_definition(lens):
    never = SuppressEnd(lens.tokenizer.eos_token_id)
    options = {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.7, "max_new_tokens": 6}
    found = beam_search(lens, PROMPTS[0], num_return_sequences=6, sampler=never, **options)
    expected = diverse(lens, PROMPTS[0], 3, 2, 0.7, 6)
    assert [list(one.ids) for one in found] == [new for _, new in expected]
    np.testing.assert_allclose([one.logprob for one in found], [total for total, _ in expected], atol=1e-4)
    apart = beam_search(lens, PROMPTS[0], num_return_sequences=6, sampler=never, **{**options, "diversity_penalty": 99})
    assert len({one.ids[0] for one in apart}) >= 3  # no group takes what another took


class SuppressEnd:
    """A sampler that never ends a text."""

    def __init__(self, token):
        self.token = token

    def __call__(self, logits, context):
        left = logits.copy()
        left[:, self.token] = -np.inf
        return left


@pytest.mark.parametrize(("top_k", "alpha"), [(1, 0.5), (4, 0.0), (4, 0.6), (7, 1.0)])
def test_contrastive_search_is_its_definition(lens, top_k, alpha):
    prompt = lens.to_tokens(PROMPTS[0])[0].tolist()
    found = contrastive_search(lens, prompt, top_k=top_k, penalty_alpha=alpha, max_new_tokens=10)
    ids = list(prompt)
    w, b = lens.weights["ln_final.w"], lens.weights["ln_final.b"]
    while len(ids) < len(prompt) + 10:
        logits = lens.run(np.array([ids]), logits="last").logits[0, -1].astype(float)
        probabilities = np.exp(log_softmax(logits))
        scores = {}
        for token in np.argsort(-logits)[:top_k].tolist():
            output = lens.run(np.array([[*ids, token]]), names_filter=NORMALIZED, logits="none", keep_cache=False)
            states = output.activations[NORMALIZED][0].astype(float) * w + b
            states /= np.linalg.norm(states, axis=-1, keepdims=True)
            scores[token] = (1 - alpha) * probabilities[token] - alpha * (states[:-1] @ states[-1]).max()
        ids.append(max(scores, key=scores.__getitem__))
        if ids[-1] == lens.tokenizer.eos_token_id:
            break
    assert list(found.ids) == ids[len(prompt) :]
    if alpha == 0 or top_k == 1:
        assert found.ids == tuple(token.id for token in lens.generate(prompt, max_new_tokens=10, temperature=0))


def test_the_best_of_several_is_the_likeliest_and_one_is_a_generation(lens):
    (one,) = best_of(lens, PROMPTS[1], n=1, max_new_tokens=15, top_k=20, seed=3)
    generation = lens.generate(PROMPTS[1], max_new_tokens=15, top_k=20, seed=3)
    tokens = list(generation)
    assert one.ids == tuple(token.id for token in tokens)
    assert one.logprob == pytest.approx(sum(token.logprob for token in tokens), abs=1e-4)
    (text,) = best_of(lens, PROMPTS[1], n=1, max_new_tokens=15, sampler="top_k=20 | mirostat_v2", seed=3)
    again = lens.generate(PROMPTS[1], max_new_tokens=15, sampler="top_k=20 | mirostat_v2", seed=3)
    assert text.ids == tuple(token.id for token in again)
    several = best_of(lens, PROMPTS[1], n=5, max_new_tokens=15, top_k=20, seed=3)
    assert len(several) == 5
    assert [one.score for one in several] == sorted((one.score for one in several), reverse=True)
    assert several == best_of(lens, PROMPTS[1], n=5, max_new_tokens=15, top_k=20, seed=3)
    assert len({one.ids for one in several}) > 1
    assert len({one.ids for one in best_of(lens, PROMPTS[1], n=3, max_new_tokens=8, temperature=0)}) == 1


def test_a_search_is_of_the_model_as_a_block_of_hooks_changes_it(lens):
    edit = Intervention.scale("blocks.2.hook_mlp_out", 0.2, positions=slice(2, None))
    plain = beam_search(lens, PROMPTS[0], num_beams=3, max_new_tokens=8)
    with lens.hooks(interventions=edit):
        (changed,) = beam_search(lens, PROMPTS[0], num_beams=3, max_new_tokens=8)
        prompt = lens.to_tokens(PROMPTS[0])[0].tolist()
        logits = lens.run(np.array([[*prompt, *changed.ids]])).logits[0, len(prompt) - 1 : -1]
    assert changed != plain[0]
    expected = log_softmax(logits)[np.arange(len(changed.ids)), list(changed.ids)].sum()
    assert changed.logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda lens: beam_search(lens, "a", num_beams=0), "num_return_sequences must be from 1 to num_beams, 0, not"),
        (lambda lens: beam_search(lens, "a", num_beams=2, num_return_sequences=3), "from 1 to num_beams, 2, not 3."),
        (lambda lens: beam_search(lens, "a", num_beams=True), "num_beams must be a whole number of at least 1, not T"),
        (lambda lens: beam_search(lens, "a", num_beams=4, num_beam_groups=3, diversity_penalty=1.0), "must divide num"),
        (lambda lens: beam_search(lens, "a", num_beam_groups=2), "several groups and a penalty above 0."),
        (lambda lens: beam_search(lens, "a", diversity_penalty=1.0), "several groups and a penalty above 0."),
        (lambda lens: beam_search(lens, "a", length_penalty=float("nan")), "length_penalty must be a finite number"),
        (lambda lens: beam_search(lens, "a", early_stopping="soon"), "must be True, False or 'never', not 'soon'."),
        (lambda lens: beam_search(lens, "a", early_stopping=1), "must be True, False or 'never', not 1."),
        (lambda lens: beam_search(lens, "a", max_new_tokens=0), "max_new_tokens must be a whole number of at least 1"),
        (lambda lens: beam_search(lens, [[1], [2]]), "A search continues one text at a time, not 2."),
        (lambda lens: contrastive_search(lens, "a", top_k=0), "top_k must be a whole number from 1 to"),
        (lambda lens: contrastive_search(lens, "a", penalty_alpha=1.5), "penalty_alpha must be from 0 to 1, not 1.5."),
        (lambda lens: best_of(lens, "a", n=0), "n must be a whole number of at least 1, not 0."),
        (lambda lens: best_of(lens, "a", sampler=Temperature(1.0)), "must leave one token in each row"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(lens, call, text):
    with pytest.raises(InputError) as refused:
        call(lens)
    assert text in str(refused.value)
    with pytest.raises(ContextLengthError, match="this model has 256 positions"):
        best_of(lens, "a", max_new_tokens=256)


def test_samplers_shape_a_beam_search(lens):
    found = beam_search(lens, PROMPTS[0], num_beams=3, max_new_tokens=6, sampler=TopK(1))
    assert found[0].ids == tuple(t.id for t in lens.generate(PROMPTS[0], max_new_tokens=6, sampler=Greedy()))
    with pytest.raises(InputError, match=r"There is no sampler 'topk'. Did you mean 'top_k'\?"):
        beam_search(lens, PROMPTS[0], sampler="topk=1")


@pytest.mark.parametrize(
    ("arguments", "search"),
    [
        (["beam", "--num-beams", 3, "--num-return", 2, "--length-penalty", 0.5, "--early-stopping", "never"],
         lambda lens: beam_search(lens, PROMPTS[0], num_beams=3, num_return_sequences=2, length_penalty=0.5,
                                  early_stopping="never", max_new_tokens=7)),
        (["beam", "--num-beams", 4, "--num-beam-groups", 2, "--diversity-penalty", 1.5],
         lambda lens: beam_search(lens, PROMPTS[0], num_beams=4, num_beam_groups=2, diversity_penalty=1.5,
                                  max_new_tokens=7)),
        (["contrastive", "--top-k", 5, "--penalty-alpha", 0.3],
         lambda lens: [contrastive_search(lens, PROMPTS[0], top_k=5, penalty_alpha=0.3, max_new_tokens=7)]),
        (["best-of", "--count", 3, "--top-k", 9, "--seed", 4],
         lambda lens: best_of(lens, PROMPTS[0], n=3, top_k=9, seed=4, max_new_tokens=7)),
        (["beam", "--num-beams", 3, "--sampler", "no_repeat_ngram_size=2 | top_k=50"],
         lambda lens: beam_search(lens, PROMPTS[0], num_beams=3, sampler=Chain([NoRepeatNGram(2), TopK(50)]),
                                  max_new_tokens=7)),
        (["best-of", "--count", 3, "--sampler", "top_k=9 | temperature=0.5", "--seed", 4],
         lambda lens: best_of(lens, PROMPTS[0], n=3, sampler=Chain([TopK(9), Temperature(0.5), Multinomial()]), seed=4,
                              max_new_tokens=7)),
    ],
)  # fmt: skip
def test_the_command_says_what_the_search_found(command, lens, arguments, search):
    call = ["search", arguments[0], PROMPTS[0], "-n", 7, *arguments[1:], "--provider", "cpu", "--threads", 1]
    found = search(lens)
    document = command(*call, "--json").json
    assert document["continuations"] == [{**dataclasses.asdict(one), "ids": list(one.ids)} for one in found]
    table = command(*call).out.splitlines()
    assert len(table) == 1 + len(found)
    for line, one in zip(table[1:], found, strict=True):
        assert line.split()[:2] == [f"{one.score:.3f}", str(len(one.ids))]
        assert repr(one.text) in line


def test_the_command_refuses_in_one_line(command):
    refused = command("search", "beam", "a", "--early-stopping", "soon")
    assert (refused.code, refused.err) == (1, "Error: --early-stopping must be no, yes or never, not 'soon'.\n")
