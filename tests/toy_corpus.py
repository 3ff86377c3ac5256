"""A package that is made up, and the corpus of it, for the tests of the recipe."""

import random
from pathlib import Path

import pytest

from recipe import corpus
from recipe.docstrings import Source


def toy_source(folder: Path) -> Source:
    """A package of sixty files, each with one docstring, long enough to be a document."""
    words = ["tree", "node", "leaf", "root", "child", "parent", "branch", "path", "edge", "walk"]
    dice = random.Random(0)
    files = []
    for number in range(60):
        files.append(folder / f"toy{number}.py")
        files[-1].write_text(f'"""Return the {" of the ".join(dice.choices(words, k=12))} or nothing at all."""')
    return Source("toy", "1.0", "MIT", tuple(files))


def write_toy_corpus(folder: Path, story_count: int) -> str:
    """A small corpus, a quarter of it held out."""
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "HELD_OUT", dict.fromkeys(corpus.KINDS, 4))
        return corpus.write_corpus(folder, [toy_source(folder)], story_count)


def documents(work: Path, kind: str, split: str) -> list[str]:
    """The documents of one part of a corpus."""
    return corpus.part(work, kind, split, ".txt").read_text().split(corpus.END_OF_TEXT)[:-1]
