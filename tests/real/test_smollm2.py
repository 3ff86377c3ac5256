"""SmolLM2-135M-Instruct: what it is known to say, and what the tools find in it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from onnxlens import Intervention, metrics
from onnxlens.analysis import attribute_logit, head_scores, patch_activations

pytestmark = pytest.mark.real

GAVE = "When Mary and John went to the shop, {} gave a drink to"


def test_its_shape(smollm2):
    cfg = smollm2.cfg
    assert (cfg.n_layers, cfg.n_heads, cfg.n_key_value_heads, cfg.d_vocab, cfg.n_ctx) == (30, 9, 3, 49152, 8192)


@pytest.mark.parametrize(
    ("prompt", "token", "probability"),
    [("The capital of France is", " Paris", 0.77), (GAVE.format("John"), " Mary", 0.91)],
)
def test_it_says_what_transformers_says(smollm2, prompt, token, probability):
    best = smollm2.predict(prompt).top[0]
    assert best.token == token and abs(best.probability - probability) < 0.01


def test_a_text_goes_to_tokens_and_back(smollm2):
    text = "Zoë's café: 3.14 € — naïve, 你好!\n\tdef f(x): return x"
    assert smollm2.to_string(smollm2.to_tokens(text)[0]) == text


def test_without_its_induction_heads_it_does_not_continue_what_repeats(smollm2):
    """Random tokens, twice: only the first half can tell what comes in the second (Olsson et al. 2022)."""
    scores = head_scores(smollm2, length=24, count=4)
    order = np.argsort(-scores.induction, axis=None)
    places = [tuple(int(one) for one in np.unravel_index(place, scores.induction.shape)) for place in order]
    assert scores.induction[places[0]] > 0.5
    half = np.random.default_rng(0).integers(100, 40000, (4, 24))
    ids = np.concatenate([half, half], axis=1)

    def accuracy(heads):
        edits = [Intervention.zero(("z", layer), heads=head) for layer, head in heads]
        logits = smollm2.run(ids, logits="all", interventions=edits, keep_cache=False).logits
        return float((logits[:, 24:-1].argmax(-1) == ids[:, 25:]).mean())

    blocks = {layer for layer, _ in places[:8]}
    others = [place for place in places[8:] if place[0] in blocks and scores.induction[place] < 0.05][:8]
    plain = accuracy([])
    assert plain > 0.5 and len(others) == 8
    assert accuracy(others) > 0.8 * plain
    assert accuracy(places[:4]) < 0.5 * plain
    assert accuracy(places[:8]) < 0.1 * plain


def test_patching_moves_the_indirect_object(smollm2):
    """Wang et al. 2022, "Interpretability in the Wild": who gave decides who is given to."""
    metric = metrics.logit_difference(" Mary", " John")
    texts = GAVE.format("John"), GAVE.format("Mary")
    found = patch_activations(smollm2, *texts, metric, hook="z")
    assert found.clean > 3 and found.corrupted < -3
    best = np.unravel_index(found.recovered.argmax(), found.recovered.shape)
    assert found.recovered[best] > 0.3 and best[0] > 15
    stream = patch_activations(smollm2, *texts, metric, hook="resid_pre")
    assert stream.recovered[0].max() > 0.99  # the token itself
    assert stream.recovered[-1, -1] > 0.9  # at the end, it is all at the last position


def test_the_parts_of_a_logit_add_up(smollm2):
    found = attribute_logit(smollm2, "The capital of France is", " Paris")
    assert abs(found.total - found.logit) < 1e-3 * np.abs(found.heads).sum()


_PEAK = """
import resource, sys
import onnxlens
lens = onnxlens.load(sys.argv[1], provider="cpu", threads=2)
lens.predict([*range(100, 100 + int(sys.argv[2]))])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_a_long_text_takes_little_more_memory_than_a_short_one(smollm2):
    """In one pass, it took 3 GB more: the scores of a block alone are 600 MB, of which there are several copies."""

    def peak(tokens):
        command = [sys.executable, "-c", _PEAK, str(smollm2.runner.bundle.path), str(tokens)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert peak(4096) < peak(512) + 1.2e9
