"""The installed command as a process of its own: pipes, signals, terminals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ONNXLENS = [sys.executable, "-m", "onnxlens"]

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and terminals")


@pytest.fixture
def model(runner) -> list[str]:
    return ["-m", str(runner("base").bundle.path), "--provider", "cpu", "--threads", "1"]  # prepared by now


def test_it_predicts_in_a_pipe(model):
    done = subprocess.run(
        [*ONNXLENS, "predict", "--json", *model],
        input="a\N{SNOWMAN}",
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stderr == ""
    assert len(json.loads(done.stdout)["top"]) == 10


def test_the_script_is_installed(model):
    script = Path(sys.executable).with_name("onnxlens")
    if not script.exists():
        pytest.skip(f"there is no {script}: the package is on the path but not installed")
    done = subprocess.run([script, "predict", "a", "--json", *model], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout)["model"] == "base"


def test_an_error_is_one_line_and_debug_shows_where():
    done = subprocess.run([*ONNXLENS, "predict", "a", "-m", "no-such-model"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: There is no model 'no-such-model'; ")
    assert done.stderr.count("\n") == 1
    done = subprocess.run([*ONNXLENS, "--debug", "predict", "a", "-m", "no-such-model"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert "onnxlens.runtime.errors.BundleError: There is no model 'no-such-model'; " in done.stderr


def test_a_narrow_encoding_is_no_reason_to_fail(model):
    done = subprocess.run(
        [*ONNXLENS, "predict", "\N{SNOWMAN}", *model], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.stderr == ""
    assert re.search(r"\\u25[89]", done.stdout)  # the bars


@posix
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_leaves_ends_it_quietly(model, options):
    command = [*ONNXLENS, "generate", "a", "-n", "100000", "--overflow", "slide", "--seed", "1", *model, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert len(process.stdout.read(5)) == 5
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) in (0, 1, 141)


@posix
def test_a_pipeline_with_head_is_quiet(model):
    shell = '"$0" -m onnxlens "$@" | head -c 5'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, "generate", "a", "-n", "40", "--seed", "1", *model], capture_output=True
    )
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 5, b"")


@posix
@pytest.mark.parametrize("name", ["hooks", "models", "inspect"])
def test_every_table_ends_quietly_where_nobody_reads(name, bundle):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [] if name == "models" else ["-m", str(bundle("base"))]
    done = subprocess.run([*ONNXLENS, name, *arguments], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == b""


@posix
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_ctrl_c_ends_it_with_130_and_no_traceback(model, options):
    command = [*ONNXLENS, "generate", "a", "-n", "1000000", "--overflow", "slide", "--seed", "1", *model, *options]
    # To a file, so that nothing waits for a reader.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.read(20)  # it is generating
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert errors.decode().strip() == "Interrupted."


def on_terminal(arguments: list[str], *, stdin_too: bool = False) -> tuple[int, str]:
    """Runs a command whose output (and input) is a terminal; returns its exit code and all that was shown."""
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*ONNXLENS, *arguments],
        stdin=follower if stdin_too else subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"},
    )
    os.close(follower)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux: the other side was closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    return process.wait(60), shown.decode()


@posix
def test_no_text_on_a_terminal_is_wrong_usage():
    code, shown = on_terminal(["predict"], stdin_too=True)
    assert code == 2
    assert "Missing argument 'TEXT'. Give a text, or pipe one in." in shown


@posix
def test_what_controls_a_terminal_is_shown_and_not_sent(model):
    code, shown = on_terminal(["generate", "\x1b]0;title\x07\x1b[2Ja\nb\tc", "-n", "1", "--seed", "1", *model])
    assert code == 0
    assert "\\x1b]0;title\\x07\\x1b[2Ja\r\nb\tc" in shown
    assert "\x1b]0;" not in shown
    assert "\x1b[2J" not in shown


def test_what_is_written_to_a_pipe_is_written_as_it_is(model):
    text = "\x1b[31mred\x1b[0m\x07"
    done = subprocess.run(
        [*ONNXLENS, "generate", text, "-n", "1", "--seed", "1", *model], capture_output=True, encoding="utf-8"
    )
    assert done.stdout.startswith(text)


@posix
def test_a_table_fits_the_terminal_and_is_whole_in_a_pipe():
    command = ["analyze", "logit-lens", "", "--provider", "cpu", "--threads", "1"]
    code, shown = on_terminal(command)
    assert code == 0
    assert shown.count("token") == 2
    assert all(heading in shown for heading in ("0_pre", "1_pre", "2_pre", "3_pre", "4_pre", "final_post"))
    done = subprocess.run([*ONNXLENS, *command], capture_output=True, encoding="utf-8", check=True)
    assert "\N{HORIZONTAL ELLIPSIS}" not in done.stdout
    assert done.stdout.count("token") == 1


@posix
def test_progress_is_shown_on_a_terminal_and_not_in_a_pipe(model, tmp_path, monkeypatch):
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path))
    _, shown = on_terminal(["predict", "a", *model])
    assert "opening the model" in shown or "preparing base" in shown
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path / "other"))
    done = subprocess.run([*ONNXLENS, "predict", "a", *model], capture_output=True)
    assert done.stderr == b""
    assert b"opening" not in done.stdout
