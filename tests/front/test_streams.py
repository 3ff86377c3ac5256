"""Standard streams that are closed, full or narrow: the right words on the right stream, and the right exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


def run(line: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a shell, which redirects its streams."""
    return subprocess.run(
        ["sh", "-c", f'"$0" -m onnxlens "$@" {line}', sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["--help"], ["predict", "a"]])
def test_closed_standard_output_is_an_error_on_standard_error(arguments):
    done = run(">&-", *arguments)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: Standard output is closed, so there is nowhere to print. Send it to a file, or to /dev/null.\n"
    )


def test_closed_standard_output_is_said_before_a_file_is_written(tmp_path):
    done = run(">&-", "trace", "a", "-o", str(tmp_path / "trace"))
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_closed_standard_error_changes_nothing_else():
    done = run("2>&-", "models", "--json")
    assert (done.returncode, json.loads(done.stdout)[0]["name"]) == (0, "tiny")


@pytest.mark.parametrize(("arguments", "code"), [(["predict", "a", "-m", "no-such"], 1), (["no-such"], 2)])
@pytest.mark.parametrize("line", ["2>&-", "2>/dev/full"])
def test_an_error_without_standard_error_is_its_exit_code(arguments, code, line):
    done = run(line, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_closed_standard_input_is_no_text():
    done = run("<&-", "predict")
    assert done.returncode == 2
    assert done.stderr.endswith("Error: Missing argument 'TEXT'. Give a text, or pipe one in.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["--help"]])
def test_a_full_disk_is_one_line(arguments):
    done = run(">/dev/full", *arguments)
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


@pytest.mark.parametrize("columns", ["0", "", "-1", "x", "9" * 30])
def test_columns_that_are_no_width_are_as_if_there_were_none(columns):
    expected = run("", "models", COLUMNS="x")
    done = run("", "models", COLUMNS=columns)
    assert (done.returncode, done.stdout) == (0, expected.stdout)
    assert "5,063,424" in done.stdout


@pytest.mark.parametrize("columns", ["1", "5", "20"])
def test_narrow_columns_lose_nothing_that_can_be_read(columns):
    done = run("", "inspect", COLUMNS=columns)
    assert done.returncode == 0
    assert "intact" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(encoding):
    text = "é\N{SNOWMAN}\N{GRINNING FACE}\x1b\x9b\u202e"
    done = subprocess.run(
        [sys.executable, "-m", "onnxlens", "generate", text, "-n", "1", "--seed", "1", "--json"],
        capture_output=True,
        timeout=600,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
    )
    document = json.loads(done.stdout.decode(encoding).splitlines()[-1])
    assert document["prompt"] == text


@pytest.mark.parametrize("path", ["/dev/zero", "pipe"])
def test_what_never_ends_is_not_read(path, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    path = str(tmp_path / path)  # an absolute one stays
    done = run("", "predict", "a", "--intervene", path)
    assert (done.returncode, done.stderr) == (
        1,
        f"Error: Cannot read the interventions {path}: it is not a regular file.\n",
    )
