"""Runs bundles in every other runtime, and writes what works into docs/runtimes.md: `make portability`.

It ends with 1 if anything fails; with `--check`, also if the table in the document is not what was found. What cannot
be installed is skipped, and the reason is printed. Packages and bundles stay in build/portability for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from portability.bundles import BUNDLES, make
from portability.environments import NotInstalledError, installed, node
from portability.examples import run_example
from portability.runtimes import ENVIRONMENTS, EXAMPLES, RUNTIMES, Runtime
from portability.table import update

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "portability"
DOCUMENT = ROOT / "docs" / "runtimes.md"
SCRIPTS = Path(__file__).parent / "scripts"
_PATIENCE = 300  # seconds


def main() -> int:
    """Returns 1 if something fails or is stale."""
    parser = argparse.ArgumentParser(prog="python -m portability", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the table is not up to date")
    parser.add_argument("--only", metavar="ENVIRONMENT", choices=ENVIRONMENTS, action="append", help="leave others out")
    given = parser.parse_args()
    started, failures, skipped, shown = time.monotonic(), 0, 0, {}
    make(BUILD / "bundles", lambda text: print(text, flush=True))
    for what in (*RUNTIMES, *EXAMPLES):
        name = what.name if isinstance(what, Runtime) else f"docs/examples/{what.file}"
        if given.only and what.environment not in given.only:
            continue
        began = time.monotonic()
        try:
            folder = installed(what.environment, BUILD)
            if isinstance(what, Runtime):
                wrong = _run(what, folder)
                shown[what.name] = what
            else:
                wrong = run_example(what, folder, BUILD)
        except NotInstalledError as error:
            print(f"skipped  {name}: {error}", flush=True)
            skipped += 1
            continue
        except subprocess.TimeoutExpired as error:
            wrong = [f"did not end within {error.timeout:.0f} s"]
        failures += bool(wrong)
        print(f"{'FAILED' if wrong else 'passed'}   {name}, {time.monotonic() - began:.0f} s", flush=True)
        for line in wrong:
            print(f"         {line}", flush=True)
    stale = not failures and update(DOCUMENT, shown, write=not given.check)
    if stale:
        print(f"{DOCUMENT.relative_to(ROOT)} {'is stale: run make portability' if given.check else 'was updated'}")
    count = len(RUNTIMES) + len(EXAMPLES)
    print(f"{failures} failed, {skipped} skipped of {count} runtimes and examples, {time.monotonic() - started:.0f} s")
    return int(failures > 0 or (stale and given.check))


def _run(runtime: Runtime, folder: Path) -> list[str]:
    """Runs a script on all bundles; returns what is wrong, in lines."""
    bundles = BUILD / "bundles"
    if runtime.script.endswith(".py"):
        command = [folder / "bin" / "python", SCRIPTS / runtime.script, bundles]
    else:
        shutil.copytree(SCRIPTS, folder / "scripts", dirs_exist_ok=True)  # Node looks for packages above the script
        if runtime.in_page:
            browser = installed("browser", BUILD)
            command = [browser / "bin" / "python", SCRIPTS / "in_chromium.py", bundles, runtime.script, folder]
        else:
            command = [node(), folder / "scripts" / runtime.script, bundles]
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        env=environment(),
        check=False,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"bundle"')]
    wrong = [f"{each['bundle']}, {each['check']}: {each['failed']}" for each in reports if each["failed"]]
    found = {(each["bundle"], each["check"]) for each in reports}
    for names in BUNDLES.values():
        for name in names.values():
            has_gradients = (bundles / name / "bundle" / "onnx" / "model_gradients.onnx").is_file()
            for check in runtime.checks:
                if (name, check) not in found and (check != "gradients" or has_gradients):
                    wrong.append(f"{name}, {check}: not reported")
    if done.returncode or wrong:
        wrong += [f"exit code {done.returncode}", *done.stderr.splitlines()[-15:]]
    return wrong


def environment() -> dict[str, str]:
    """The variables of every script: nothing is fetched or reported while it runs."""
    quiet = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **quiet}


if __name__ == "__main__":
    sys.exit(main())
