"""Text that means something to a terminal or to rich is shown, not obeyed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlens.commands.options import inert, shown

HOSTILE = "[red]x[/red] [/] \x1b[31m\x1b]0;t\x07 \x00\n\r\t\x9b31m [link=http://x]y[/link]"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
def hostile(bundle, tmp_path):
    """An intact bundle in a folder, and from a source, with names that want to do harm."""
    folder = tmp_path / "evil\x1b[2J[red]"
    shutil.copytree(bundle("base"), folder)
    manifest = json.loads((folder / "onnxlens.json").read_text())
    manifest["source"] = {"kind": "folder", "name": HOSTILE}
    manifest["files"]["\x1b[2Jfile"] = {
        "size": 0,
        "sha256": hashlib.sha256(b"").hexdigest(),
    }
    (folder / "\x1b[2Jfile").touch()
    (folder / "onnxlens.json").write_text(json.dumps(manifest))
    return folder


def test_predict_shows_the_prompt_as_it_is(command, bundle):
    ran = command("predict", HOSTILE[:40], "--top", 300, "-m", bundle("base"), "--provider", "cpu")
    assert ran.code == 0
    assert not CONTROL.search(ran.out)
    for piece in ("'['", r"'\x1b'", r"'\x00'", r"'\n'", r"'\r'", r"'\x07'"):
        assert piece in ran.out
    assert len(ran.out.splitlines()) < 320  # no token has broken a row of the table


def test_predict_json_keeps_the_prompt(command, bundle):
    document = command("predict", HOSTILE[:40], "--json", "-m", bundle("base"), "--provider", "cpu").json
    assert document["tokens"][0]["token"] == "["


@pytest.mark.parametrize("name", ["inspect", "predict", "generate", "hooks"])
def test_names_in_a_bundle_are_shown_as_they_are(command, hostile, name):
    arguments = {"predict": ["a"], "generate": ["a", "-n", "1", "--temperature", "0"]}.get(name, [])
    ran = command(name, *arguments, "-m", hostile)
    assert ran.code == 0
    assert "\x1b" not in ran.out
    if name == "inspect":
        assert r"evil\x1b[2J[red]" in ran.out.replace("\n", "")
        assert "[red]x[/red]" in ran.out
        assert r"\x1b[2Jfile" in ran.out
        assert not CONTROL.search(ran.out)


def test_models_shows_names_as_they_are(command, hostile, monkeypatch):
    monkeypatch.chdir(hostile.parent)
    (hostile.parent / "models").mkdir()
    hostile.rename(hostile.parent / "models" / hostile.name)
    ran = command("models")
    assert ran.code == 0
    assert r"evil\x1b[2J[red]" in ran.out
    assert not CONTROL.search(ran.out)


@pytest.mark.parametrize("model", ["\x1b[31mno", "a\nb", "[red]no"])
def test_errors_are_one_inert_line(command, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for exists in (False, True):
        ran = command("predict", "a", "-m", model)
        assert ran.code == 1
        assert ran.err.count("\n") == 1
        assert not CONTROL.search(ran.err)
        if not exists:
            (tmp_path / model).mkdir()
    assert "is no bundle" in ran.err


def test_an_unknown_hook_point_is_inert(command, bundle):
    ran = command("hooks", "\x1b[31m[red]", "-m", bundle("base"))
    assert ran.err.startswith(r"Error: No hook point matches '\x1b[31m[red]'.")


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text):
    for made in (inert(text), shown(text)):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", made)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_ordinary_text_stays_as_it_is(text):
    assert inert(text) == text
