"""The last line of a run says what was not tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from untested import line

TESTS = """
import pytest

@pytest.mark.skipif(True, reason="needs a browser: install one")
@pytest.mark.parametrize("number", range(3))
def test_a_page(number):
    pass

def test_a_tokenizer():
    pytest.skip("needs a tokenizer,\\n  which is shared")

def test_a_sum():
    assert 1 + 1 == 2
"""
SAID = "Not tested: 3 tests (needs a browser: install one), 1 test (needs a tokenizer, which is shared)."


def run(folder: Path, *arguments: str) -> list[str]:
    """The lines that pytest prints on tests that are not this suite's."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "untested", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout.splitlines()


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one process", "xdist"])
def test_it_is_the_last_line_and_counts_what_was_skipped(tmp_path, processes):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_some.py").write_text(TESTS)
    *before, last = run(tmp_path, *processes)
    assert last == SAID
    assert not any("Not tested" in one for one in before)


def test_where_everything_ran_there_is_no_such_line(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_some.py").write_text(TESTS)
    assert not any("Not tested" in one for one in run(tmp_path, "-k", "sum"))
    assert line([]) == ""


def test_this_suite_says_it(pytestconfig):
    assert any(plugin.__name__ == "conftest" and hasattr(plugin, "pytest_sessionfinish")
               for plugin in pytestconfig.pluginmanager.get_plugins() if hasattr(plugin, "__name__"))  # fmt: skip
