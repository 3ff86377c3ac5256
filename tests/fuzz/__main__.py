"""Fuzzes without end, or for some time: `make fuzz`, or `PYTHONPATH=tests python -m fuzz --help`.

Every case is tried in a process of its own kind, so that one which kills the process is found too. A case that fails is
printed with the command that tries it again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

_BATCH = 200  # cases for each process
_MEMORY = 8 << 30  # bytes of addresses


def main() -> int:
    """Returns 1 if a case failed."""
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, action="append", help="what to fuzz; all if left out")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; the time of day if left out")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long; until interrupted if left out")
    parser.add_argument("--once", action="store_true", help="try the first seed only, in this process")
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    targets = given.target or list(TARGETS)
    first = int(time.time()) if given.seed is None else given.seed
    if given.once or given.batch:
        return _batch(targets, first, given.batch or 1)
    end, failures, tried = time.monotonic() + given.seconds, 0, 0
    for start in itertools.count(first, _BATCH):
        if time.monotonic() > end:
            break
        failures += _watched(targets, start)
        tried += _BATCH * len(targets)
        print(f"{tried} cases, {failures} failures", flush=True)
    return min(failures, 1)


def _watched(targets: list[str], start: int) -> int:
    """Tries a batch in other processes, and goes on behind a case that kills one; returns how many failed."""
    failures = 0
    for target in targets:
        seed = start
        while seed < start + _BATCH:
            command = [sys.executable, "-m", "fuzz", "--target", target, "--seed", str(seed)]
            done = subprocess.run(
                [*command, "--batch", str(start + _BATCH - seed)], stdout=subprocess.PIPE, text=True, errors="replace"
            )
            lines = done.stdout.splitlines()
            failures += sum(line.startswith("FAILED") for line in lines)
            print(*(line for line in lines if not line.startswith("trying")), sep="\n", end="\n" if lines else "")
            if done.returncode in (0, 1):
                break
            last = next((int(line.split()[-1]) for line in reversed(lines) if line.startswith("trying")), seed)
            print(f"FAILED {target} {last}: the process ended with {done.returncode}", flush=True)
            failures += 1
            seed = last + 1
    return failures


def _batch(targets: list[str], first: int, count: int) -> int:
    from checkpoints import write_checkpoint

    from fuzz.targets import Fuzzer
    from onnxlens.export import export

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    home = Path(tempfile.gettempdir()) / f"onnxlens-fuzz-{os.getuid()}"
    home.mkdir(exist_ok=True)
    if not (home / "bundle").exists():
        write_checkpoint(home / "checkpoint", "base")
        export(home / "checkpoint", home / "bundle", gradients=True)
    failed = False
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["ONNXLENS_CACHE"] = f"{scratch}/cache"
        fuzzer = Fuzzer(home / "bundle", Path(scratch))
        for seed in range(first, first + count):
            for target in targets:
                print(f"trying {target} {seed}", flush=True)
                try:
                    found = fuzzer.run(target, seed)
                    if count == 1:
                        print(found)
                except Exception as error:
                    failed = True
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    text = f"{type(error).__name__}: {error!s:.300}"
                    print(f"FAILED {target} {seed}: {text} ({Path(where.filename).name}:{where.lineno})", flush=True)
                    if count == 1:
                        traceback.print_exc()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
