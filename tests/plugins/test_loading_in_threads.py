"""Plugins that two threads load at once: output and the current folder are as before, and each is loaded once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from onnxlens.plugins._registry import Registry

# Two registries whose plugins are loaded so that the threads overlap: the first to begin is the first to end.
_SLOW = """
import os, sys, time
from onnxlens.plugins import hookimpl
ONNXLENS_PLUGIN_API = 1
sys.stdout.write("loaded {name}\\n")
os.chdir({folder!r})
time.sleep({seconds})

@hookimpl
def register_samplers(register):
    pass
"""

_SCRIPT = """
import os, sys, threading, time
from onnxlens.plugins._registry import Registry

stdout, folder = sys.stdout, os.getcwd()
threads = [threading.Thread(target=lambda path=path: Registry([path], find=False).loaded) for path in sys.argv[1:]]
for thread in threads:
    thread.start()
    time.sleep(0.05)
for thread in threads:
    thread.join()
assert sys.stdout is stdout and os.getcwd() == folder
print("printed after")
os.system("echo from another program")
"""


def write(folder: Path, name: str, seconds: float) -> Path:
    path = folder / f"{name}.py"
    path.write_text(_SLOW.format(name=name, seconds=seconds, folder=str(folder)))
    return path


def test_output_and_folder_are_as_before_when_threads_loaded_plugins_at_once(tmp_path):
    files = [write(tmp_path, "first", 0.2), write(tmp_path, "second", 0.3)]
    ran = subprocess.run([sys.executable, "-c", _SCRIPT, *files], capture_output=True, text=True, timeout=600)
    assert (ran.returncode, ran.stdout.split("\n")) == (0, ["printed after", "from another program", ""]), ran.stderr
    assert sorted(ran.stderr.splitlines()) == ["loaded first", "loaded second"]  # whichever thread was faster


_OVERLAPPING = """
import os, sys, threading
from onnxlens.plugins._loading import quiet

stdout, entered, left = sys.stdout, threading.Event(), threading.Event()

def second():
    with quiet():
        entered.set()
        left.wait(10)
        print("second")

thread = threading.Thread(target=second)
with quiet():
    thread.start()
    entered.wait(10)
    print("first")
left.set()
thread.join()
assert sys.stdout is stdout
print("printed after")
os.system("echo from another program")
"""


def test_output_is_as_before_when_the_first_thread_to_be_quiet_ends_first():
    ran = subprocess.run([sys.executable, "-c", _OVERLAPPING], capture_output=True, text=True, timeout=600)
    assert (ran.returncode, ran.stdout.split("\n")) == (0, ["printed after", "from another program", ""]), ran.stderr
    assert ran.stderr.split() == ["first", "second"]


def test_threads_that_ask_at_once_get_the_plugins_of_one_load(tmp_path):
    registry = Registry([write(tmp_path, "slow", 0.1)], find=False)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(registry.loaded)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert all(all(a is b for a, b in zip(one, found[0], strict=True)) for one in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_is_forked_while_a_thread_loads_plugins_can_load_them(tmp_path):
    thread = threading.Thread(target=lambda: Registry([write(tmp_path, "slow", 0.2)], find=False).loaded)
    thread.start()
    if (child := os.fork()) == 0:
        os._exit(0 if Registry(find=False).samplers else 1)
    thread.join(30)
    assert os.waitpid(child, 0)[1] == 0
