"""`onnxlens explore` as a process: it prints its address, listens on this machine only, and ends at once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from onnxlens.plugins.explorer import _server

BUILT = pytest.mark.skipif(
    not (_server.BUILT / "index.html").is_file() and "CI" not in os.environ, reason="needs the built page: make explore"
)


@pytest.fixture
def explore():
    """Starts the command; returns the process, and what it printed."""
    started = []

    def start(*arguments):
        command = [sys.executable, "-m", "onnxlens", "explore", "--no-browser", "--port", "0", "--json", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process, json.loads(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


@BUILT
def test_it_serves_this_machine_and_ends_on_ctrl_c(explore):
    process, said = explore("a cat")
    address, state = said["address"].split("#")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address) and state == "text=a%20cat"
    with urllib.request.urlopen(f"{address}api/models", timeout=60) as response:
        assert json.load(response)["models"][0]["name"] == said["model"] == "tiny"
    with urllib.request.urlopen(address, timeout=60) as response:
        assert b"<title>onnxlens explore</title>" in response.read()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stderr.read().strip() == "Interrupted."


@BUILT
def test_another_address_needs_a_token(explore):
    _, said = explore("--host", "0.0.0.0")
    address, state = said["address"].split("#")
    found = re.fullmatch(r"key=([\w-]{32})", state)
    asked = urllib.request.Request(f"{address}api/models")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(asked, timeout=60)
    asked.add_header("x-onnxlens-token", found[1])
    assert urllib.request.urlopen(asked, timeout=60).status == 200


def test_without_the_page_it_says_which_command_builds_it(command, monkeypatch, tmp_path):
    monkeypatch.setattr(_server, "BUILT", tmp_path)
    ran = command("explore", "--no-browser")
    assert (ran.code, ran.err) == (
        1,
        "Error: The page of the explorer is not built: in a checkout, run 'make explore'.\n",
    )
