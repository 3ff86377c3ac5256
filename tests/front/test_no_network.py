"""Commands open no socket and write no file outside of the folders that are theirs, watched by the system itself.

Python's own hooks do not see what compiled libraries do, so the processes run under strace.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnxlens._commands import NAMES

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

_CALLS = "socket,connect,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
_OPENED = re.compile(r'open(?:at)?\((?:AT_FDCWD, )?"([^"]*)", [^)]*(?:O_WRONLY|O_RDWR|O_CREAT)[^)]*\) += +\d')
_MADE = re.compile(r'(?:creat|mkdir|rename|link|symlink)(?:at2?)?\((?:[^"]*)"([^"]*)"[^=]*= 0')

_COMMANDS = [
    ["predict", "Once upon a time"],
    ["generate", "Once upon a time", "-n", "3", "--sampler", "min_p=0.05 | temperature=0.8", "--seed", "1"],
    ["search", "beam", "Once upon", "--num-beams", "2", "-n", "2"],
    ["hooks"],
    ["trace", "a cat", "-o", "cat.safetensors"],
    ["analyze", "logit-lens", "a cat"],
    ["view", "attention", "a cat"],
    ["view", "tokens", "a cat", "-o", "tokens.png"],
    ["view", "flow", "a cat", "-o", "flow.html"],
    ["plugins"],
    ["plugins", "new", "my_sampler", "--kind", "sampler", "-o", "plugin"],
    ["inspect"],
    ["prepare"],
    ["prepare", "--gradients"],
    ["prepare", "--clean"],
    ["models"],
]  # `export` and `explore` have tests of their own
_RUN = """
import sys
from onnxlens._cli import _run
failed = [command for command in {commands!r} if _run(command)]
sys.exit(f"failed: {{failed}}" if failed else 0)
"""


def watched(commands: list[list[str]], folder: Path) -> tuple[list[str], list[str]]:
    """Runs commands in a home of their own; returns the network sockets and the paths of files that were written."""
    home, work = folder / "home", folder / "work"
    for path in (home, work, folder / "tmp"):
        path.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_", "HF_"))}
    environment |= {"HOME": str(home), "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    trace = folder / "trace"
    # onnxruntime and its threads live in the same process; -f follows both threads and children.
    program = [sys.executable, "-c", _RUN.format(commands=commands)]
    subprocess.run(
        ["strace", "-f", "-qq", "-s", "4096", "-e", f"trace={_CALLS}", "-o", trace, *program],
        cwd=work,
        env=environment,
        check=True,
        capture_output=True,
        timeout=500,
    )
    calls = trace.read_text(errors="replace").splitlines()
    sockets = [call for call in calls if re.search(r"\b(socket|connect)\(.*AF_INET", call)]
    written = [found[1] for call in calls for found in [_OPENED.search(call) or _MADE.search(call)] if found]
    return sockets, written


def outside(written: list[str], *folders: str | Path) -> list[str]:
    """Paths that are in none of some folders; what is relative is in the working folder."""
    allowed = ("/dev/", "/proc/self/", *(f"{folder}/" for folder in folders))
    return [path for path in written if path.startswith("/") and not f"{path}/".startswith(allowed)]


def test_commands_write_only_into_their_folders_and_open_no_socket(tmp_path):
    sockets, written = watched(_COMMANDS, tmp_path)
    assert sockets == []
    # matplotlib keeps a list of fonts, and its settings.
    own = (tmp_path / "home" / ".cache" / "matplotlib", tmp_path / "home" / ".config" / "matplotlib")
    folders = (tmp_path / "home" / ".cache", tmp_path / "home" / ".config")
    made = set(map(str, folders))
    cache = os.environ["ONNXLENS_CACHE"]
    assert [
        path for path in outside(written, tmp_path / "work", tmp_path / "tmp", cache, *own) if path not in made
    ] == []
    assert any(path.startswith(str(own[0])) for path in written)  # so the trace does see what libraries write


def test_every_command_is_watched():
    assert {command[0] for command in _COMMANDS} | {"export", "explore"} == set(NAMES)


def test_a_home_and_a_cache_of_its_own_hold_nothing_else(tmp_path, monkeypatch):
    """What is in the folders afterwards, whichever library wrote it, and whatever the trace shows."""
    monkeypatch.delenv("ONNXLENS_CACHE")
    watched([["predict", "a cat"], ["generate", "a cat", "-n", "2"]], tmp_path)
    home = tmp_path / "home"
    found = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert found == {(".cache", "onnxlens")}
    assert list((tmp_path / "work").iterdir()) == list((tmp_path / "tmp").iterdir()) == []


def test_an_export_opens_no_socket(checkpoint, tmp_path):
    sockets, written = watched([["export", str(checkpoint("base")), "made"]], tmp_path)
    assert sockets == []
    assert outside(written, tmp_path / "work", tmp_path / "tmp") == []


def test_the_guard_sees_a_socket_and_a_file(tmp_path):
    spoilt = f"import socket; socket.socket(); open({str(tmp_path / 'elsewhere')!r}, 'w').close()"
    (tmp_path / "spoil.py").write_text(spoilt)
    trace = tmp_path / "trace"
    subprocess.run(
        ["strace", "-f", "-qq", "-e", f"trace={_CALLS}", "-o", trace, sys.executable, tmp_path / "spoil.py"], check=True
    )
    calls = trace.read_text().splitlines()
    assert any(re.search(r"\bsocket\(.*AF_INET", call) for call in calls)
    assert str(tmp_path / "elsewhere") in [found[1] for call in calls for found in [_OPENED.search(call)] if found]


@pytest.mark.parametrize("chosen", [None, "0"])
def test_telemetry_is_off_unless_the_user_has_chosen(chosen):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if chosen is None else {"ORT_DISABLE_TELEMETRY": chosen}
    code = "import os, onnxlens.runtime._running.runner; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == (chosen or "1")
