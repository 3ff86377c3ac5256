"""`onnxlens analyze`: each table and document says what the function behind it found."""

from __future__ import annotations

import pytest

import onnxlens
from onnxlens.analysis.ablation import ablate_heads
from onnxlens.analysis.attention import head_scores
from onnxlens.analysis.logit_attribution import attribute_logit
from onnxlens.analysis.logit_lens import logit_lens
from onnxlens.analysis.patching import patch_activations
from onnxlens.analysis.surprisal import surprisal
from onnxlens.metrics import log_probability, logit_difference

CLEAN = "When Mary and John went to the shop, John gave a drink to"
CORRUPTED = "When Mary and John went to the shop, Mary gave a drink to"
DIFFERENCE = ["--answer", " Mary", "--against", " John"]


@pytest.fixture(scope="module")
def lens():
    return onnxlens.load(provider="cpu", threads=1)


@pytest.fixture
def analyze(command):
    return lambda *arguments, **options: command("analyze", *arguments, "--provider", "cpu", "--threads", 1, **options)


def test_logit_lens(analyze, lens):
    found = logit_lens(lens, "Once upon a time", top=2)
    document = analyze("logit-lens", "Once upon a time", "--top", 2, "--json").json
    assert document["ids"] == found.ids.tolist()
    assert document["rank"] == found.rank.tolist()
    assert document["labels"] == list(found.labels)
    assert document["tokens"] == lens.to_str_tokens("Once upon a time")
    table = analyze("logit-lens", "Once upon a time").out
    assert "final_post" in table.splitlines()[0]
    assert repr(lens.to_str_tokens([int(found.ids[-1, -1, 0])])[0]) in table.splitlines()[4]


def test_dla(analyze, lens):
    found = attribute_logit(lens, CLEAN, " Mary", " John", neurons=True)
    document = analyze("dla", CLEAN, *DIFFERENCE, "--neurons", 3, "--json").json
    assert document["heads"] == found.heads.tolist()
    assert document["neurons"] == found.neurons.tolist()
    assert document["answer"] == [" Mary", " John"]
    parts = sum(map(sum, document["heads"])) + sum(document["mlps"])
    parts += document["embed"] + document["pos_embed"] + document["biases"]
    assert parts == pytest.approx(document["logit"], abs=1e-4)
    ran = analyze("dla", CLEAN, *DIFFERENCE, "--neurons", 3)
    assert f"the logit of ' Mary' less that of ' John': {found.logit:.3f}" in ran.out
    assert f"{found.heads[2, 1]:+.2f}" in ran.out
    assert sum(", neuron " in line for line in ran.out.splitlines()) == 3


def test_ablate(analyze, lens):
    found = ablate_heads(lens, CLEAN, logit_difference(" Mary", " John"))
    document = analyze("ablate", CLEAN, *DIFFERENCE, "--json").json
    assert document["values"] == found.values.tolist()
    assert document["baseline"] == found.baseline
    assert document["metric"] == "logit(' Mary') - logit(' John')"
    ran = analyze("ablate", CLEAN)
    assert "change of log p(' Mary') without a head" in ran.out  # the most probable token, where none is named
    assert len(ran.out.splitlines()) == 1 + lens.config.n_layer + 1
    mean = ablate_heads(lens, CLEAN, log_probability(" Mary"), operation="mean")
    assert analyze("ablate", CLEAN, "--operation", "mean", "--json").json["values"] == mean.values.tolist()


def test_patch(analyze, lens):
    found = patch_activations(lens, CLEAN, CORRUPTED, logit_difference(" Mary", " John"))
    document = analyze("patch", CLEAN, "--corrupted", CORRUPTED, *DIFFERENCE, "--json").json
    assert document["values"] == found.values.tolist()
    assert (document["clean"], document["corrupted"]) == (found.clean, found.corrupted)
    lines = analyze("patch", CLEAN, "--corrupted", CORRUPTED, *DIFFERENCE).out.splitlines()
    assert lines[0].split() == ["token", *(word for n in range(lens.config.n_layer) for word in ("layer", str(n)))]
    assert lines[1 + 9].split()[2:] == [f"{value:+.2f}" for value in found.recovered[:, 9]]
    heads = analyze("patch", CLEAN, "--corrupted", CORRUPTED, *DIFFERENCE, "--hook", "z").out.splitlines()
    assert heads[0].split()[:2] == ["head", "0"]


def test_heads(analyze, lens):
    found = head_scores(lens, length=20, count=4, seed=3)
    options = ("--length", 20, "--count", 4, "--seed", 3)
    document = analyze("heads", *options, "--json").json
    assert document["induction"] == found.induction.tolist()
    assert document["accuracy"] == found.accuracy
    table = analyze("heads", *options).out
    assert f"{found.accuracy:.1%} of the repeated tokens are predicted" in table
    assert len(table.splitlines()) == 1 + lens.config.n_layer * lens.config.n_head + 1


def test_surprisal(analyze, lens):
    found = surprisal(lens, CLEAN)
    document = analyze("surprisal", CLEAN, "--json").json
    assert document["surprisal"] == found.values.tolist()
    assert document["tokens"] == lens.to_str_tokens(CLEAN)[1:]
    lines = analyze("surprisal", "-", stdin=CLEAN.encode()).out.splitlines()
    assert lines[1].split()[-3:] == [f"{found.values[0]:.2f}", f"{found.entropy[0]:.2f}", str(found.rank[0])]
    assert f"perplexity {found.perplexity:.1f}" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["dla", CLEAN, "--answer", "Mary and"], "'Mary and' is 2 tokens ("),
        (["ablate", CLEAN, "--answer", " Marylebone"], "The metric's token ' Marylebone' is"),
        (["ablate", CLEAN, "--operation", "one"], "operation must be 'zero' or 'mean', not 'one'."),
        (["patch", CLEAN, "--corrupted", "Mary"], "Clean and corrupted text must have the same number of tokens"),
        (["patch", CLEAN, "--corrupted", CLEAN], "nothing can be restored."),
        (["heads", "--length", "1"], "length must be a whole number from 2 to"),
        (["surprisal", "a"], "give a text of at least two tokens."),
        (["logit-lens", "a", "--top", "0"], "top must be a whole number from 1 to"),
    ],
)
def test_what_cannot_be_analysed_is_one_line(analyze, arguments, text):
    ran = analyze(*arguments)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: ")
    assert text in ran.err
    assert len(ran.err.splitlines()) == 1


def test_an_unknown_analysis_is_wrong_usage(analyze):
    assert analyze("heat").code == 2
