"""What predictions, generations and explanations show in a notebook: HTML in which every text is escaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

import onnxlens
from onnxlens._prediction import Candidate, Prediction
from onnxlens.plugins._registry import Registry
from onnxlens.runtime._text.token_text import quoted_token

EVIL = "<script>alert(1)</script>&'\"\n"


@pytest.fixture(scope="module")
def lens(bundle):
    return onnxlens.load(bundle("base"), provider="cpu", threads=1, plugins=Registry(find=False))


def texts(html: str, tag: str) -> list[str]:
    assert "<script" not in html
    return ["".join(one.itertext()) for one in ElementTree.fromstring(html).iter(tag)]


def test_a_prediction_is_its_tokens_and_a_table_of_candidates(lens):
    prediction = lens.predict("the <b> cat", top=4)
    html = prediction._repr_html_()
    assert texts(html, "code") == [quoted_token(piece) for piece in prediction.pieces[0]]
    cells = texts(html, "td")
    assert len(cells) == 4 * 5
    for number, one in enumerate(prediction.top):
        expected = [
            quoted_token(lens.tokenizer.pieces([one.id])[0]),
            str(one.id),
            f"{one.logit:.3f}",
            f"{one.probability:.2%}",
        ]
        assert cells[5 * number : 5 * number + 4] == expected


def test_bars_are_as_long_as_probabilities():
    logits = np.zeros(2, np.float32)
    top = [Candidate(0, EVIL, 0.0, 1.0), Candidate(1, "b", 0.0, 0.5), Candidate(2, "c", 0.0, 1 / 192)]
    cells = texts(Prediction([1], [EVIL], top, logits, logits)._repr_html_(), "td")
    assert (cells[0], cells[4], cells[9], cells[14]) == (quoted_token(EVIL), "█" * 24, "█" * 12, "▏")


def test_a_generation_is_generated_to_be_shown(lens):
    prompt = "the <b>\ncat"
    html = lens.generate(prompt, max_new_tokens=5, sampler="top_k=1", seed=3)._repr_html_()
    again = lens.generate(prompt, max_new_tokens=5, sampler="top_k=1", seed=3)
    assert texts(html, "pre") == [prompt + again.text]
    assert texts(html, "b") == [prompt]
    assert texts(html, "small") == [f"5 tokens, ended by {again.finish_reason}; seed 3 gives it again"]


def test_an_explanation_is_its_stages_and_candidates(lens):
    explanation = lens.explain_sampling("the cat", sampler="top_k=5 | temperature=0.7", seed=1)
    html = explanation._repr_html_()
    tables = re.findall("<table>.*?</table>", html)
    stages, candidates = (texts(one, "td") for one in tables)
    assert stages[::5] == ["TopK(k=5)", "Temperature(temperature=0.7)"]
    assert candidates[::5] == [quoted_token(one.token) for one in explanation.candidates]
    assert candidates[3::5] == [f"{one.probability:.2%}" for one in explanation.candidates]
    (marked,) = [number for number, cell in enumerate(candidates[4::5]) if cell.endswith("← chosen")]
    assert explanation.candidates[marked] == explanation.chosen
    assert explanation.reason in "".join(ElementTree.fromstring(html).itertext())
