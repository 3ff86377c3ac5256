"""Generation on the cache: what it chooses, what it collects, where it ends, and what happens at the context limit."""

from __future__ import annotations

import json

import numpy as np
import oracle
import pytest
from checkpoints import MODELS, random_weights, stored_as_float16
from hypothesis import given, settings
from hypothesis import strategies as st
from yardstick import close

from onnxlens.runtime._running.generation import Step, generate_ids
from onnxlens.runtime.errors import ContextLengthError, HookPointError, InputError

LIMIT = 48


def greedy(logits: np.ndarray, ids: np.ndarray, step: int) -> int:
    return int(logits.argmax())


def generated(model, prompt, n, choose=greedy, **options) -> list[Step]:
    return list(generate_ids(model, prompt, choose, max_new_tokens=n, **options))


@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_are_those_of_the_oracle_and_of_transformers(runner, checkpoint, name):
    import torch
    from transformers import AutoModelForCausalLM

    model, prompt = runner(name), [11, 60, 7, 150]
    found = [step.token for step in generated(model, prompt, 24)]
    text = [*prompt]
    for _ in range(24):
        text.append(int(oracle.run_bundle(model.bundle, np.array([text]))["logits"][0, -1].argmax()))
    assert found == text[4:]
    theirs = AutoModelForCausalLM.from_pretrained(checkpoint(name)).generate(
        torch.tensor([prompt]), max_new_tokens=24, min_new_tokens=24, do_sample=False, pad_token_id=0,
        attention_mask=torch.ones(1, 4, dtype=torch.int64), eos_token_id=None,
    )  # fmt: skip
    assert found == theirs[0, 4:].tolist()


def test_weights_stored_as_float16_generate_what_the_rounded_weights_do(runner):
    model, prompt = runner("base-float16"), [11, 60, 7, 150]
    config = json.loads((model.bundle.path / "config.json").read_text())
    expected = oracle.greedy(config, stored_as_float16(random_weights(config)), np.array([prompt]), 24)[0, 4:]
    assert [step.token for step in generated(model, prompt, 24)] == expected.tolist()


@settings(max_examples=20)
@given(data=st.data(), prompt=st.lists(st.integers(0, 299), min_size=1, max_size=20))
def test_what_a_generation_collects_is_what_one_pass_over_the_final_text_reads(runner, data, prompt):
    model = runner(data.draw(st.sampled_from(sorted(MODELS)), label="model"))
    chosen = data.draw(st.lists(st.integers(0, 299), min_size=1, max_size=10), label="chosen")
    ends = data.draw(st.integers(0, len(chosen)), label="ends after")  # by a stop string or end of text, or not
    taken: list[int] = []

    def end(token: int) -> bool:
        taken.append(token)
        return len(taken) == ends

    steps = generated(model, prompt, len(chosen), lambda *a: chosen[a[2]], ends=end, names_filter="*")
    assert [step.token for step in steps] == taken == chosen[: ends or len(chosen)]
    assert [step.last for step in steps] == [False] * (len(steps) - 1) + [True]
    assert [step.cache for step in steps[:-1]] == [None] * (len(steps) - 1)
    cache = steps[-1].cache
    text = prompt + taken
    assert cache.tokens.tolist() == [text]
    assert cache.model == model.bundle.name
    whole = model.run(text, names_filter="*")
    assert list(cache) == list(whole.activations)
    for name, value in whole.activations.items():
        assert cache[name].shape == value.shape, name
        close(cache[name], value, name=name)
    for index, step in enumerate(steps):
        close(step.logits, whole.logits[0, len(prompt) + index - 1])


def test_nothing_is_collected_where_nothing_was_asked_for(runner):
    assert generated(runner("base"), [1], 3)[-1].cache is None


def test_the_chooser_sees_the_text_so_far(runner):
    seen = []

    def choose(logits: np.ndarray, ids: np.ndarray, step: int) -> int:
        seen.append((logits.shape, ids.tolist(), step))
        return 7 + step

    generated(runner("base"), [1, 2], 3, choose)
    assert seen == [((300,), [1, 2], 0), ((300,), [1, 2, 7], 1), ((300,), [1, 2, 7, 8], 2)]


def test_no_pass_runs_that_nobody_reads(runner, monkeypatch):
    model = runner("base")
    lengths = []
    real = type(model).run
    monkeypatch.setattr(type(model), "run", lambda self, ids, **k: lengths.append(np.size(ids)) or real(self, ids, **k))
    generated(model, [1, 2, 3], 4)
    assert lengths == [3, 1, 1, 1]
    lengths.clear()
    generated(model, [1, 2, 3], 4, names_filter="hook_embed")
    assert lengths == [3, 1, 1, 1, 1]


def test_a_text_that_just_fits_is_generated(runner):
    steps = generated(runner("base"), [1] * 40, 8, names_filter="hook_embed")
    assert len(steps) == 8
    assert steps[-1].cache["hook_embed"].shape == (1, LIMIT, 32)


def refused(kind, model, prompt, n, **options) -> str:
    """The error comes before the first token is asked for."""
    with pytest.raises(kind) as caught:
        generate_ids(model, prompt, greedy, max_new_tokens=n, **options)
    return str(caught.value)


def test_a_text_that_would_not_fit_states_both_numbers(runner):
    assert refused(ContextLengthError, runner("base"), [1] * 40, 9) == (
        "The prompt has 40 tokens and 9 more were asked for, 49 in all; this model has 48 positions. "
        "Ask for fewer, shorten the prompt, or let the text slide (overflow='slide', --overflow slide)."
    )


def test_hook_points_cannot_be_read_over_more_positions_than_there_are(runner):
    text = refused(ContextLengthError, runner("base"), [1] * 40, 9, overflow="slide", names_filter="*")
    assert text == "Hook points can be read over at most 48 positions, and this generation would have 49."


@pytest.mark.parametrize("n", [0, -1, 2.0, True, None])
def test_the_number_of_tokens_must_be_positive(runner, n):
    expected = f"max_new_tokens must be a whole number of at least 1, not {n!r}."
    assert refused(InputError, runner("base"), [1], n) == expected


def test_another_word_for_overflow(runner):
    assert refused(InputError, runner("base"), [1], 1, overflow="wrap") == (
        "overflow must be 'error' or 'slide', not 'wrap'."
    )


def test_an_unknown_hook_point_is_an_error_before_the_first_token(runner):
    assert "'hook_x'" in refused(HookPointError, runner("base"), [1], 1, names_filter="hook_x")


@settings(max_examples=15)
@given(prompt=st.lists(st.integers(0, 299), min_size=1, max_size=100), n=st.integers(1, 80))
def test_a_sliding_window_goes_past_the_limit_and_is_deterministic(runner, prompt, n):
    """Each token is the one that follows the window: full passes over the windows agree."""
    model = runner("base")
    first = [step.token for step in generated(model, prompt, n, overflow="slide")]
    assert first == [step.token for step in generated(model, prompt, n, overflow="slide")]
    assert len(first) == n
    text, start = list(prompt), max(0, len(prompt) - LIMIT)
    for token in first:
        if len(text) - start > LIMIT:
            start = len(text) - LIMIT // 2
        logits = model.run(text[start:], logits="last").logits[0, -1]
        close(logits[token], logits.max(), scale=logits)
        text.append(token)


def test_a_sliding_window_changes_nothing_where_everything_fits(runner):
    plain, sliding = (
        [step.token for step in generated(runner("base"), [1, 2], 40, overflow=which)] for which in ("error", "slide")
    )
    assert plain == sliding


@settings(max_examples=15)
@given(data=st.data())
def test_rows_of_a_cache_can_be_continued_in_any_order_and_number(runner, data):
    model = runner(data.draw(st.sampled_from(["base", "wide"]), label="model"))
    ids = np.random.default_rng(4).integers(0, model.config.d_vocab, (3, 6))
    mask = np.ones_like(ids)
    mask[1, :2] = 0
    first = model.run(ids, mask)
    rows = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=5), label="rows")
    new = np.random.default_rng(5).integers(0, model.config.d_vocab, (len(rows), 2))
    found = model.run(new, names_filter="blocks.*.attn.hook_pattern", kv_cache=first.kv_cache, cache_rows=rows)
    whole = model.run(np.concatenate([ids[rows], new], axis=1), np.concatenate([mask[rows], np.ones_like(new)], axis=1))
    close(found.logits, whole.logits[:, -2:])
    assert found.kv_cache.batch == len(rows) and len(found.kv_cache) == 8
    again = model.run(new[:1, :1], kv_cache=found.kv_cache, cache_rows=[len(rows) - 1])
    assert len(again.kv_cache) == 9


@pytest.mark.parametrize("rows", [[3], [-1], [0.5], [[0]], "a"])
def test_rows_that_a_cache_does_not_have_are_refused(runner, rows):
    model = runner("base")
    cache = model.run([[1, 2]] * 3).kv_cache
    with pytest.raises(InputError, match="cache_rows must be rows of the cache, 0 to 2, not"):
        model.run([[1]], kv_cache=cache, cache_rows=rows)
    with pytest.raises(InputError, match=r"cache_rows names 2 rows and input_ids has 1\."):
        model.run([[1]], kv_cache=cache, cache_rows=[0, 1])
