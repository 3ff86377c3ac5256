"""The model that ships is the one that its card describes, and does what the card says.

`benchmarks/model.py --write` measured it and wrote the results; here a sample of them is measured again.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import model_script
import numpy as np
import pytest

import onnxlens
from onnxlens.analysis import head_scores
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._running.generation import generate_ids
from onnxlens.runtime._running.logits import log_softmax
from recipe import tasks
from recipe.answers import Vocabulary, answers
from recipe.loops import loop
from recipe.passes import next_tokens

MODELS = Path(__file__).parents[2] / "models"

KINDS = {
    "indirect_objects": tasks.indirect_objects,
    "agreements": tasks.agreements,
    "closings": tasks.closings,
    "comparisons": tasks.comparisons,
}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MODELS / "tiny-results.json").read_text())
    return found


@pytest.fixture(scope="module")
def lens() -> onnxlens.Lens:
    return onnxlens.load(MODELS / "tiny", provider="cpu", threads=1)


def test_the_results_are_those_of_this_bundle(results: dict[str, Any]) -> None:
    bundle = Bundle(MODELS / "tiny", verify=True)
    assert results["bundle"]["sha256"] == {name: file.sha256 for name, file in bundle.manifest.files.items()}
    size = sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file())
    assert results["rows"]["bytes"]["value"] == size
    assert results["rows"]["parameters"]["value"] == model_script.load().parameters(bundle)


def test_every_target_is_met(results: dict[str, Any]) -> None:
    script = model_script.load()
    values = {key: row["value"] for key, row in results["rows"].items()}
    assert not {key: values[key] for key, most in script.AT_MOST.items() if values[key] > most}
    assert not {key: values[key] for key, least in script.AT_LEAST.items() if values[key] < least}
    for key, row in results["rows"].items():
        assert (row["at_most"], row["at_least"]) == (script.AT_MOST.get(key), script.AT_LEAST.get(key)), key


def test_the_card_shows_the_results(results: dict[str, Any]) -> None:
    script = model_script.load()
    page = (MODELS / "README.md").read_text()
    names = [field.name for field in fields(script.Row)]
    rows = [script.Row(**{name: row[name] for name in names}) for row in results["rows"].values()]
    assert script.table(rows) in page
    assert script.predictions(results["predictions"]) in page


@pytest.mark.parametrize("kind", KINDS)
def test_questions_are_answered_as_the_card_says(kind: str, results: dict[str, Any], lens: onnxlens.Lens) -> None:
    count = 100
    vocabulary, predict = Vocabulary.of(lens.runner.bundle), next_tokens(lens.runner)
    asked = KINDS[kind](count, results["settings"]["seed"])
    share = answers(asked, lens.tokenizer.encode, vocabulary, predict).share
    stated = results["rows"][kind]["value"]
    assert share == pytest.approx(stated, abs=4 * math.sqrt(stated * (1 - stated) / count) + 1 / count)


def test_the_heads_that_are_named_do_what_is_said_of_them(results: dict[str, Any], lens: onnxlens.Lens) -> None:
    tokens = Vocabulary.of(lens.runner.bundle).ordinary
    found = head_scores(lens, length=50, count=8, seed=results["settings"]["seed"] + 1, tokens=tokens)
    assert found.accuracy == pytest.approx(results["rows"]["repeated"]["value"], abs=0.05)
    for name, score in (
        ("induction", found.induction),
        ("previous_token", found.previous),
        ("duplicate_token", found.duplicate),
    ):
        head = results["heads"]["strongest"][name]
        assert score[head["layer"], head["head"]] == pytest.approx(head["score"], abs=0.1), name
        assert np.abs(score - results["heads"]["scores"][name]).max() < 0.1, name  # of other texts


NEAR = 1e-3  # two tokens so near in probability may change places on another processor


def test_predictions_and_continuations_are_those_of_the_card(results: dict[str, Any], lens: onnxlens.Lens) -> None:
    script = model_script.load()
    assert [stated["prompt"] for stated in results["predictions"]] == list(script.PROMPTS)
    for stated in results["predictions"]:
        found = {candidate.token: candidate.probability for candidate in lens.predict(stated["prompt"], top=10).top}
        for token, chance in stated["top"]:
            assert found.get(token) == pytest.approx(chance, abs=NEAR), (stated["prompt"], token)
        ids, certain = [], True
        prompt = lens.tokenizer.encode(stated["prompt"])
        for step in generate_ids(
            lens.runner, prompt, lambda logits, *_: int(logits.argmax()), max_new_tokens=script.NEW, overflow="slide"
        ):
            second, first = np.sort(np.exp(log_softmax(step.logits)))[-2:]
            certain = certain and first - second >= NEAR
            if not certain:
                break
            ids.append(step.token)
        text = lens.to_string(ids) if ids else ""
        assert stated["continuation"].startswith(text.rstrip("\ufffd"))
        if certain:
            assert text == stated["continuation"]
            assert (loop(ids) is None) == (stated["loop"] is None)
