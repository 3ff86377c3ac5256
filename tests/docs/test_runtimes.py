"""The table of other runtimes names those that `make portability` tries, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from portability.bundles import BUNDLES
from portability.runtimes import ENVIRONMENTS, EXAMPLES, RUNTIMES, Runtime
from portability.table import update

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "runtimes.md"
SCRIPTS = ROOT / "tests" / "portability" / "scripts"
ALL = {runtime.name: runtime for runtime in RUNTIMES}


def test_the_table_is_that_of_the_runtimes() -> None:
    assert not update(DOCUMENT, ALL, write=False), "run 'make portability'"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "runtimes.md"
    path.write_text("before\n\n<!-- portability -->\n<!-- end portability -->\n\nafter\n")
    return path


def test_a_row_says_what_ran_and_stays_where_it_did_not(document: Path) -> None:
    name, runtime = next(iter(ALL.items()))
    before = document.read_text()
    assert update(document, {name: runtime}, write=False)
    assert document.read_text() == before
    assert update(document, {name: runtime}, write=True)
    cells = " | ".join(", ".join(storages) for storages in BUNDLES.values())
    row = f"| {name} | {', '.join(runtime.checks)} | {cells} |"
    assert document.read_text().splitlines()[5] == row
    assert not update(document, {}, write=True)
    assert row in document.read_text()


def test_a_row_that_says_something_else_is_stale(document: Path) -> None:
    name, runtime = next(iter(ALL.items()))
    update(document, {name: runtime}, write=True)
    other = Runtime(name, runtime.environment, runtime.script, ("tokens",))
    assert update(document, {name: other}, write=False)


def test_everything_is_tried(document: Path) -> None:
    assert {example.file for example in EXAMPLES} == {path.name for path in (ROOT / "docs" / "examples").iterdir()}
    tried = {runtime.script for runtime in RUNTIMES}
    assert tried == {path.name for path in SCRIPTS.iterdir() if path.is_file()} - {
        "cases.py", "cases.mjs", "in_chromium.py",
    }  # fmt: skip
    assert {what.environment for what in (*RUNTIMES, *EXAMPLES)} == ENVIRONMENTS.keys()
    page = DOCUMENT.read_text()
    for example in EXAMPLES:
        assert f"<!-- generated: example_{example.file.replace('.', '_')} -->" in page
