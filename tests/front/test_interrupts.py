"""Ctrl-C at any moment: `Interrupted.` and exit code 130, whatever was being imported or computed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from onnxlens import _interrupts as interrupts

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

# The process says when interrupts are watched: what comes before is Python's own start.
SCRIPT = """
import sys
from onnxlens import __main__, _interrupts as interrupts
watch = interrupts.watch
interrupts.watch = lambda: (watch(), print("ready", flush=True))
sys.argv = ["onnxlens", *sys.argv[1:]]
__main__.main()
"""


def interrupted(delay: float, *arguments: str) -> tuple[int, str, str]:
    """Sends SIGINT so many seconds after the start; returns the exit code and what was printed on both streams."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=600)
    return process.returncode, out, err


@pytest.mark.parametrize("delay", [n / 20 for n in range(16)])
def test_it_ends_at_any_moment_of_a_prediction(delay):
    code, out, err = interrupted(delay, "predict", "a", "--json")
    if code == 0:  # it was done before
        assert out
        assert err == ""
        return
    assert (code, err.strip()) == (130, "Interrupted.")


def test_it_ends_while_pytorch_is_imported(tmp_path):
    for delay in (0.3, 0.8, 1.4):
        code, _, err = interrupted(delay, "export", str(tmp_path / "no"), str(tmp_path / "target"))
        assert (code, err.strip()) == (130, "Interrupted.") or (code == 1 and "Error: " in err)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        "raise ImportError('initialization failed')",
        "raise SystemError('returned a result with an exception set')",
        "return 0",
    ],
    ids=["another error", "yet another", "nothing"],
)
def test_an_interrupt_that_a_library_made_something_else_of_is_one(body):
    script = f"""
import os, signal, sys
from onnxlens import _cli as cli, _interrupts as interrupts
interrupts.watch()
def swallowed(*arguments, **options):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass
    except BaseException:
        {body}
cli.cli.main = swallowed
sys.argv = ["onnxlens"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_an_interrupt_in_a_callback_comes_again():
    script = """
import os, signal, sys
from onnxlens import _cli as cli, _interrupts as interrupts
interrupts.watch()
class Odd:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))
def odd(*arguments, **options):
    Odd()
    while True:
        pass
cli.cli.main = odd
sys.argv = ["onnxlens"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_interrupts_that_the_parent_ignores_stay_ignored():
    script = "import signal\nfrom onnxlens import _interrupts as interrupts\ninterrupts.watch()\n"
    script += "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    ignoring = "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    ignoring += "sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    assert subprocess.call([sys.executable, "-c", ignoring, script]) == 0


def test_importing_onnxlens_watches_nothing():
    assert not interrupts.came()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
