"""Parts of letters are bytes wherever a token is shown, not a mark that stands for all of them."""

from __future__ import annotations

import pytest

import onnxlens
from onnxlens.analysis import patch_activations
from onnxlens.metrics import log_probability
from onnxlens.runtime.errors import InputError

TEXT = "a 漢"
BYTES = r"'\xe6'"


@pytest.fixture(scope="module")
def lens():
    return onnxlens.load(provider="cpu", threads=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", TEXT),
        ("analyze", "logit-lens", TEXT),
        ("view", "attention", TEXT, "--layer", "2", "--head", "3"),
        ("view", "tokens", TEXT),
        ("view", "surprisal", TEXT),
        ("view", "logit-lens", TEXT),
    ],
    ids=" ".join,
)
def test_commands(command, arguments):
    ran = command(*arguments, "--provider", "cpu", "--threads", 1)
    assert ran.code == 0
    assert BYTES in ran.out
    assert "\ufffd" not in ran.out and r"\\x" not in ran.out


def test_results_in_python(lens):
    prediction = lens.predict(TEXT, top=lens.config.d_vocab)  # all tokens, those of one byte too
    token = int(lens.to_tokens(TEXT)[0, 2])
    assert next(one.token for one in prediction.top if one.id == token) == "\ufffd"  # its text by itself
    why = lens.explain_sampling(TEXT, sampler=f"logit_bias={{{token}: 100.0}} | greedy")
    assert why.chosen.token == r"\xe6"
    _, cache = lens.run_with_cache(TEXT, names_filter="hook_embed")
    for shown in (repr(prediction), prediction._repr_html_(), why._repr_html_(), cache._repr_html_()):
        assert "\ufffd" not in shown and r"\xe6" in shown and r"\\xe6" not in shown


def test_an_error_that_names_tokens(lens):
    for what in (
        lambda: lens.to_single_token("漢字"),
        lambda: patch_activations(lens, "漢", "a", log_probability("a")),
    ):
        with pytest.raises(InputError) as caught:
            what()
        assert BYTES in str(caught.value) and "\ufffd" not in str(caught.value)


def test_a_caption_has_the_whole_text(lens):
    """Not the texts of the tokens one by one, which are parts of letters."""
    assert "Prompt, 5 tokens: 'a 漢'" in lens.view("tokens", TEXT).caption
