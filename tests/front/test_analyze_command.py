"""`onnxlens analyze`: each table and document says what the function behind it found."""

from __future__ import annotations

import itertools
import re

import click
import pytest
from checkpoints import write_checkpoint
from filelock import FileLock
from yardstick import close

import onnxlens
from onnxlens.analysis import ablate_heads, attribute_logit, head_scores, logit_lens, patch_activations, surprisal
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


def test_view_shows_the_same_table(analyze, command):
    """Also with the same word twice, and a letter of several tokens."""
    text = "John saw John 漢"
    table = analyze("logit-lens", text, "--watch", " John").out
    shown = command("view", "logit-lens", text, "--watch", " John", "--provider", "cpu", "--threads", 1).out
    assert table.strip() in shown
    assert "' John'" in table and r"'\xe6'" in table and "\ufffd" not in table
    twice = analyze("logit-lens", "John saw John and John").out
    assert [line.split("  ")[0] for line in twice.splitlines()[1:]] == [
        "'John'", "' saw'", "' John'@2", "' and'", "' John'@4"
    ]  # fmt: skip


def test_the_same_word_twice_is_told_apart(analyze):
    surprisal = analyze("surprisal", "a John saw John").out.splitlines()
    assert [line.split("  ")[0] for line in surprisal[1:4]] == ["' John'@1", "' saw'", "' John'@3"]
    patched = analyze("patch", "a John saw John and", "--corrupted", "a Mary saw John and").out
    assert "' John'\n" not in patched and "' John'" in patched


def test_shares_of_next_to_nothing_are_said_to_be_noise(analyze):
    ran = analyze("patch", "a John saw John and", "--corrupted", "a John saw Mary and", "--answer", "the")
    assert ("of which shares are mostly noise" in ran.out) == ("differ by" in ran.out)


def test_dla(analyze, lens):
    found = attribute_logit(lens, CLEAN, " Mary", " John", neurons=True)
    document = analyze("dla", CLEAN, *DIFFERENCE, "--neurons", 3, "--json").json
    assert document["heads"] == found.heads.tolist()
    assert document["neurons"] == found.neurons.tolist()
    assert document["answer"] == [" Mary", " John"]
    parts = [*itertools.chain(*document["heads"]), *document["mlps"]]
    parts += [document["embed"], document["pos_embed"], document["biases"]]
    close(sum(parts), document["logit"], scale=parts)
    ran = analyze("dla", CLEAN, *DIFFERENCE, "--neurons", 3)
    assert f"the logit of ' Mary' minus that of ' John': {found.logit:.3f}" in ran.out
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
    assert len(ran.out.splitlines()) == 1 + lens.config.n_layers + 1
    mean = ablate_heads(lens, CLEAN, log_probability(" Mary"), operation="mean")
    assert analyze("ablate", CLEAN, "--operation", "mean", "--json").json["values"] == mean.values.tolist()


def test_patch(analyze, lens):
    found = patch_activations(lens, CLEAN, CORRUPTED, logit_difference(" Mary", " John"))
    document = analyze("patch", CLEAN, "--corrupted", CORRUPTED, *DIFFERENCE, "--json").json
    assert document["values"] == found.values.tolist()
    assert (document["clean"], document["corrupted"]) == (found.clean, found.corrupted)
    lines = analyze("patch", CLEAN, "--corrupted", CORRUPTED, *DIFFERENCE).out.splitlines()
    assert lines[0].split() == ["layer", *map(str, range(lens.config.n_layers))]
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
    assert len(table.splitlines()) == 1 + lens.config.n_layers * lens.config.n_heads + 1


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


# Every table there is, of a model with as many heads as GPT-2: how to get it, and its headings.
HEADS = [str(n) for n in range(12)]
STATES = ["0_pre", "1_pre", "final_post"]
PATCH = ["patch", "the cat and the", "--corrupted", "the and and the"]
TABLES = {
    "dla": (["dla", "the cat", "--neurons", "3"], ["head", *HEADS, "MLP"]),
    "ablate": (["ablate", "the cat"], ["head", *HEADS]),
    "patch": (PATCH, ["layer", "0", "1"]),
    "patch heads": ([*PATCH, "--hook", "z"], ["head", *HEADS]),
    "logit-lens": (["logit-lens", "the cat", "--top", "2", "--watch", " the"], ["token", *STATES]),
    "logit-lens of nothing": (["logit-lens", ""], ["token", *STATES]),
    "heads": (["heads", "--length", "8", "--count", "1"], ["head", "induction", "previous", "duplicate"]),
    "surprisal": (["surprisal", "the cat"], ["token", "surprisal", "expected", "rank"]),
}


@pytest.fixture(scope="module")
def headed(shared):
    """A bundle with as many heads as GPT-2, and few layers, since each takes seconds to export."""
    folder = shared / "bundles" / "headed"
    with FileLock(shared / "bundle-headed.lock"):
        if not folder.exists():
            from onnxlens.export import export

            export(write_checkpoint(shared / "checkpoints" / "headed", n_head=12, n_embd=24), folder)
    return folder


@pytest.fixture
def on_terminal(analyze, monkeypatch):
    """What an analysis prints on a terminal so many columns wide."""

    def run(*arguments: object, width: int) -> str:
        with monkeypatch.context() as patch:
            patch.setenv("FORCE_COLOR", "1")  # the table library then takes what it writes to for a terminal
            patch.setenv("TERM", "xterm")
            patch.setenv("COLUMNS", str(width))
            return click.unstyle(analyze(*arguments).out)

    return run


def cells(line: str) -> list[str]:
    return re.split(" {2,}", line.rstrip())


@pytest.mark.parametrize("name", TABLES)
def test_a_table_too_wide_is_printed_in_groups_of_columns_and_nothing_is_cut(name, analyze, on_terminal, headed):
    arguments, headings = TABLES[name]
    whole = analyze(*arguments, "-m", headed).out.splitlines()
    assert whole[0].split() == headings
    for width in (10, 28, 80, 120):
        printed = on_terminal(*arguments, "-m", headed, width=width)
        *first, last = (group.splitlines() for group in printed.split("\n\n"))
        height = len(first[0]) if first else len(last)
        groups, rest = [*first, last[:height]], last[height:]
        joined = [sum((cells(line)[1:] for line in row), cells(row[0])[:1]) for row in zip(*groups, strict=True)]
        assert joined + [cells(line) for line in rest] == [cells(line) for line in whole]
        if first:
            columns = [{word.end() for word in re.finditer(r"\S+", group[0])} for group in groups]
            assert all(places <= columns[0] for places in columns)  # they stand below each other
            one = len(columns[0]) == 2  # where not even that fits beside the names, it runs over
            assert all(len(line) <= width or one for group in groups for line in group)


def test_groups_are_few_and_about_equal(on_terminal, headed):
    lines = on_terminal(*TABLES["dla"][0], "-m", headed, width=80).splitlines()
    headings = [line.split() for line in lines if line.startswith("head ")]
    assert headings == [["head", *HEADS[:7]], ["head", *HEADS[7:], "MLP"]]
    assert "\n\n" not in on_terminal(*TABLES["dla"][0], "-m", headed, width=120)


def test_a_pipe_has_no_width(analyze, headed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    lines = analyze(*TABLES["dla"][0], "-m", headed).out.splitlines()
    assert lines[0].split() == ["head", *HEADS, "MLP"]
    assert [len(line.split()) for line in lines[1:3]] == [2 + len(HEADS) + 1] * 2


def test_a_long_text_is_cut_on_a_terminal_and_its_numbers_are_not(analyze, on_terminal, lens):
    arguments = ["patch", CLEAN, "--corrupted", CORRUPTED, *DIFFERENCE, "--span", 10]
    whole = analyze(*arguments).out.splitlines()[1]
    text = repr("".join(lens.to_str_tokens(CORRUPTED)[:10]))
    assert whole.startswith(f"{text}  ")
    line = on_terminal(*arguments, width=60).splitlines()[1]
    assert line == f"{text[:19]}\N{HORIZONTAL ELLIPSIS}{whole.removeprefix(text)}"
