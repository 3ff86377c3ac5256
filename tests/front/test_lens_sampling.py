"""Samplers through the front door: chains as text, state, and explanations, in Python and on the command line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from yardstick import probable

import onnxlens
from onnxlens._lens import Lens
from onnxlens.plugins.samplers import Chain, Context, Greedy, MirostatV2, Multinomial, Sampler, Temperature, TopK, TopP
from onnxlens.runtime.errors import InputError, PluginError

END = 0
CHAIN = "repetition_penalty=1.2 | top_k=30 | top_p=0.9 | temperature=0.8"


@pytest.fixture(scope="module")
def lens(bundle) -> Lens:
    return onnxlens.load(bundle("base"), provider="cpu", threads=1)


def ids(lens: Lens, **options) -> list[int]:
    generation = lens.generate("the cat", **{"max_new_tokens": 8, "seed": 5, **options})
    list(generation)
    return generation.ids


def test_the_short_options_are_a_chain(lens):
    expected = ids(lens, temperature=0.8, top_k=30, top_p=0.9)
    assert ids(lens, sampler="temperature=0.8 | top_k=30 | top_p=0.9") == expected
    assert ids(lens, sampler="temperature=0.8 | top_k=30 | top_p=0.9 | multinomial") == expected
    assert ids(lens, sampler=Chain((Temperature(0.8), TopK(30), TopP(0.9), Multinomial()))) == expected
    assert ids(lens, sampler="greedy") == ids(lens, temperature=0) == ids(lens, sampler="top_k=1")


def test_a_chain_of_text_knows_the_text_the_tokenizer_and_the_length(lens):
    first = lens.tokenizer.encode("z")[0]
    assert ids(lens, sampler="forced_eos", max_new_tokens=1) == [END]
    found = ids(lens, sampler="forced_bos=z | min_new_tokens=4 | logit_bias={0: 1000} | greedy")
    assert found[0] == first and len(found) == 5 and found[-1] == END


def test_the_sampler_given_keeps_no_memory_of_a_text(lens):
    sampler = Chain((MirostatV2(tau=2.0), Multinomial()))
    once = ids(lens, sampler=sampler)
    assert ids(lens, sampler=sampler) == once
    assert sampler.samplers[0]._mu is None


def test_a_sampler_is_told_what_was_chosen(lens):
    told = []

    @dataclasses.dataclass
    class Listener(Sampler):
        def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
            return logits

        def accept(self, ids: np.ndarray, context: Context) -> None:
            told.append((ids.tolist(), context.step, context.max_new_tokens, context.eos_token_id))

    found = ids(lens, sampler=Chain((Listener(), Greedy())), max_new_tokens=3)
    assert told == [([token], step, 3, END) for step, token in enumerate(found)]


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (
            "top_q=3",
            "There is no sampler 'top_q'. Did you mean 'top_p'? 'onnxlens plugins' lists all of them.",
        ),
        (5, "A chain is made of samplers, and 5 is not one."),
        ("", "The chain '' has an empty stage; stages are separated by single '|'."),
    ],
)
def test_a_sampler_that_is_none_is_an_error_before_the_first_token(lens, sampler, expected):
    with pytest.raises((InputError, PluginError)) as caught:
        lens.generate("a", sampler=sampler)
    assert str(caught.value) == expected


def test_a_sampler_that_rules_out_everything_is_named(lens):
    generation = lens.generate("a", sampler=f"top_k=1 | min_p=1 | suppress_tokens={list(range(300))}")
    with pytest.raises(InputError, match=r"^The sampler SuppressTokens leaves no token to choose from\.$"):
        next(generation)


@pytest.mark.parametrize("options", [{"sampler": CHAIN}, {"temperature": 0.7, "top_p": 0.8}, {"sampler": "greedy"}])
def test_an_explanation_is_of_what_generate_chooses(lens, options):
    plain = ids(lens, **options)
    explained = list(lens.generate("the cat", max_new_tokens=8, seed=5, explain=True, **options))
    assert [token.id for token in explained] == [token.explanation.chosen.id for token in explained] == plain
    once = lens.explain_sampling("the cat", seed=5, **options)
    assert once.to_dict() == explained[0].explanation.to_dict()
    prediction = lens.predict("the cat")
    expected = prediction.probabilities[once.chosen.id]
    probable(once.chosen.model_probability, expected, prediction.logits)
    assert once.chosen.token == lens.tokenizer.pieces([once.chosen.id])[0]


def test_without_asking_there_is_no_explanation(lens):
    assert next(lens.generate("the cat", seed=5)).explanation is None


def test_the_command_takes_a_chain(command, lens, bundle):
    found = command("generate", "the cat", "-n", 8, "--seed", 5, "--sampler", CHAIN, "-m", bundle("base"), "--json")
    assert found.code == 0, found.err
    documents = [json.loads(line) for line in found.out.splitlines()]
    assert [document["id"] for document in documents[:-1]] == ids(lens, sampler=CHAIN)
    assert set(documents[0]) == {"id", "text", "logprob"}


def test_the_command_explains(command, lens, bundle):
    arguments = ("generate", "the cat", "-n", 2, "--seed", 5, "--sampler", CHAIN, "-m", bundle("base"), "--explain")
    documents = [json.loads(line) for line in command(*arguments, "--json").out.splitlines()]
    expected = lens.explain_sampling("the cat", seed=5, sampler=CHAIN, max_new_tokens=2).to_dict()
    assert documents[0]["explanation"] == json.loads(json.dumps(expected))
    found = command(*arguments)
    assert found.code == 0, found.err
    first, header, *stages, how = found.out.split("\n\n")[0].splitlines()
    assert first == f"{expected['chosen']['token']!r} (token {expected['chosen']['id']})"
    assert header.split() == ["sampler", "tokens", "left", "removed", "their", "probability", "moved"]
    assert [stage.split("(")[0] for stage in stages] == ["RepetitionPenalty", "TopK", "TopP", "Temperature"]
    low, high = expected["interval"]
    assert (
        f"Multinomial() of {expected['tokens']}; {expected['number']:.4f} fell between {low:.4f} and {high:.4f}" in how
    )


def test_a_wrong_chain_is_one_line(command, bundle):
    found = command("generate", "the cat", "--sampler", "top_k=0", "-m", bundle("base"))
    assert (found.code, found.out) == (1, "")
    assert found.err == "Error: top_k: k must be a whole number of at least 1, not 0.\n"


PLUGIN = '''
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from onnxlens.plugins import Option, Sampler, hookimpl

ONNXLENS_PLUGIN_API = 1


@dataclass
class Only(Sampler):
    """Leaves one token."""

    token: Annotated[int, Option("which", ge=0)] = 0

    def __call__(self, logits, context):
        left = np.full_like(logits, -np.inf)
        left[:, self.token] = 0
        return left


@hookimpl
def register_samplers(register):
    register("only", Only)
'''


def test_a_chain_names_the_samplers_of_plugins_and_a_broken_one_says_why(bundle, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "torn.py").write_text("ONNXLENS_PLUGIN_API = 1\nraise RuntimeError('torn apart')\n")
    files = [tmp_path / "mine.py", tmp_path / "torn.py"]
    lens = onnxlens.load(bundle("base"), provider="cpu", threads=1, plugins=files)
    found = [token.id for token in lens.generate("the cat", sampler="top_k=400 | only=7", max_new_tokens=3)]
    assert found == [7, 7, 7]
    with pytest.raises(PluginError, match="torn apart"):
        lens.generate("the cat", sampler="torn=1", max_new_tokens=1)
    with pytest.raises(PluginError, match=r"There is no sampler 'onli'\. Did you mean 'only'\?"):
        lens.generate("the cat", sampler="onli", max_new_tokens=1)
