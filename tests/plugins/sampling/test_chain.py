"""What all samplers have in common, what a chain checks, and how options and texts are read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling_references import INF, NAN, PLUGINS, Letters, context, decided, logits_of, same_but_for_ties, theirs
from yardstick import close

from onnxlens.plugins._options import Option, json_schema, make, option_names
from onnxlens.plugins.samplers import (
    SAMPLERS,
    Allowed,
    Chain,
    Context,
    Greedy,
    Gumbel,
    Multinomial,
    RepetitionPenalty,
    Sampler,
    Temperature,
    TopK,
    TopP,
    parse,
    softmax,
)
from onnxlens.plugins.samplers.builtin import register_samplers
from onnxlens.runtime.errors import InputError, OutputError, PluginError

TOKENIZER = Letters()

# One of each, as text, with options that do something.
STAGES = {
    "top_k": "top_k=3",
    "top_p": "top_p=0.7",
    "min_p": "min_p=0.2",
    "typical_p": "typical_p=0.6",
    "epsilon_cutoff": "epsilon_cutoff=0.1",
    "eta_cutoff": "eta_cutoff=0.3",
    "tfs_z": "tfs_z=0.6",
    "top_n_sigma": "top_n_sigma=1.0",
    "top_h": "top_h=0.5",
    "xtc": "xtc(probability=1, threshold=0.1)",
    "temperature": "temperature=0.6",
    "dynatemp": "dynatemp(range=0.5, temperature=0.9)",
    "logit_bias": "logit_bias={1: 2.0, 'c': -1}",
    "bad_words": "bad_words=[2, 'dab']",
    "suppress_tokens": "suppress_tokens=['d', 4]",
    "min_length": "min_length=99",
    "min_new_tokens": "min_new_tokens=99",
    "forced_bos": "forced_bos=3",
    "forced_eos": "forced_eos=4",
    "exponential_decay_length_penalty": "exponential_decay_length_penalty(start=1, factor=1.5)",
    "repetition_penalty": "repetition_penalty=1.5",
    "presence_penalty": "presence_penalty=0.5",
    "frequency_penalty": "frequency_penalty(penalty=0.5, window=3)",
    "no_repeat_ngram_size": "no_repeat_ngram_size=2",
    "dry": "dry(allowed_length=1)",
    "mirostat": "mirostat(tau=1.5)",
    "mirostat_v2": "mirostat_v2=1.5",
    "regex": "regex='[a-z]*'",
    "json_schema": "json_schema={'type': 'string'}",
    "lark": "lark='start: /[a-z]*/'",
    "greedy": "greedy",
    "multinomial": "multinomial",
    "gumbel": "gumbel",
}
SIZE = len(TOKENIZER.letters)
IDS = [[0, 1, 2, 0, 1], [3, 3, 3, 3, 3], [5, 0, 5, 0, 5]]


def sampler(name: str) -> Sampler:
    (made,) = parse(STAGES[name], PLUGINS).samplers
    return made


def at(step: int, rows=slice(None), seed: int = 0):
    return context(IDS[rows], step, seed, eos_token_id=0, max_new_tokens=3, tokenizer=TOKENIZER)


def rows(seed: int = 0) -> np.ndarray:
    logits = (np.random.default_rng(seed).normal(size=(3, SIZE)) * 2).astype(np.float32)
    logits[:, 20:25] = -INF
    logits[1, 6:] = -INF
    return logits


def test_every_sampler_is_here_and_is_registered():
    found = {}
    register_samplers(found.__setitem__)
    assert found == SAMPLERS
    assert set(STAGES) == set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_options_have_a_help_and_a_schema_and_the_class_a_summary(name):
    schema = json_schema(SAMPLERS[name])
    assert list(schema["properties"]) == list(option_names(SAMPLERS[name]))
    assert all(option["description"].endswith(".") for option in schema["properties"].values())
    summary = SAMPLERS[name].__doc__.splitlines()[0]
    assert summary.endswith((".", ":")) and not summary.startswith(SAMPLERS[name].__name__ + "(")


# What was generated, 'bc' and such, is no JSON; test_constrained.py has texts that are.
ANY_TEXT = sorted(set(SAMPLERS) - {"json_schema"})


@pytest.mark.parametrize("name", ANY_TEXT)
@pytest.mark.parametrize("step", [0, 2])
def test_the_logits_given_stay_and_what_is_ruled_out_stays_so(name, step):
    logits = rows()
    before = logits.copy()
    after = sampler(name)(logits, at(step))
    np.testing.assert_array_equal(logits, before)
    assert after.shape == logits.shape and after.dtype.kind == "f"
    assert np.isneginf(after[np.isneginf(logits)]).all()
    assert (after > -INF).any(axis=1).all()


@pytest.mark.parametrize(
    "name", sorted(set(ANY_TEXT) - {"multinomial", "gumbel"})
)  # whose rows have draws of their own
@pytest.mark.parametrize("step", [0, 2])
def test_a_row_does_not_depend_on_the_others(name, step):
    logits = rows()
    together = sampler(name)(logits, at(step))
    for row in range(3):
        alone = sampler(name)(logits[[row]], at(step, slice(row, row + 1)))
        np.testing.assert_array_equal(together[[row]], alone)


class Numbers:
    """A source of randomness that gives the numbers it was made with."""

    def __init__(self, numbers) -> None:
        self.numbers = numbers

    def random(self, size: int) -> np.ndarray:
        assert size == len(self.numbers)
        return self.numbers


@given(seed=st.integers(0, 2**32))
def test_with_its_number_a_row_is_drawn_as_it_would_be_alone(seed):
    """Though in the batch one row is full and another nearly empty, which are summed in different places."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 400)).astype(np.float32)
    logits[1, rng.random(400) < 0.9] = -INF
    logits[2, 3:] = -INF
    numbers = rng.random(3)
    together = Multinomial()(logits, Context(np.zeros((3, 1), np.int64), 0, Numbers(numbers)))
    for row in range(3):
        one = Context(np.zeros((1, 1), np.int64), 0, Numbers(numbers[[row]]))
        np.testing.assert_array_equal(Multinomial()(logits[[row]], one), together[[row]])


@pytest.mark.parametrize("name", ANY_TEXT)
def test_a_seed_decides(name):
    first, second = (sampler(name)(rows(), at(1, seed=5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", [Multinomial, Gumbel])
def test_rows_are_drawn_independently_and_from_the_distribution(kind):
    logits = np.array([1.0, 0.0, -INF, 2.0, 1.0])
    many = np.broadcast_to(logits, (40_000, 5))
    chosen = kind()(many, context(seed=7)).argmax(axis=1)
    p = softmax(logits[np.newaxis])[0]
    counts = np.bincount(chosen, minlength=5)
    assert counts[2] == 0
    assert (np.abs(counts / 40_000 - p) < 5 * np.sqrt(p * (1 - p) / 40_000) + 1e-12).all()
    # Neighbours agree as often as independent draws do.
    same, expected = (chosen[1:] == chosen[:-1]).mean(), (p**2).sum()
    assert abs(same - expected) < 5 * np.sqrt(expected * (1 - expected) / 40_000)


def test_gumbel_noise_of_a_token_does_not_depend_on_what_is_ruled_out():
    """So ruling out others than the chosen one does not change the choice."""
    logits = np.random.default_rng(0).normal(size=(200, 30))
    chosen = Gumbel()(logits, context()).argmax(axis=1)
    worst = logits.argmin(axis=1)
    fewer = logits.copy()
    fewer[np.arange(200), worst] = -INF
    again = Gumbel()(fewer, context()).argmax(axis=1)
    np.testing.assert_array_equal(chosen[chosen != worst], again[chosen != worst])


@given(
    logits=logits_of(),
    temperature=st.floats(0.1, 5),
    k=st.integers(1, 40),
    p=st.floats(0.05, 0.95),
    penalty=st.floats(0.5, 2),
)
def test_chains_are_those_of_transformers(logits, temperature, k, p, penalty):
    from transformers.generation import logits_process as they

    ids = [[token % logits.shape[-1] for token in (1, 2, 3)]] * len(logits)
    chain = Chain((RepetitionPenalty(penalty), Temperature(temperature), TopK(k)))
    reference = theirs(
        "LogitsProcessorList",
        logits,
        [
            they.RepetitionPenaltyLogitsProcessor(penalty),
            they.TemperatureLogitsWarper(temperature),
            they.TopKLogitsWarper(k),
        ],
        ids=ids,
    )
    found = chain(logits, context(ids))
    same = np.isneginf(found) == np.isneginf(reference)
    # Their logits are float32: what differs by less than its digits may tie there.
    assert same.all() or np.diff(np.unique(RepetitionPenalty(penalty)(logits, context(ids)))).min() < 1e-4
    if same.all():
        close(found, reference)
        if decided(TopP, p, reference):
            expected = theirs("TopPLogitsWarper", reference, p)
            assert same_but_for_ties(TopP(p)(reference, context()), expected)


class Named:
    """A function by the name that errors tell."""

    __name__ = "my_sampler"

    def __init__(self, result) -> None:
        self.result = result

    def __call__(self, logits, context):
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (np.full((1, 3), -INF), "The sampler my_sampler leaves no token to choose from."),
        (np.array([[0.0, NAN, 1.0]]), "The sampler my_sampler returns logits that are NaN or infinite."),
        (np.array([[0.0, INF, 1.0]]), "The sampler my_sampler returns logits that are NaN or infinite."),
        (
            np.zeros((1, 2)),
            "The sampler my_sampler must return logits of the same shape, [1, 3], not [1, 2].",
        ),
        (None, "The sampler my_sampler must return an array of floating-point logits, not NoneType."),
        (
            np.zeros((1, 3), np.int64),
            "The sampler my_sampler must return an array of floating-point logits, not an array of int64.",
        ),
        (KeyError("x"), "The sampler my_sampler failed: KeyError: 'x' (line "),
        (SystemExit(0), "The sampler my_sampler failed: SystemExit: 0 (line "),
        (OutputError("Its own words."), "Its own words."),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_sampler_that_does_what_it_may_not_is_named(result, expected, nested):
    inner = Chain((Named(result),)) if nested else Named(result)
    with pytest.raises((InputError, OutputError, PluginError)) as caught:
        Chain((TopK(2), inner, Greedy()))(np.zeros((1, 3), np.float32), context())
    assert str(caught.value).startswith(expected)


def test_a_sampler_cannot_write_into_what_others_need():
    def writes(logits, context):
        logits *= 0
        return logits

    with pytest.raises(PluginError, match=r"^The sampler writes failed: ValueError: output array is read-only \(line"):
        Chain((writes,))(np.ones((1, 3), np.float32), context())


def test_a_built_in_that_leaves_no_token_is_named():
    with pytest.raises(InputError, match=r"^The sampler SuppressTokens leaves no token to choose from\.$"):
        parse("top_k=1 | suppress_tokens=[2]", PLUGINS)(np.float32([[0, 1, 2]]), context())


def test_wrong_logits_are_not_blamed_on_a_sampler():
    with pytest.raises(InputError, match=r"^The logits hold NaN, or no token is left to choose from\.$"):
        Chain((TopK(2),))(np.array([[NAN, 1.0]]), context())


def test_what_was_ruled_out_stays_so_or_who_brings_it_back_is_named():
    def resurrect(logits, context):
        return np.zeros_like(logits)

    expected = r"^The sampler resurrect revives the token 0, which was ruled out before \(row 1\)\.$"
    with pytest.raises(InputError, match=expected):
        Chain([resurrect])(np.array([[1.0, 2.0], [-INF, 1.0]]), context([(1,), (2,)]))


@dataclasses.dataclass
class Starts(Sampler):
    """Sets something up."""

    size: Annotated[int, Option("how many", ge=1)] = 1

    def __post_init__(self):
        self.double = 2 * self.size

    def __call__(self, logits, context):
        return logits


def test_options_are_checked_before_what_a_plugin_sets_up():
    assert Starts(np.int64(3)).double == 6
    with pytest.raises(InputError, match=r"^Starts: size must be a whole number of at least 1, not 0\.$"):
        Starts(0)
    with pytest.raises(InputError, match=r"^Starts: size must be a whole number, not 'x'\.$"):
        Starts("x")


def test_what_cannot_be_called_is_no_sampler():
    with pytest.raises(InputError, match=r"^A chain is made of samplers, and 5 is not one\.$"):
        Chain((5,))
    with pytest.raises(InputError, match=r"^A chain is made of samplers, not of their classes: write Greedy\(\.\.\.\)"):
        Chain((Greedy,))


@pytest.mark.parametrize("method", ["accept", "reset", "clone"])
def test_what_else_a_sampler_fails_at_is_its_own(method):
    class Fails(TopK):
        pass

    setattr(Fails, method, lambda *arguments: 1 / 0)
    chain = Chain((Fails(2),))
    arguments = (np.array([0]), context()) if method == "accept" else ()
    with pytest.raises(PluginError, match=r"^The sampler Fails failed: ZeroDivisionError: division by zero \(line "):
        getattr(chain, method)(*arguments)
    Fails.clone = lambda self: None
    with pytest.raises(
        PluginError, match=r"^The sampler Fails failed: TypeError: clone\(\) must return another sampler, not"
    ):
        chain.clone()


def test_a_chain_resets_clones_and_tells_all_of_its_samplers():
    @dataclasses.dataclass
    class Counter(Sampler):
        told: int = dataclasses.field(default=0, init=False)

        def __call__(self, logits, context):
            return logits

        def accept(self, ids, context):
            self.told += 1

        def reset(self):
            self.told = 0

    counter = Counter()
    chain = Chain((TopK(2), Chain((counter, lambda logits, context: logits))))
    chain.accept(np.array([1]), context())
    clone = chain.clone()
    clone.accept(np.array([1]), context())
    assert counter.told == 1 and clone.stages[1].told == 2
    clone.reset()
    assert counter.told == 1 and clone.stages[1].told == 0


def test_a_function_is_not_copied_with_the_chain():
    """Else one that holds a lock or a model could not be used."""
    with Path(__file__).open() as file:  # which cannot be copied
        chain = Chain((file.write, Allowed(file.seek)))
        assert chain.clone() == chain


def test_whether_a_chain_chooses_is_said_by_its_last_sampler():
    assert Chain((TopK(2), Greedy())).chooses and Chain((Chain((Gumbel(),)),)).chooses
    assert not Chain((Greedy(), TopK(2))).chooses and not Chain(()).chooses


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("top_k", {"n": 3}, "top_k has no option 'n'; its options are k."),
        (
            "xtc",
            {"treshold": 3},
            "xtc has no option 'treshold'; its options are probability, threshold. Did you mean 'threshold'?",
        ),
        ("greedy", {"k": 3}, "greedy has no option 'k'; it has no options."),
        ("top_k", {}, "top_k: it needs the option k."),
        ("top_k", {"k": 0}, "top_k: k must be a whole number of at least 1, not 0."),
        ("min_p", {"p": 1.5}, "min_p: p must be a number of at most 1.0, not 1.5."),
        ("top_n_sigma", {"n": "inf"}, "top_n_sigma: n must be a number of at most 1000000.0, not 'inf'."),
        ("temperature", {"temperature": INF}, "temperature must be a number of at most 1000000.0, not inf."),
        ("top_p", {"p": 10**400}, f"top_p: p must be a number that a computer can hold, not {str(10**400)[:100]}…."),
        ("bad_words", {"words": "ab"}, "bad_words: words must be a list, not 'ab'."),
        ("suppress_tokens", {"tokens": [1.5]}, "suppress_tokens: tokens[0] must be a whole number or text, not [1.5]."),
        (
            "logit_bias",
            {"bias": {}},
            'logit_bias: bias must be a mapping such as {"a": 1} of length at least 1, not {}.',
        ),
        (
            "temperature",
            {"temperature": 0},
            "temperature must be at least 1e-06, not 0; the sampler greedy always takes the most probable token.",
        ),
    ],
)
def test_an_option_that_is_none(name, options, expected):
    with pytest.raises(InputError) as caught:
        make(SAMPLERS[name], name, options)
    assert str(caught.value) == expected


def test_an_option_without_bounds_must_still_be_finite():
    @dataclasses.dataclass(frozen=True)
    class Shift(Sampler):
        by: Annotated[float, Option("What to add.")] = 0.0

        def __call__(self, logits, context):
            return logits + self.by

    assert make(Shift, "shift", {"by": "2"}) == Shift(2.0)
    for value, told in (("nan", "nan"), (-INF, "-inf")):
        with pytest.raises(InputError, match=rf"^shift: by must be a finite number, not {told}\.$"):
            make(Shift, "shift", {"by": value})
    with pytest.raises(InputError, match=r"^Shift: by must be a number, not '2'\.$"):
        Shift("2")


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_an_entry_in_the_documents_with_an_example(name):
    text = (Path(__file__).parents[3] / "docs" / "samplers.md").read_text(encoding="utf-8")
    _, found, entry = text.partition(f"\n### {name}\n")
    assert found, f"docs/samplers.md has no entry {name}"
    entry = entry.partition("\n### ")[0]
    assert f"<!-- generated: sampler_{name} -->" in entry
    assert f'"{name}' in entry and "```python" in entry
