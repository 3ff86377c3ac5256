"""Searches: against transformers on the trained model, and against the same written without any cache."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from eager import Order
from transformers import GPT2Config, GPT2LMHeadModel
from yardstick import close

import onnxlens
from onnxlens import Intervention
from onnxlens.decoding import beam_search, best_of, contrastive_search
from onnxlens.plugins.samplers import Allowed, Chain, Greedy, Mirostat, Multinomial, NoRepeatNGram, Temperature, TopK
from onnxlens.runtime._running.beams import beam_search as search
from onnxlens.runtime._running.contrastive import NORMALIZED
from onnxlens.runtime._running.logits import log_softmax
from onnxlens.runtime.errors import ContextLengthError, InputError, PluginError

PROMPTS = ["The function returns", "When Mary and John went to the shop, John gave", "Once upon a time there was"]


@pytest.fixture(scope="module")
def lens():
    return onnxlens.load(provider="cpu", threads=1)


@pytest.fixture(scope="module")
def theirs(lens):
    """The model in transformers, by the order of its coordinates: another order is another rounding."""

    @lru_cache
    def make(seed=None):
        bundle, order = lens.runner.bundle, Order(lens.runner.bundle.description, seed)
        model = GPT2LMHeadModel(GPT2Config.from_pretrained(bundle.path)).eval()
        weights = {
            f"transformer.{name}": torch.from_numpy(np.array(order.of_weight(name, weight)))
            for name, weight in bundle.weights.items()
        }
        assert not model.load_state_dict(weights, strict=False).unexpected_keys
        return model

    return make


def rounding(lens, ids, count):
    """What rounding is relative to in a sum of log-probabilities: logits, whose errors add up like a random walk."""
    return np.sqrt(count) * lens.run(ids, logits="last").logits


STOPPING = [False, True, "never"]


@pytest.mark.parametrize("early_stopping", STOPPING)
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -0.5])
def test_beam_search_is_transformers(lens, theirs, early_stopping, length_penalty):
    for number, prompt in enumerate(PROMPTS):
        beams = number + 2
        options = {"num_beams": beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
        found = beam_search(lens, prompt, num_return_sequences=beams, max_new_tokens=24, **options)
        ids = lens.to_tokens(prompt)
        for seed in (None, 0, 1, 2):  # where rounding decides between two texts, each of them is right
            rows = generated(theirs(seed), ids, [lens.tokenizer.eos_token_id], max_new_tokens=24, **options)
            if [ours.ids for ours in found] == [row for row, _ in rows]:
                break
        for ours, (row, score) in zip(found, rows, strict=True):
            assert ours.ids == row, prompt
            close(ours.score, score, scale=rounding(lens, ids, len(row)) / len(row) ** length_penalty)
            assert ours.finish_reason == ("end_of_text" if ours.ids[-1] == lens.tokenizer.eos_token_id else "length")
            assert lens.to_tokens(ours.text).size


def generated(
    model: GPT2LMHeadModel, ids: np.ndarray, ends: list[int], **options
) -> list[tuple[tuple[int, ...], float]]:
    """What transformers' beam search finds: the new tokens of each text, and its score."""
    prompt = torch.from_numpy(ids)
    with torch.inference_mode():
        found = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, pad_token_id=ends[0], eos_token_id=ends,
            output_scores=True,
            num_return_sequences=options["num_beams"], return_dict_in_generate=True, **options,
        )  # fmt: skip
    rows = []
    for row, score in zip(found.sequences[:, ids.shape[1] :].tolist(), found.sequences_scores.tolist(), strict=True):
        length = next((place for place, token in enumerate(row, 1) if token in ends), len(row))
        rows.append((tuple(row[:length]), score))
    return rows


class Computed:
    """Rows of a search on a PyTorch model, each computed anew: what the search needs of `Continuations`."""

    def __init__(self, model: GPT2LMHeadModel, prompt: np.ndarray) -> None:
        self.model, self.prompt, self.ids = model, prompt, np.zeros((1, 0), np.int64)

    @property
    def texts(self) -> np.ndarray:
        return np.concatenate([np.repeat(self.prompt, len(self.ids), axis=0), self.ids], axis=1)

    def start(self) -> SimpleNamespace:
        with torch.inference_mode():
            return SimpleNamespace(logits=self.model(torch.from_numpy(self.texts)).logits.numpy()[:, -1:])

    def advance(self, parents, tokens) -> SimpleNamespace:
        self.ids = np.concatenate([self.ids[list(parents)], np.array(tokens)[:, np.newaxis]], axis=1)
        return self.start()


def test_when_a_beam_search_ends_is_when_transformers_does():
    """Random models that end texts often, so that it matters when a search gives up."""
    rng = np.random.default_rng(7)
    matters = {"early": 0, "never": 0}
    for case in range(40):
        torch.manual_seed(case)
        size = int(rng.integers(8, 16))
        ends = [size - 1, 0, 3][: 1 + case % 3]
        config = GPT2Config(
            vocab_size=size, n_positions=20, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=ends,
            tie_word_embeddings=False,
        )  # fmt: skip
        model = GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) / 2)
            model.transformer.ln_f.bias[0] = 6  # one direction is always there, and the end of the text reads it
            model.lm_head.weight[:, 0] = 0
            model.lm_head.weight[ends, 0] = float(rng.uniform(-0.2, 0.35))
        prompt = rng.integers(0, size - 1, (1, int(rng.integers(1, 4))))
        options = {
            "num_beams": int(rng.integers(2, 5)),
            "length_penalty": float(rng.choice([-2.0, -0.5, 0.0, 0.5, 1.0, 2.0])),
            "max_new_tokens": int(rng.choice([5, 9, 20 - prompt.shape[1]])),
        }
        found = {}
        for early_stopping in STOPPING:
            beams = search(
                Computed(model, prompt),
                end_tokens=ends,
                early_stopping=early_stopping,
                **options,
            )
            rows = generated(model, prompt, ends, early_stopping=early_stopping, **options)
            assert [beam.ids for beam in beams] == [ids for ids, _ in rows], (case, early_stopping, options)
            close([beam.score for beam in beams], [score for _, score in rows])
            found[early_stopping] = [beam.ids for beam in beams]
        matters["early"] += found[True] != found[False]
        matters["never"] += found["never"] != found[False]
    assert min(matters.values()) > 0, matters  # else nothing of this was tested


def test_the_score_of_a_beam_is_computed_from_the_logits_of_the_model(lens):
    prompt = lens.to_tokens(PROMPTS[0])[0].tolist()
    for found in beam_search(lens, prompt, num_beams=3, num_return_sequences=3, max_new_tokens=9):
        ids = np.array([[*prompt, *found.ids]])
        logprobs = log_softmax(lens.run(ids).logits[0, len(prompt) - 1 : -1])
        expected = logprobs[np.arange(len(found.ids)), list(found.ids)].sum()
        scale = rounding(lens, ids, len(found.ids))
        close(found.logprob, expected, scale=scale)
        close(found.score, expected / len(found.ids), scale=scale / len(found.ids))


def test_one_beam_is_greedy(lens):
    (found,) = beam_search(lens, PROMPTS[0], num_beams=1, max_new_tokens=12)
    generation = lens.generate(PROMPTS[0], max_new_tokens=12, temperature=0)
    assert found.ids == tuple(token.id for token in generation)


def diverse(lens, prompt, groups, width, penalty, steps):
    """Diverse beam search without a cache: every text is computed anew, and nothing ends before its length."""
    ids = lens.to_tokens(prompt)[0].tolist()
    beams = [[(0.0, [])] for _ in range(groups)]
    for _ in range(steps):
        taken = np.zeros(lens.config.d_vocab)
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
    scores = [total / 6 for total, _ in expected]  # without what groups take from each other
    close([one.score for one in found], scores, scale=rounding(lens, lens.to_tokens(PROMPTS[0]), 6) / 6)
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
    logits = lens.run(np.array([ids])).logits[0, len(prompt) - 1 : -1]
    expected = log_softmax(logits)[np.arange(len(found.ids)), list(found.ids)].sum()
    close(found.logprob, expected, scale=np.sqrt(len(found.ids)) * logits)
    if alpha == 0 or top_k == 1:
        assert found.ids == tuple(token.id for token in lens.generate(prompt, max_new_tokens=10, temperature=0))


def test_the_best_of_several_is_the_likeliest_and_one_is_a_generation(lens):
    (one,) = best_of(lens, PROMPTS[1], count=1, max_new_tokens=15, top_k=20, seed=3)
    generation = lens.generate(PROMPTS[1], max_new_tokens=15, top_k=20, seed=3)
    tokens = list(generation)
    assert one.ids == tuple(token.id for token in tokens)
    close(one.logprob, sum(token.logprob for token in tokens), scale=rounding(lens, lens.to_tokens(PROMPTS[1]), 15))
    (text,) = best_of(lens, PROMPTS[1], count=1, max_new_tokens=15, sampler="top_k=20 | mirostat_v2", seed=3)
    again = lens.generate(PROMPTS[1], max_new_tokens=15, sampler="top_k=20 | mirostat_v2", seed=3)
    assert text.ids == tuple(token.id for token in again)
    several = best_of(lens, PROMPTS[1], count=5, max_new_tokens=15, top_k=20, seed=3)
    assert len(several) == 5
    assert [one.score for one in several] == sorted((one.score for one in several), reverse=True)
    assert several == best_of(lens, PROMPTS[1], count=5, max_new_tokens=15, top_k=20, seed=3)
    assert len({one.ids for one in several}) > 1
    assert len({one.ids for one in best_of(lens, PROMPTS[1], count=3, max_new_tokens=8, temperature=0)}) == 1


def test_a_search_is_of_the_model_as_a_block_of_hooks_changes_it(lens):
    edit = Intervention.scale("blocks.2.hook_mlp_out", 0.2, positions=slice(2, None))
    plain = beam_search(lens, PROMPTS[0], num_beams=3, max_new_tokens=8)
    with lens.hooks(interventions=edit):
        (changed,) = beam_search(lens, PROMPTS[0], num_beams=3, max_new_tokens=8)
        prompt = lens.to_tokens(PROMPTS[0])[0].tolist()
        logits = lens.run(np.array([[*prompt, *changed.ids]])).logits[0, len(prompt) - 1 : -1]
    assert changed != plain[0]
    expected = log_softmax(logits)[np.arange(len(changed.ids)), list(changed.ids)].sum()
    close(changed.logprob, expected, scale=np.sqrt(len(changed.ids)) * logits)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda lens: beam_search(lens, "a", num_beams=2, num_return_sequences=3), "at most num_beams, 2, not 3."),
        (lambda lens: beam_search(lens, "a", num_return_sequences=0), "must be a whole number of at least 1, not 0."),
        (lambda lens: beam_search(lens, "a", num_beams="4"), "num_beams must be a whole number of at least 1, not '4'"),
        (lambda lens: beam_search(lens, "a", num_beams=True), "num_beams must be a whole number of at least 1, not T"),
        (lambda lens: beam_search(lens, "a", num_beams=4, num_beam_groups=3, diversity_penalty=1.0), "must divide num"),
        (lambda lens: beam_search(lens, "a", num_beam_groups=2), "several groups and a penalty above 0."),
        (lambda lens: beam_search(lens, "a", diversity_penalty=1.0), "several groups and a penalty above 0."),
        (lambda lens: beam_search(lens, "a", length_penalty=float("nan")), "length_penalty must be a number from -100"),
        (
            lambda lens: beam_search(lens, "a", length_penalty=1e6),
            "length_penalty must be a number from -100 to 100, n",
        ),
        (
            lambda lens: beam_search(lens, "a", num_beam_groups=2, diversity_penalty=-1),
            "must be a number from 0 to 100",
        ),
        (lambda lens: beam_search(lens, "a", early_stopping=np.zeros(2)), "must be True, False or 'never', not array"),
        (
            lambda lens: beam_search(lens, "a", sampler=Greedy),
            "not of their classes: write Greedy(...) instead",
        ),
        (lambda lens: best_of(lens, "a", seed=-1), "seed must be a whole number of at least 0, not -1."),
        (lambda lens: best_of(lens, "a", seed="x"), "seed must be a whole number of at least 0, not 'x'."),
        (lambda lens: beam_search(lens, "a", early_stopping="soon"), "must be True, False or 'never', not 'soon'."),
        (lambda lens: beam_search(lens, "a", early_stopping=1), "must be True, False or 'never', not 1."),
        (lambda lens: beam_search(lens, "a", max_new_tokens=0), "max_new_tokens must be a whole number of at least 1"),
        (lambda lens: beam_search(lens, [[1], [2]]), "A search continues one text at a time, not 2."),
        (lambda lens: contrastive_search(lens, "a", top_k=0), "top_k must be a whole number from 1 to"),
        (lambda lens: contrastive_search(lens, "a", penalty_alpha=1.5), "penalty_alpha must be from 0 to 1, not 1.5."),
        (lambda lens: best_of(lens, "a", count=0), "count must be a whole number of at least 1, not 0."),
        (
            lambda lens: beam_search(lens, "a", sampler=Mirostat()),
            "Mirostat remembers the tokens that were chosen",
        ),
        (lambda lens: beam_search(lens, "a", num_beams=0), "num_beams must be a whole number of at least 1, not 0."),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(lens, call, text):
    with pytest.raises(InputError) as refused:
        call(lens)
    assert text in str(refused.value)


def test_what_is_too_long_is_refused(lens):
    with pytest.raises(ContextLengthError, match="this model has 256 positions"):
        best_of(lens, "a", max_new_tokens=256)


def test_a_text_that_has_ended_is_left_in_peace(lens):
    """A sampler that has nothing to say about a text which has ended is not asked."""
    end = lens.tokenizer.eos_token_id
    start = lens.to_tokens("a").shape[1]

    def ends_sooner_or_later(row, ids):
        assert end not in ids[start:]
        return [end, 500] if len(ids) - start < 5 else [end]

    found = best_of(lens, "a", count=8, sampler=Chain([Allowed(ends_sooner_or_later), Multinomial()]), seed=1)
    assert len(found) == 8
    assert all(one.ids[-1] == end and one.finish_reason == "end_of_text" for one in found)
    assert len({len(one.ids) for one in found}) > 1


def test_the_probability_by_the_model_is_told_whatever_samplers_do(lens):
    prompt = lens.to_tokens(PROMPTS[0])[0].tolist()
    (found,) = beam_search(
        lens, prompt, num_beams=3, max_new_tokens=6, sampler="temperature=3 | no_repeat_ngram_size=2"
    )
    logits = lens.run(np.array([[*prompt, *found.ids]])).logits[0, len(prompt) - 1 : -1]
    own = log_softmax(logits)[np.arange(len(found.ids)), list(found.ids)].sum()
    scale = np.sqrt(len(found.ids)) * logits
    close(found.logprob, own, scale=scale)
    close(found.score, own / 3 / len(found.ids), scale=scale / 3 / len(found.ids))


def test_a_search_does_not_change_the_sampler_it_is_given(lens):
    sampler = Mirostat()
    best_of(lens, "a", count=2, max_new_tokens=2, sampler=sampler)
    assert sampler._mu is None


def test_samplers_shape_a_beam_search(lens):
    found = beam_search(lens, PROMPTS[0], num_beams=3, max_new_tokens=6, sampler=TopK(1))
    assert found[0].ids == tuple(t.id for t in lens.generate(PROMPTS[0], max_new_tokens=6, sampler=Greedy()))
    with pytest.raises(PluginError, match=r"There is no sampler 'topk'. Did you mean 'top_k'\?"):
        beam_search(lens, PROMPTS[0], sampler="topk=1")


@pytest.mark.parametrize(
    ("arguments", "search"),
    [
        (["beam", "--num-beams", 3, "--num-return-sequences", 2, "--length-penalty", 0.5, "--early-stopping", "never"],
         lambda lens: beam_search(lens, PROMPTS[0], num_beams=3, num_return_sequences=2, length_penalty=0.5,
                                  early_stopping="never", max_new_tokens=7)),
        (["beam", "--num-beams", 4, "--num-beam-groups", 2, "--diversity-penalty", 1.5],
         lambda lens: beam_search(lens, PROMPTS[0], num_beams=4, num_beam_groups=2, diversity_penalty=1.5,
                                  max_new_tokens=7)),
        (["contrastive", "--top-k", 5, "--penalty-alpha", 0.3],
         lambda lens: [contrastive_search(lens, PROMPTS[0], top_k=5, penalty_alpha=0.3, max_new_tokens=7)]),
        (["best-of", "--count", 3, "--top-k", 9, "--seed", 4],
         lambda lens: best_of(lens, PROMPTS[0], count=3, top_k=9, seed=4, max_new_tokens=7)),
        (["beam", "--num-beams", 3, "--sampler", "no_repeat_ngram_size=2 | top_k=50"],
         lambda lens: beam_search(lens, PROMPTS[0], num_beams=3, sampler=Chain([NoRepeatNGram(2), TopK(50)]),
                                  max_new_tokens=7)),
        (["best-of", "--count", 3, "--sampler", "top_k=9 | temperature=0.5", "--seed", 4],
         lambda lens: best_of(lens, PROMPTS[0], count=3, seed=4, max_new_tokens=7,
                              sampler=Chain([TopK(9), Temperature(0.5), Multinomial()]))),
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


def test_a_position_that_a_search_does_not_come_to_is_an_error(lens):
    length = lens.to_tokens("the cat").shape[1]

    def scaled(positions):
        return Intervention.scale("hook_embed", 0.5, positions=positions)

    for find in (beam_search, contrastive_search, best_of):
        with (
            lens.hooks(interventions=scaled(slice(length + 4, None))),
            pytest.raises(InputError, match="select nothing: there are positions 0 to"),
        ):
            find(lens, "the cat", max_new_tokens=4)
        with lens.hooks(interventions=scaled(slice(length, None))):
            find(lens, "the cat", max_new_tokens=4)
    for find in (beam_search, best_of):  # which have no use for the last token's values
        with (
            lens.hooks(interventions=scaled(length + 3)),
            pytest.raises(InputError, match=f"at position {length + 3} was never reached: the text ended when"),
        ):
            find(lens, "the cat", max_new_tokens=4)
