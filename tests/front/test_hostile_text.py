"""Text that means something to a terminal or to rich is shown, not obeyed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlens._cli import cli
from onnxlens._commands.options import shown
from onnxlens.plugins._registry import Registry
from onnxlens.runtime._escape import escape_controls, json_text, quoted

HOSTILE = "[red]x[/red] [/] \x1b[31m\x1b]0;t\x07 \x00\n\r\t\x9b31m \u202ex\u2028 :smile: [link=http://x]y[/link]"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
NAME = "evil\x1b[2J[red]\u202e:smile:"


@pytest.fixture
def hostile(bundle, tmp_path):
    """An intact bundle in a folder, and from a source, with names that want to do harm."""
    folder = tmp_path / NAME
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
        assert r"evil\x1b[2J[red]\u202e:smile:" in "".join(ran.out.split())  # a line may end anywhere in a long path
        assert "[red]x[/red]" in ran.out
        assert r"\x1b[2Jfile" in ran.out
        assert not CONTROL.search(ran.out)


def test_models_shows_names_as_they_are(command, hostile, monkeypatch):
    monkeypatch.chdir(hostile.parent)
    monkeypatch.setenv("COLUMNS", "1000")
    (hostile.parent / "models").mkdir()
    hostile.rename(hostile.parent / "models" / hostile.name)
    ran = command("models")
    assert ran.code == 0
    assert r"evil\x1b[2J[red]\u202e:smile:" in ran.out
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
    assert "is not a bundle" in ran.err


def test_an_unknown_hook_point_is_inert(command, bundle):
    ran = command("hooks", "\x1b[31m[red]", "-m", bundle("base"))
    assert ran.err.startswith(r"Error: No hook point matches '\x1b[31m[red]'.")


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that can be called, by the words that call it; of the views, one."""
    context = click.Context(group)
    if path == ("view",):
        yield (*path, "logit_lens")
        return
    if path == ("plugins",):
        yield path
    names = group.list_commands(context)
    for name in names:
        command = group.get_command(context, name)
        yield from commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]


# What each command is given besides the model, whose name wants to do harm, as does what is given here.
ARGUMENTS = {
    ("predict",): ["a"],
    ("generate",): ["a", "-n", "1", "--seed", "1"],
    ("search", "beam"): ["a", "-n", "1", "--num-beams", "2"],
    ("search", "contrastive"): ["a", "-n", "1"],
    ("search", "best-of"): ["a", "-n", "1", "--count", "2", "--seed", "1"],
    ("view", "logit_lens"): [HOSTILE[:30].replace("\x00", "")],
    ("explore",): [HOSTILE[:30].replace("\x00", "")],
    ("hooks",): [],
    ("trace",): ["a", "-o", NAME + ".safetensors"],
    ("analyze", "logit-lens"): [HOSTILE[:30]],
    ("analyze", "dla"): [HOSTILE[:30]],
    ("analyze", "ablate"): ["a"],
    ("analyze", "patch"): ["a", "--corrupted", "b"],
    ("analyze", "heads"): ["--length", "3", "--count", "1"],
    ("analyze", "surprisal"): [HOSTILE[:30]],
    ("inspect",): [],
    ("prepare",): [],
    ("models",): None,
    ("plugins",): None,
    ("plugins", "show"): None,
    ("plugins", "new"): None,
    ("export",): None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_served(monkeypatch, tmp_path_factory):
    """`explore` ends when it would begin to serve, and opens no browser."""
    monkeypatch.setattr("onnxlens.plugins.explorer.serve", lambda *arguments, **options: None)
    page = tmp_path_factory.mktemp("page")
    (page / "index.html").touch()
    monkeypatch.setattr("onnxlens.plugins.explorer._server.BUILT", page)
    monkeypatch.setattr("click.launch", lambda address: 0)


def test_every_command_is_walked():
    assert set(commands()) == set(ARGUMENTS)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["eyes", "json"])
@pytest.mark.parametrize("path", [path for path, given in ARGUMENTS.items() if given is not None], ids=" ".join)
def test_every_command_shows_names_as_they_are(command, hostile, path, options, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    ran = command(*path, *ARGUMENTS[path], "-m", hostile, *options)
    assert ran.code == 0, ran.err
    assert not CONTROL.search(ran.out + ran.err)
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in ran.out
    if options and path != ("generate",):
        json.loads(ran.out)


@pytest.mark.parametrize("path", list(ARGUMENTS), ids=" ".join)
@pytest.mark.parametrize("wrong", [["a", NAME, NAME, "\n"], [f"--{NAME}"], ["-m", NAME], [NAME]])
def test_every_error_of_every_command_shows_names_as_they_are(command, path, wrong, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    ran = command(*path, *wrong)
    assert not CONTROL.search(ran.err)
    if (*path, *wrong) != ("generate", NAME):  # which writes a text into a pipe as it is
        assert not CONTROL.search(ran.out)
    assert "Traceback" not in ran.err


def test_every_view_shows_names_as_they_are(command, hostile):
    views = [entry.name for entry in Registry(find=False).built_in if entry.kind == "visualizer"]
    assert len(views) > 5
    for name in views:
        ran = command("view", name, "a b", "-m", hostile)
        assert not CONTROL.search(re.sub(r"\x1b\[[0-9;]*m", "", ran.out) + ran.err), name


def test_plugins_show_names_as_they_are(command, tmp_path):
    path = tmp_path / f"{NAME}.py"
    path.write_text(f"raise ValueError({HOSTILE!r})")
    ran = command("--plugin", path, "plugins")
    assert ran.code == 0
    assert not CONTROL.search(ran.out + ran.err)
    assert "ValueError" in ran.out


@given(st.text())
def test_json_stays_the_same_document_without_what_a_terminal_obeys(text):
    for encoding in ("utf-8", "ascii", "cp1252"):
        made = json_text(json.dumps({"a": text, text: 1}, ensure_ascii=False, indent=1), encoding)
        assert not CONTROL.search(made)
        made.encode(encoding)
        assert json.loads(made) == {"a": text, text: 1}


@given(st.recursive(st.text() | st.integers() | st.floats(), st.lists))
def test_what_is_quoted_stays_short_and_inert(value):
    assert len(quoted(value)) < 1500
    assert not CONTROL.search(quoted(value))
    assert "\n" not in quoted(value)


def test_what_is_long_or_deep_can_be_quoted():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x" * 10_000_000, 10**100_000, list(range(10_000_000)), {"a" * 1000: "b" * 1000}):
        assert len(quoted(value)) < 300
    assert quoted("a" * 1000) == "'" + "a" * 97 + "..." + "a" * 98 + "'"
    assert quoted([1, "a"]) == "[1, 'a']"


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text):
    for made in (escape_controls(text), shown(text)):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", made)


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_ordinary_text_stays_as_it_is(text):
    assert escape_controls(text) == text
