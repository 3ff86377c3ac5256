"""A saved page has the model inside: it runs from a disk, offline, and answers as the server does."""

from __future__ import annotations

import re

import pytest
from explorer_engines import compared
from explorer_page import NEEDS_PAGE

import onnxlens
from onnxlens.plugins.explorer import Engine

pytestmark = NEEDS_PAGE
TEXT = "When Mary and John went to the shop, John gave a drink to"


@pytest.fixture
def saved(command, tmp_path):
    """A saved page, made by the command."""
    made = command("explore", "Anna met Peter", "--save", str(tmp_path / "page <&> name.html"))
    assert made.code == 0 and re.search(r"name.html: \d+\.\d MB", made.out), made
    return tmp_path / "page <&> name.html"


def test_it_runs_the_model_from_a_disk_without_a_connection(saved, from_disk):
    page = from_disk(saved)
    assert page.get_by_test_id("text").input_value() == "Anna met Peter"
    edit = {"hook": "blocks.4.attn.hook_z", "operation": "zero", "heads": 1}
    asked = [
        ["tokenize", {"text": TEXT}],
        ["run", {"text": TEXT, "reads": ["next", "guesses", "effects", "sources"]}],
        ["run", {"text": TEXT, "reads": ["next", "effects"], "edits": [edit], "token": 5, "against": 8}],
        ["continue", {"text": TEXT, "max_new_tokens": 4, "seed": 5}],
    ]
    with onnxlens.load(provider="cpu", threads=1) as lens:
        compared(page, Engine(lens), asked)
    page.get_by_test_id("text").fill("a dog")
    page.get_by_test_id("model").get_by_text(re.compile(r"tokens: 2\b")).wait_for()


def test_its_policy_lets_nothing_in(saved):
    content = saved.read_text(encoding="utf-8")
    policy = content.partition('content-security-policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-inline'" not in policy and "'unsafe-eval'" not in policy and "http" not in policy
    assert saved.stat().st_size < 25e6
    assert not list(saved.parent.glob(".*"))
