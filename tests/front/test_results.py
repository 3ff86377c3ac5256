"""Results are plain values for JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

import onnxlens
from onnxlens.analysis import (
    ablate_heads,
    activation_statistics,
    attention_rollout,
    attribute_logit,
    gradient_times_input,
    head_scores,
    integrated_gradients,
    logit_lens,
    patch_activations,
    surprisal,
)
from onnxlens.decoding import beam_search
from onnxlens.metrics import logit
from onnxlens.runtime._result import plain

TEXT, OTHER = "the cat sat", "the sat cat"
RESULTS = {
    "ablation": lambda lens: ablate_heads(lens, TEXT, logit(7)),
    "beam search": lambda lens: beam_search(lens, TEXT, max_new_tokens=3)[0],
    "generation": lambda lens: lens.generate(TEXT, max_new_tokens=3, seed=1),
    "gradient times input": lambda lens: gradient_times_input(lens, TEXT, logit(7)),
    "head scores": lambda lens: head_scores(lens, length=5, count=2),
    "integrated gradients": lambda lens: integrated_gradients(lens, TEXT, logit(7), steps=4),
    "logit attribution": lambda lens: attribute_logit(lens, TEXT, 7),
    "logit lens": lambda lens: logit_lens(lens, TEXT),
    "patching": lambda lens: patch_activations(lens, TEXT, OTHER, logit(7), hook="z"),
    "prediction": lambda lens: lens.predict(TEXT),
    "rollout": lambda lens: attention_rollout(lens, TEXT),
    "statistics": lambda lens: activation_statistics(lens, [TEXT], "blocks.0.mlp.hook_post", units=[1], top=2),
    "surprisal": lambda lens: surprisal(lens, TEXT),
    "token": lambda lens: next(lens.generate(TEXT, max_new_tokens=3, seed=1, explain=True)),
}


@pytest.fixture(scope="module")
def lens(bundle):
    return onnxlens.load(bundle("base-gradients"), provider="cpu", threads=1)


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_survives_json(lens, name):
    document = RESULTS[name](lens).to_dict()
    assert document
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_arrays_keep_their_numbers(lens):
    found = ablate_heads(lens, TEXT, logit(7))
    document = found.to_dict()
    assert np.array_equal(document["values"], found.values)
    assert document["axes"] == ["layer", "head"]
    assert plain({1: np.float32(0.5), "a": (np.arange(2), None)}) == {"1": 0.5, "a": [[0, 1], None]}
