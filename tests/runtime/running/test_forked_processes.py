"""Processes that are forked while a model is open: they run it, drop it and end, and none waits for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

# Runs the text given in a forked process that has an open model, and says how that process ended. Two threads, since
# sessions of one have none to wait for.
_SCRIPT = """
import gc, os, signal, sys, time
import numpy as np
from onnxlens._lens import Lens
from onnxlens.metrics import logit_difference
from onnxlens.runtime._running.runner import Runner

IDS = [5, 6, 7]

def numbers(lens, at="blocks.*.hook_resid_post"):
    logits, cache = lens.run_with_cache(IDS, names_filter=at)
    return [logits, *cache.values(), *lens.grad(IDS, metric=logit_difference(5, 6)).gradients.values()]

def same(some, others):
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))

lens = Lens(Runner(sys.argv[1], provider="cpu", threads=2, max_sessions=2))
before = numbers(lens)
if (child := os.fork()) == 0:
    signal.alarm(30)  # ends a process that waits for ever
    {child}
_, status = os.waitpid(child, 0)
assert same(numbers(lens), before)  # the parent's are as they were
print("signal", os.WTERMSIG(status)) if os.WIFSIGNALED(status) else print("code", os.WEXITSTATUS(status))
"""

# What a forked process may do, and how it ends.
CHILDREN = {
    "drops the model": "del lens; gc.collect(); os._exit(0)",
    "closes the model": "lens.close(); lens = None; gc.collect(); os._exit(0)",
    "ends as programs do": "sys.exit(0)",
    "runs the model, evicts what was open, and ends as programs do": (
        "same(numbers(lens), before) or sys.exit(1); [numbers(lens, name) for name in lens.runner.hook_names[:4]]; "
        "same(numbers(lens), before) or sys.exit(2); sys.exit(0)"
    ),
    "opens the model anew and forks again": (
        "numbers(Lens(Runner(sys.argv[1], provider='cpu', threads=2))); numbers(lens); os.fork(); lens = None; "
        "gc.collect(); sys.exit(0)"
    ),
}


@pytest.fixture(scope="module")
def ends(bundle):
    """Runs a line of Python in a forked process; returns how it ended."""

    def run(line: str, path: Path | None = None) -> str:
        script = _SCRIPT.replace("{child}", line)
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
        ran = subprocess.run(
            [*command, str(path or bundle("base-gradients"))], capture_output=True, text=True, timeout=600
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout.strip()

    return run


@pytest.mark.parametrize("line", CHILDREN.values(), ids=CHILDREN)
def test_a_forked_process_that(ends, line):
    assert ends(line) == "code 0"


def test_the_watch_on_forked_processes_can_fail(ends):
    assert ends("signal.alarm(1); time.sleep(30)") == "signal 14"
