"""What the engine answers equals what the lens and the analyses give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from yardstick import close

import onnxlens
from onnxlens.analysis import ablate_heads, attribute_logit, logit_lens
from onnxlens.metrics import logit_difference
from onnxlens.plugins.explorer import Engine, _engine
from onnxlens.plugins.explorer._engine import EXAMPLE, ContinueRequest, RunRequest, SweepRequest
from onnxlens.runtime.errors import InputError, OnnxLensError

TEXT = "When Mary and John went to the shop, John gave a drink to"


@pytest.fixture(scope="module")
def lens():
    with onnxlens.load(provider="cpu", threads=1) as opened:
        yield opened


def test_a_run_has_what_it_reads(lens):
    reads = [*Engine.DERIVED, "blocks.3.attn.hook_pattern"]
    answer = Engine(lens).run(RunRequest(text=TEXT, reads=reads, top=4))
    facts, arrays = answer.facts, answer.arrays
    token, against = facts["token"], facts["against"]
    assert [lens.to_string([one]) for one in (token, against)] == [" Mary", " James"]  # not "Mary", without a space
    assert [one["id"] for one in facts["tokens"]] == lens.to_tokens(TEXT)[0].tolist()
    assert "".join(one["label"] for one in facts["tokens"]) == TEXT
    prediction = lens.predict(TEXT, top=4)
    close(arrays["next.logits"], prediction.logits)
    assert arrays["next.ids"].tolist() == [one.id for one in prediction.top]
    guesses = logit_lens(lens, TEXT, top=4, watch=[token])
    assert np.array_equal(arrays["guesses.ids"], guesses.ids)
    assert np.array_equal(arrays["guesses.rank"], guesses.watched_rank[..., 0])
    assert facts["states"] == list(guesses.labels)
    parts = attribute_logit(lens, TEXT, token, against)
    close(arrays["effects.heads"], parts.heads)
    close(arrays["sources"].sum(-1), parts.heads, scale=np.abs(arrays["sources"]).sum(-1).max())
    rest = facts["effects"]
    total = arrays["effects.heads"].sum() + arrays["effects.mlps"].sum() + sum(rest[name] for name in list(rest)[:4])
    close(total, rest["logit"], scale=np.abs(parts.mlps).max())
    _, cache = lens.run_with_cache(TEXT, names_filter="blocks.3.attn.hook_pattern")
    assert np.array_equal(arrays["blocks.3.attn.hook_pattern"], cache["pattern", 3][0])
    named = {str(one) for one in [token, against, *arrays["next.ids"].tolist(), *np.unique(guesses.ids).tolist()]}
    assert set(facts["labels"]) == named


def test_an_answer_is_kept_and_the_page_begins_with_the_same_example(lens):
    engine = Engine(lens)
    engine.prepare()
    asked = RunRequest(text=EXAMPLE, reads=[*Engine.DERIVED])
    assert engine.run(asked) is engine.run(asked)
    assert f'const EXAMPLE = "{EXAMPLE}";' in (Path(_engine.__file__).parent / "web" / "src" / "App.svelte").read_text()


def test_an_edit_changes_the_run(lens):
    edit = {"hook": "blocks.4.attn.hook_z", "operation": "zero", "heads": 1}
    answer = Engine(lens).run(RunRequest(text=TEXT, reads=["next", "effects"], edits=[edit]))
    close(answer.arrays["next.logits"], lens.predict(TEXT, interventions=onnxlens.Intervention.from_dict(edit)).logits)
    assert answer.arrays["effects.heads"][4, 1] == 0


def test_a_sweep_is_the_effect_of_each_head(lens):
    token, against = lens.to_single_token(" Mary"), lens.to_single_token(" John")
    answer = Engine(lens).sweep(SweepRequest(text=TEXT, token=token, against=against))
    found = ablate_heads(lens, TEXT, logit_difference(token, against))
    close(answer.arrays["effects"], -found.effects)


def test_a_continuation_is_that_of_generate(lens):
    tokens = list(Engine(lens).continuation(ContinueRequest(text=TEXT, max_new_tokens=5, top_k=40, seed=3)))
    expected = lens.generate(TEXT, max_new_tokens=5, top_k=40, seed=3)
    assert "".join(token["text"] for token in tokens) == expected.text
    assert {token["seed"] for token in tokens} == {3}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "Give either text or ids."),
        ({"text": "a", "ids": [1]}, "Give either text or ids."),
        ({"ids": [10**6]}, "Token id 1000000 is out of range"),
        ({"text": "a", "top": 0}, "top must be from 1 to 100, not 0."),
        ({"text": "a", "position": 5}, "position must be from -1 to 0, not 5."),
        ({"text": "a", "reads": ["hook_x"]}, "Unknown hook point 'hook_x'"),
        ({"text": "a", "edits": [{"hook": "hook_embed"}]}, "An intervention needs the entry 'operation'."),
        ({"text": "a " * 300}, "The text is"),
    ],
)
def test_what_cannot_be_run_is_an_error(lens, asked, expected):
    with pytest.raises((InputError, OnnxLensError)) as caught:
        Engine(lens).run(RunRequest(**asked))
    assert str(caught.value).startswith(expected)


def test_a_family_with_shared_keys_and_rotated_positions(bundle):
    with onnxlens.load(bundle("llama"), provider="cpu", threads=1) as lens:
        answer = Engine(lens).run(RunRequest(text="the cat sat", reads=[*Engine.DERIVED, "*.hook_rot_q"]))
        assert answer.arrays["sources"].shape == (
            lens.config.n_layers,
            lens.config.n_heads,
            len(answer.facts["tokens"]),
        )
        assert answer.facts["effects"]["pos_embed"] == 0
