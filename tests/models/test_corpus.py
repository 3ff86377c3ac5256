"""The corpus: what is cleaned away and what is not, where the text comes from, and what is written."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from toy_corpus import documents, toy_source, write_toy_corpus

from recipe import corpus, docstrings
from recipe.cleaning import CODE_SHARE, Cleaner, clean, pieces
from recipe.docstrings import Source, Text, texts

PROSE = "This function walks over the tree and returns every node that has no children of its own."
AFTER = "It never changes the tree."


# Cleaning


RUBBISH = {
    "directive": ".. autofunction:: walk",
    "licence": "Copyright 2020 Somebody. All rights reserved.",
    "table": "name     type     meaning\na        int      the first",
    "symbols": "[0.1, 0.2, 0.3, 1e-7] == (12, 34, 56, 78)",
    "formula": r"The sum \sum_{i} x_i \over n is \frac{a}{b}.",
    "unreadable": "The commit was 0f3a92bc8d17e5 on the main branch of this.",
    "other code": '```json\n{"a":\n\n [tree\n```',
    "unreadable code": "```\na = [0x1234567, 0x2345678, 12345, 23456, 34567]\n```",
    "not English": "木のすべての葉を順番に返します。",
}


@pytest.mark.parametrize("reason", RUBBISH)
def test_rubbish_is_dropped_for_its_reason(reason: str) -> None:
    dropped: Counter[str] = Counter()
    kept = pieces(f"{PROSE}\n\n{RUBBISH[reason]}\n\n{AFTER}", dropped)
    assert [piece.text for piece in kept] == [PROSE, AFTER]
    assert [name for name, characters in dropped.items() if characters > 0] == [reason]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("See :meth:`~tree.walk` or ``None``.", "See `tree.walk` or `None`."),
        ("See `the guide <https://example.org/guide>`_ for the rest.", "See the guide for the rest."),
        ("See [the guide](https://example.org/guide) for the rest.", "See the guide for the rest."),
        ("[![build](https://a.org/b.svg)](https://a.org)\n\n# Walking\n\nIt is slow.", "Walking\n\nIt is slow."),
        ("<p align='center'>\nIt is slow.\n</p>", "It is slow."),
        (".. note:: It is slow.", "Note: It is slow."),
        ("The \u201cwhole\u201d tree isn\u2019t read\u2026", 'The "whole" tree isn\'t read...'),
        ("Takes **kwargs and is **very** slow.", "Takes **kwargs and is very slow."),
    ],
)
def test_markup_goes_and_its_text_stays(written: str, kept: str) -> None:
    assert clean(written) == kept


def test_a_section_keeps_its_heading_unless_nothing_else_is_left_of_it() -> None:
    section = "Notes\n=====\n\nIt is slow."
    assert clean(section) == "Notes\n\nIt is slow."
    assert clean(f"Examples\n~~~~~~~~\n\n```\n$ walk\n```\n\n{section}") == "Notes\n\nIt is slow."
    assert clean(f"{section}\n\nExamples:\n\n```\n$ walk\n```") == "Notes\n\nIt is slow."


def test_lines_broken_to_fit_a_column_are_joined_and_lists_are_not() -> None:
    broken = "Walks over the whole of the tree, from the root to the leaves,\nand returns the nodes."
    assert clean(broken) == broken.replace("\n", " ")
    assert (
        clean("Walks over the tree, from\nthe root to the leaves.")
        == "Walks over the tree, from the root to the leaves."
    )
    arguments = "tree (Tree): The tree to walk over, which is never changed by this.\norder (str): Depth or breadth."
    assert clean(arguments) == arguments


@pytest.mark.parametrize(
    "example",
    [
        ">>> for node in walk(tree):\n...     print(node)\nroot\nleaf",
        "Example::\n\n    for node in walk(tree):\n\n        print(node)",
        "```python\nfor node in walk(tree):\n\n    print(node)\n```",
        ".. code-block:: python\n   :linenos:\n\n   for node in walk(tree):\n\n       print(node)",
        "    for node in walk(tree):\n        print(node)",
    ],
    ids=["doctest", "literal", "fence", "directive", "indented"],
)
def test_of_an_example_the_input_is_kept(example: str) -> None:
    kept = pieces(f"{PROSE}\n\n{example}\n\n{AFTER}")
    assert [piece.text for piece in kept if not piece.is_code and piece.text != "Example:"] == [PROSE, AFTER]
    (code,) = (piece.text for piece in kept if piece.is_code)
    assert re.sub(r"(?m)^(>>>|\.\.\.) |\n(?=\n)", "", code) == "for node in walk(tree):\n    print(node)"


@pytest.mark.parametrize("unreadable", ["<|endoftext|>", "<|im_start|>", "\0"])
def test_what_a_tokenizer_could_take_for_the_end_of_a_text_is_dropped(unreadable: str) -> None:
    assert clean(f"{PROSE}\n\nA text ends with `{unreadable}` in every one of the files.\n\n{AFTER}") == (
        f"{PROSE}\n\n{AFTER}"
    )
    assert "encode" not in clean(f"{PROSE}\n\n>>> tokenizer.encode('{unreadable}')\n\n{AFTER}")


def test_directives_of_test_runners_are_dropped_from_examples() -> None:
    for directive in ("# doctest: +SKIP", "# xdoctest: +REQUIRES(module:tree)"):
        assert clean(f"{PROSE}\n\n>>> tree.walk(order='depth')  {directive}") == (
            f"{PROSE}\n\n>>> tree.walk(order='depth')"
        )


def test_prose_about_code_is_not_code() -> None:
    for prose in ("from the root to the leaves", "import the tree first and walk (slowly) then", "Returns (or not)"):
        assert not any(piece.is_code for piece in pieces(prose)), prose


def test_text_in_a_note_is_kept() -> None:
    assert clean(f".. warning::\n\n   {PROSE}").endswith(PROSE)


def test_a_paragraph_with_only_another_name_is_not_new() -> None:
    cleaner = Cleaner()
    first = "The bare `Bert` model with 12 layers, which returns raw hidden states without any head on top."
    assert cleaner(first) == first
    assert cleaner(first.replace("Bert", "Llama").replace("12", "32")) == ""
    assert cleaner(first.replace("raw", "normalised")) != ""


def test_an_item_that_another_list_had_is_dropped_on_its_own() -> None:
    cleaner = Cleaner()
    known = "tree (Tree): The tree to walk over, which is never changed by this."
    cleaner(f"{known}\norder (str): Depth or breadth, whichever of the two comes first.")
    new = "deep (bool): Whether to walk down to the very last of the leaves."
    assert cleaner(f"{known}\n{new}") == new
    names = "last (`tuple(Tree)`, *optional*, returned with `output_leaves=True`): Leaves."
    assert names in cleaner(f"{new[:-1]}, or not.\n{names}")
    assert names not in cleaner(f"{new[:-1]}, or maybe not.\n{names}")


def test_known_imports_and_examples_are_dropped() -> None:
    cleaner = Cleaner()
    first = f"{PROSE}\n\n>>> import tree\n>>> tree.walk(order='depth')"
    assert cleaner(first) == first
    assert cleaner(f"{AFTER} Nor its nodes.\n\n>>> import tree\n>>> tree.grow(height=3)") == (
        f"{AFTER} Nor its nodes.\n\n>>> tree.grow(height=3)"
    )
    assert cleaner(f"{AFTER} Nor a leaf.\n\n>>> tree.walk(order='depth')") == f"{AFTER} Nor a leaf."
    assert cleaner.dropped["duplicate"] > 0


def test_code_is_a_small_share_of_the_text() -> None:
    cleaner = Cleaner()
    for number in range(3000):
        name = "".join("abcdefghij"[int(digit)] for digit in str(number))
        cleaner(f"It walks.\n\n>>> {name}_tree = grow_{name}(height=tall_{name})\n>>> walk_{name}({name}_tree)")
    assert cleaner.code < CODE_SHARE * max(cleaner.kept, 100_000) + 100
    assert cleaner.dropped["too much code"] > 0


def test_short_and_foreign_documents_are_dropped() -> None:
    assert Cleaner()("Return self.") == ""
    assert Cleaner()("木のすべての葉を順番に返します。子を持たない節だけが対象で、木そのものは変わりません。" * 2) == ""


# Sources


def read(path: Path, text: str) -> list[Text]:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return list(texts(path))


def test_docstrings_are_read_in_order_without_importing(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    module = (
        '"""One."""\nraise RuntimeError\nclass A:\n    """Two."""\n    async def b(self, x, *, y=1):\n'
        '        """Three."""\n    size = 1\n    """Four."""\nif True:\n    def c(*xs):\n        """Five."""\n'
    )
    assert read(path, module) == [
        ("One.", True), ("Two.", True), ("Three.", False), ("Four.", False), ("Five.", True),
    ]  # fmt: skip
    assert read(path, "def (") == []


def test_docstrings_that_a_call_gives_are_read(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    assert read(path, 'add_docstr(tree.walk, """walks({{a}}) all over"""+"")') == [("walks({a}) all over", True)]
    assert read(path, 'add_newdoc("tree", "walk", "Walks all over.")') == [("Walks all over.", True)]


def test_the_language_reference_is_read(tmp_path: Path) -> None:
    found = read(tmp_path / "pydoc_data" / "topics.py", "topics = {'a': 'Walking\\n' 'is slow.', 'b': 'Two.'}")
    assert [text.text for text in found] == ["Walking\nis slow.", "Two."]


def test_documentation_files_are_told_from_others() -> None:
    for name in ("a/b.py", "a/b.pyi", "a/README.rst", "a/guide/walking.txt"):
        assert docstrings._is_documentation(Path(name)), name
    for name in ("a/LICENSE.txt", "a.dist-info/top_level.txt", "a/requirements.txt", "a/tests/data.txt", "a/b.so"):
        assert not docstrings._is_documentation(Path(name)), name


def test_every_source_is_pinned() -> None:
    root = Path(__file__).parents[2]
    pins = re.findall(r"(?m)^([\w.-]+)==", (root / "constraints.txt").read_text())
    assert set(docstrings.DISTRIBUTIONS) <= {re.sub(r"[-_.]+", "-", name).lower() for name in pins}


def test_a_missing_source_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(docstrings, "DISTRIBUTIONS", ("no-such-package",))
    with pytest.raises(FileNotFoundError, match="'no-such-package', which is not installed"):
        docstrings.sources()
    result = CliRunner().invoke(corpus.main, ["--work", str(tmp_path)])
    assert result.exit_code == 1
    assert "Error: The corpus takes text from 'no-such-package'" in result.output


# Corpus


@pytest.mark.parametrize("kind", corpus.KINDS)
def test_nothing_held_out_is_in_training(work: Path, kind: str) -> None:
    train_texts, held_out = documents(work, kind, "train"), documents(work, kind, "heldout")
    assert 0.1 < len(held_out) / (len(held_out) + len(train_texts)) < 0.4
    assert set(train_texts).isdisjoint(held_out)
    assert len({*train_texts, *held_out}) == len(train_texts) + len(held_out)  # and nothing occurs twice


def test_the_split_does_not_depend_on_other_documents() -> None:
    names = [f"document {number}" for number in range(2000)]
    held_out = [corpus.is_held_out(text, "stories") for text in names]
    assert 5 < sum(held_out) < 50
    assert [corpus.is_held_out(text, "stories") for text in reversed(names)] == held_out[::-1]
    assert (
        sum(held_out) < sum(corpus.is_held_out(text, "docstrings") for text in names) < 80
    )  # fewer, so a larger share


def test_the_same_text_gives_the_same_sum(tmp_path: Path) -> None:
    sums = [write_toy_corpus(tmp_path / name, count) for name, count in (("a", 50), ("b", 50), ("c", 51))]
    assert sums[0] == sums[1] != sums[2]


def test_what_the_corpus_was_made_with_is_recorded(tmp_path: Path) -> None:
    digest = write_toy_corpus(tmp_path, 50)
    facts = json.loads((tmp_path / "corpus.json").read_text())
    assert facts["sha256"] == digest
    assert (facts["sources"], facts["stories"], facts["seed"]) == ({"toy": "1.0"}, 50, corpus.SEED)
    assert facts["parts"]["docstrings-train"]["documents"] == len(documents(tmp_path, "docstrings", "train"))
    (row,) = json.loads((tmp_path / "sources.json").read_text())
    assert row["found"] == row["kept"] + sum(row["dropped"].values())


def test_a_class_stays_whole_and_a_document_has_a_sensible_length(tmp_path: Path) -> None:
    units = [(Text("", True), "a" * 3000), (Text("", False), "b" * 2000)]  # a class and one of its methods
    units += [(Text("", True), "c" * 2000), (Text("", True), "\n\n".join(["d" * 2500] * 4))]
    packed = corpus._packed(units)
    assert packed[0] == "a" * 3000 + "\n\n" + "b" * 2000
    assert all(len(document) <= corpus.LONGEST_DOCUMENT for document in packed)
    assert "".join(packed).count("d" * 2500) == 4


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The corpus has no heldout"):
        corpus.write_corpus(tmp_path, [toy_source(tmp_path)], story_count=1)


def test_an_empty_source_gives_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The corpus has no train docstrings"):
        corpus.write_corpus(tmp_path, [Source("empty", "1.0", "MIT", ())], story_count=1)


def test_the_tokenizer_loses_nothing_and_ends_with_the_end_of_text(work: Path) -> None:
    tokenizer = corpus.train_tokenizer(documents(work, "stories", "train"), vocabulary=400)
    assert tokenizer.token_to_id(corpus.END_OF_TEXT) == tokenizer.get_vocab_size() - 1 == 399
    text = '  "Où est-ce?"\n\n\tx := 3 — 😀' + corpus.END_OF_TEXT
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
