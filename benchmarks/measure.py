"""How things are measured: peers in turn, best of several; whole processes with their peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


def in_turn(rounds: int, **peers: Callable[[], object]) -> dict[str, float]:
    """Runs the peers one after the other, several times over, and returns each one's best seconds.

    Other work on the machine only ever adds time, so the best is the nearest to the truth; taking turns spreads its
    effect over all peers.
    """
    best = dict.fromkeys(peers, float("inf"))
    for call in peers.values():
        call()  # warm up
    for _ in range(rounds):
        for name, call in peers.items():
            started = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


@dataclass(frozen=True)
class Process:
    """A finished process: seconds from start to end, peak resident memory in bytes, standard output."""

    seconds: float
    peak: int
    output: str


# resource.getrusage would report what the parent held at the fork; a fresh interpreter asks about its own child.
_WATCH = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps([done.returncode, seconds, peak, done.stdout, done.stderr]))
"""


def process(*command: str, rounds: int = 1, environment: Mapping[str, str] | None = None) -> Process:
    """Runs a command several times and returns its best time and its highest peak.

    Raises:
        RuntimeError: the command failed.
    """
    import json

    results = []
    for _ in range(rounds):
        watched = subprocess.run(
            [sys.executable, "-c", _WATCH, *command],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            check=True,
        )
        code, seconds, peak, output, errors = json.loads(watched.stdout)
        if code:
            raise RuntimeError(f"{' '.join(command)} failed: {errors}")
        results.append(Process(seconds, peak, output))
    return Process(min(r.seconds for r in results), max(r.peak for r in results), results[-1].output)
