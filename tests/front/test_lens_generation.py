"""Generation through the front door: text, seeds, stop strings, ends, and what is collected on the way."""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yardstick import close

import onnxlens
from onnxlens._lens import Lens
from onnxlens.plugins.samplers import Chain, Greedy, Sampler, Temperature
from onnxlens.runtime.errors import ContextLengthError, HookFunctionError, HookPointError, InputError, PluginError

END = 0


@pytest.fixture(scope="module")
def lens(bundle) -> Lens:
    return onnxlens.load(bundle("base"), provider="cpu", threads=1)


def script(ids):
    """A sampler that takes given tokens, one after the other."""

    def sampler(logits, context):
        left = np.full_like(logits, -np.inf)
        left[:, ids[context.step]] = 0
        return left

    return sampler


def spoken(lens: Lens, text: str, **options):
    """Generates the tokens of a text, then end of text."""
    ids = [*lens.tokenizer.encode(text), END]
    return lens.generate("a", sampler=script(ids), max_new_tokens=min(len(ids), 47), **options)


def test_greedy_text_is_the_same_every_time_and_streams_as_its_parts(lens):
    one, two = (lens.generate("the cat", max_new_tokens=12, temperature=0) for _ in range(2))
    tokens = list(one)
    assert "".join(token.text for token in tokens) == "".join(map(str, two)) == one.text == two.text
    assert one.ids == two.ids == [token.id for token in tokens]
    assert one.text == lens.to_string([token for token in one.ids if token != END])
    assert one.prompt_ids == lens.to_tokens("the cat")[0].tolist()


def test_a_seed_reproduces_and_another_does_not(lens):
    def ids(seed):
        generation = lens.generate("the cat", max_new_tokens=15, temperature=0.9, top_k=50, top_p=0.95, seed=seed)
        list(generation)
        return generation.ids

    assert ids(7) == ids(7)
    assert ids(7) != ids(8)


def test_the_seed_that_was_drawn_reproduces(lens):
    first = lens.generate("the cat", max_new_tokens=10)
    list(first)
    again = lens.generate("the cat", max_new_tokens=10, seed=first.seed)
    list(again)
    assert first.ids == again.ids


@settings(max_examples=40)
@given(ids=st.lists(st.integers(1, 299), min_size=1, max_size=20))
def test_the_pieces_of_any_tokens_join_to_their_text(lens, ids):
    generation = lens.generate("a", sampler=script(ids), max_new_tokens=len(ids))
    assert "".join(token.text for token in generation) == lens.to_string(ids) == generation.text
    assert generation.finish_reason == "length"


@settings(max_examples=40)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_any_text_streams_as_itself_and_ends_with_end_of_text(lens, text):
    if "<|" in text or len(lens.tokenizer.encode(text)) > 45:
        return
    generation = spoken(lens, text) if text else lens.generate("a", sampler=script([END]), max_new_tokens=9)
    assert "".join(token.text for token in generation) == text
    assert generation.finish_reason == "end_of_text"
    assert generation.ids[-1] == END


@pytest.mark.parametrize(
    ("stop", "expected"),
    [("sat", "the cat "), (["dog", "cat"], "the "), ("t s", "the ca"), ("the", ""), (("on",), "the cat sat ")],
)
def test_a_stop_string_ends_the_text_and_is_not_in_it(lens, stop, expected):
    generation = spoken(lens, "the cat sat on", stop=stop)
    assert "".join(token.text for token in generation) == expected == generation.text
    assert generation.finish_reason == "stop"
    assert END not in generation.ids


def test_what_may_become_a_stop_string_comes_out_where_it_does_not(lens):
    generation = spoken(lens, "abxab", stop="aby")
    assert [token.text for token in generation] == ["", "", "abx", "", "", "ab"]
    assert generation.finish_reason == "end_of_text"


@pytest.mark.parametrize("how", ["length", "stop", "end_of_text"])
def test_what_was_collected_covers_the_final_text(lens, how):
    options = {"stop": ("sat",)} if how == "stop" else {}
    ids = [*lens.tokenizer.encode("the cat sat"), END]
    count = len(ids) - 1 if how == "length" else len(ids)
    generation = lens.generate("a", sampler=script(ids), max_new_tokens=count, names_filter="*", **options)
    assert generation.cache is not None  # reading it generates
    assert generation.finish_reason == how
    text = generation.prompt_ids + generation.ids
    assert generation.cache.tokens.tolist() == [text]
    _, whole = lens.run_with_cache(text, names_filter="*")
    assert list(generation.cache) == list(whole)
    for name, value in whole.items():
        close(generation.cache[name], value, name)


@pytest.mark.parametrize("name", ["text", "ids", "finish_reason", "applied", "cache"])
def test_reading_a_result_before_iterating_generates_everything(lens, name):
    options = {"max_new_tokens": 6, "seed": 4, "names_filter": "hook_embed"}
    tokens = list(lens.generate("the cat", **options))
    generation = lens.generate("the cat", **options)
    getattr(generation, name)
    assert generation.finish_reason == "length"
    assert generation.ids == [token.id for token in tokens]
    assert str(generation) == generation.text == "".join(token.text for token in tokens)
    assert generation.cache.tokens.shape == (1, len(generation.prompt_ids) + 6)
    assert list(generation) == tokens  # none is lost
    assert list(generation) == []


def test_a_generation_that_has_begun_is_not_continued_by_reading(lens):
    generation = lens.generate("the cat", max_new_tokens=6, names_filter="hook_embed")
    first = next(generation)
    assert (generation.ids, generation.text, generation.cache) == ([first.id], first.text, None)
    assert "1 token, so far" in repr(generation)
    assert "1 token, so far" in generation._repr_html_()
    assert generation.ids == [first.id]


def test_an_error_while_a_result_is_read_is_raised_and_what_came_before_it_is_kept(lens):
    def fails(logits, context):
        if context.step == 2:
            raise ValueError("no more")
        return logits

    generation = lens.generate("a", sampler=fails, max_new_tokens=5)
    with pytest.raises(PluginError, match="no more"):
        _ = generation.text
    assert len(generation.ids) == len(list(itertools.islice(generation, 2))) == 2


def test_what_a_generation_says_of_itself_computes_nothing(lens, monkeypatch):
    generation = lens.generate("the cat", max_new_tokens=6)
    monkeypatch.setattr(lens.runner, "run", None)
    assert repr(generation) == "Generation('the cat': not begun; read .text, or iterate over it)"


def test_one_may_leave_a_generation_and_come_back(lens):
    generation = lens.generate("the cat", max_new_tokens=6, temperature=0)
    first = [token.id for token in itertools.islice(generation, 2)]
    assert generation.finish_reason is None
    assert generation.ids == first
    rest = [token.id for token in generation]
    whole = lens.generate("the cat", max_new_tokens=6, temperature=0)
    assert first + rest == [token.id for token in whole]
    assert list(whole) == []


def test_an_empty_prompt_starts_from_end_of_text(lens):
    assert lens.generate("", max_new_tokens=1).prompt_ids == [END]


def test_ids_do_as_well_as_the_text_they_come_from(lens):
    ids = lens.to_tokens("the cat")
    expected = [t.id for t in lens.generate("the cat", max_new_tokens=5, temperature=0)]
    for same in (ids, ids[0], ids[0].tolist()):
        assert [t.id for t in lens.generate(same, max_new_tokens=5, temperature=0)] == expected


def test_a_generation_that_would_not_fit_states_both_numbers(lens):
    with pytest.raises(ContextLengthError) as caught:
        lens.generate("abc", max_new_tokens=46)
    assert str(caught.value).startswith(
        "The prompt has 3 tokens and 46 more were asked for, 49 in all; this model has 48 positions."
    )


def test_sliding_goes_on(lens):
    generation = lens.generate("abc", max_new_tokens=120, overflow="slide", seed=3)
    ids = [token.id for token in generation]
    assert ids == [t.id for t in lens.generate("abc", max_new_tokens=120, overflow="slide", seed=3)]
    assert len(ids) == 120 or ids[-1] == END


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True, math.nan])
def test_a_seed_that_is_none(lens, seed):
    with pytest.raises(InputError) as caught:
        lens.generate("a", seed=seed)
    assert str(caught.value) == f"seed must be a whole number of at least 0, not {seed!r}."


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": -1}, "temperature must be a number of at least 0.0, not -1."),
        ({"temperature": math.nan}, "temperature must be a number of at least 0.0, not nan."),
        ({"top_k": 0}, "top_k: k must be a whole number of at least 1, not 0."),
        ({"top_p": 0}, "top_p: p must be a number above 0.0, not 0."),
        ({"top_p": 2}, "top_p: p must be a number of at most 1.0, not 2."),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1, not 0."),
        ({"stop": ""}, "A stop string must be a text of at least one character."),
        ({"overflow": "wrap"}, "overflow must be 'error' or 'slide', not 'wrap'."),
    ],
)
def test_an_option_that_cannot_be_used_is_an_error_before_the_first_token(lens, options, expected):
    with pytest.raises(InputError) as caught:
        lens.generate("a", **options)
    assert str(caught.value) == expected


def test_an_unknown_hook_point_is_an_error_before_the_first_token(lens):
    with pytest.raises(HookPointError, match="Unknown hook point 'hook_x'"):
        lens.generate("a", names_filter="hook_x")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([], "not an empty list"), ([300], "Token id 300 is out of range"), ([1.5], "must be whole numbers, not float")],
)
def test_a_prompt_that_cannot_be_used_is_an_error_before_the_first_token(lens, ids, expected):
    with pytest.raises(InputError, match=expected):
        lens.generate(ids)


def test_several_texts_are_an_error(lens):
    with pytest.raises(InputError, match=r"^generate takes one text at a time\.$"):
        lens.generate(["a", "b"])


@pytest.mark.parametrize("options", [{"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.5}])
def test_a_sampler_and_what_it_replaces_are_not_mixed(lens, options):
    with pytest.raises(InputError, match="Give either a sampler, or temperature, top_k and top_p"):
        lens.generate("a", sampler=Greedy(), **options)


@dataclass
class Undecided(Sampler):
    """Says that it chooses, and does not."""

    chooses = True

    def __call__(self, logits, context):
        return logits


def test_a_sampler_that_leaves_several_tokens_or_none_is_an_error(lens):
    with pytest.raises(InputError, match="leaves 300 tokens, but its last stage must leave exactly one"):
        next(lens.generate("a", sampler=Undecided()))
    with pytest.raises(InputError, match=r"^The sampler <lambda> returns logits that are NaN or infinite"):
        next(lens.generate("a", sampler=lambda logits, context: np.full_like(logits, np.nan)))


@pytest.mark.parametrize(
    "sampler", [Temperature(0.7), Chain([Temperature(0.7)]), lambda logits, context: logits / np.float32(0.7)]
)
def test_what_draws_is_added_to_a_sampler_that_does_not(lens, sampler):
    expected = [token.id for token in lens.generate("a", sampler="temperature=0.7", seed=3, max_new_tokens=5)]
    assert [token.id for token in lens.generate("a", sampler=sampler, seed=3, max_new_tokens=5)] == expected


def test_a_seed_may_be_of_numpy(lens):
    assert [t.id for t in lens.generate("a", seed=np.int64(3))] == [t.id for t in lens.generate("a", seed=3)]


def test_a_stop_that_is_no_text_is_an_error(lens):
    with pytest.raises(InputError, match="stop must be a text or a list of texts, not 5"):
        lens.generate("a", stop=5)


@pytest.mark.parametrize("use", [next, lambda generation: generation.text], ids=["iterates", "reads"])
@pytest.mark.parametrize("first", [next, lambda generation: generation.text], ids=["iterating", "reading"])
def test_a_second_thread_that_would_generate_the_same_text_is_told_so(lens, first, use):
    inside, go_on = threading.Event(), threading.Event()

    def wait(value, hook) -> None:
        inside.set()
        assert go_on.wait(10)

    generation = lens.generate("ab", max_new_tokens=3, temperature=0, fwd_hooks=[("hook_embed", wait)])
    thread = threading.Thread(target=first, args=(generation,))
    thread.start()
    assert inside.wait(10)
    try:
        if first is next and use is not next:
            assert use(generation) == ""  # nothing so far
        else:
            with pytest.raises(InputError, match=r"^This text is being generated at this moment, by another thread"):
                use(generation)
    finally:
        go_on.set()
        thread.join(30)
    rest = "".join(token.text for token in generation)
    assert generation.text == lens.generate("ab", max_new_tokens=3, temperature=0).text
    assert generation.text.endswith(rest)


def test_a_function_called_on_the_way_cannot_generate_the_same_text(lens):
    generation = lens.generate(
        "ab", max_new_tokens=2, temperature=0, fwd_hooks=[("hook_embed", lambda value, hook: next(generation))]
    )
    with pytest.raises(HookFunctionError, match="raised InputError: This text is being generated at this moment"):
        next(generation)
