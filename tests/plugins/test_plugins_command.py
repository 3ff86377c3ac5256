"""`onnxlens plugins`: the table, JSON, the help of one, and the options that say which plugins there are."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator
from plugin_sources import sampler, visualizer

from onnxlens.plugins._description import hook_points, option_rows
from onnxlens.plugins._options import json_schema
from onnxlens.plugins._registry import Registry


def test_the_table(command, install, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    install("mine", visualizer("count"))
    install("bad", "1 / 0")
    ran = command("plugins")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.rstrip() for line in ran.out.splitlines()]
    place = lines.index("visualizers, from mine 1.0")
    assert lines[place + 1].split() == ["name", "options", "reads", "summary"]
    assert lines[place + 2].split() == ["count", "factor", "Counts", "tokens."]
    (line,) = [line for line in lines if line.startswith("tokens ")]
    assert line.split()[:3] == ["tokens", "colour", "layer"]
    assert "logits" in line.split()
    assert "\nThe plugin 'bad' (bad 1.0) cannot be used: ZeroDivisionError: division by zero (line 1 of " in ran.out


def test_json(command, install):
    install("mine", visualizer("count"))
    install("bad", "1 / 0")
    document = command("plugins", "--json").json
    assert set(document) == {"plugins", "broken", "loaded"}
    (count,) = [entry for entry in document["plugins"] if entry["name"] == "count"]
    options = count.pop("options")
    assert count == {
        "kind": "visualizer",
        "name": "count",
        "distribution": "mine 1.0",
        "summary": "Counts tokens.",
        "help": "Counts tokens.",
        "hook_points": [],
    }
    Draft202012Validator.check_schema(options)
    assert options["properties"]["factor"]["minimum"] == 1
    (broken,) = document["broken"]
    assert (broken["name"], broken["distribution"]) == ("bad", "bad 1.0")
    assert {"name": "bad", "distribution": "bad 1.0"}.items() <= document["loaded"][-2].items()


def test_no_plugins(command, install, file):
    install("mine", sampler("first"))
    assert '"first"' in command("plugins", "--json").out
    assert '"first"' not in command("--no-plugins", "plugins", "--json").out
    ran = command("--no-plugins", "plugins", "show", "first")
    assert (ran.code, ran.out) == (1, "")
    assert (
        ran.err == "Error: There is no plugin 'first'. Did you mean 'mirostat'? 'onnxlens plugins' lists all of them.\n"
    )
    ran = command("--no-plugins", "--plugin", file("x", ""), "plugins")
    assert (ran.code, ran.out) == (2, "")
    assert "Give either --plugin or --no-plugins." in ran.err


def test_several_files(command, file):
    first, second = file("a", sampler("first")), file("b", sampler("second"))
    names = {one["name"] for one in command("--plugin", first, "--plugin", second, "plugins", "--json").json["plugins"]}
    assert {"first", "second"} <= names


@pytest.mark.parametrize("arguments", [["plugins"], ["hooks"], ["view", "tokens", "a"]])
def test_a_file_that_is_not_there_is_an_error_always(command, arguments):
    ran = command("--plugin", "no.py", *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "Error: The plugin no.py does not exist; give the path of a Python file, such as ./my_view.py.\n"
    )


def test_show(command):
    ran = command("plugins", "show", "tokens")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("visualizer tokens, from onnxlens ")
    for piece in ("The tokens of a text", "colour", '"surprisal"', "a whole number", "Reads, by default,", "logits"):
        assert piece in ran.out
    (document,) = command("plugins", "show", "tokens", "--json").json
    assert document["options"]["properties"]["layer"]["default"] is None
    assert document["hook_points"] == ["logits"]


def test_show_says_bounds_and_what_must_be_given(command, file):
    path = file("count", visualizer("count").replace("ge=1)] = 1", "ge=1, lt=9)]"))
    ran = command("--plugin", path, "plugins", "show", "count")
    (line,) = [line for line in ran.out.splitlines() if line.startswith("factor")]
    for piece in ("a whole number, at least 1, below 9", "must be given", "what to multiply with"):
        assert piece in line
    assert "hook points that depend on its options" in ran.out


@pytest.mark.parametrize("name", ["tokns", "", "\x1b[2J", "x" * 10_000])
def test_show_of_what_is_not_there(command, name):
    ran = command("plugins", "show", name)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: There is no plugin ")
    assert ran.err.count("\n") == 1
    assert "\x1b" not in ran.err
    assert len(ran.err) < 300
    if name == "tokns":
        assert "Did you mean 'tokens'?" in ran.err


def test_show_of_a_broken_one_repeats_the_reason(command, install):
    install("bad", "1 / 0")
    ran = command("plugins", "show", "bad")
    assert ran.code == 1
    assert ran.err.startswith("Error: The plugin 'bad' (bad 1.0) cannot be used: ZeroDivisionError: division by zero")


def test_wrong_usage(command):
    ran = command("plugins", "--json", "show", "tokens")
    assert (ran.code, ran.out) == (2, "")
    assert "Give --json after the command: onnxlens plugins show --json." in ran.err


def test_every_built_in_says_what_it_is():
    known = Registry(find=False)
    for entry in known.built_in:
        assert entry.summary.endswith(".")
        if entry.kind == "family":  # which has no options
            continue
        Draft202012Validator.check_schema(json_schema(entry.plugin))
        for row in option_rows(entry):
            assert row["help"], f"{entry.name}: {row['name']}"
            assert row["type"] != "anything"
        needs_options = any(row["required"] for row in option_rows(entry))
        assert needs_options or hook_points(entry) is not None


def test_bounds_may_stand_on_either_side_of_nothing():
    from dataclasses import dataclass
    from typing import Annotated

    from onnxlens.plugins._options import Option, Options, make
    from onnxlens.runtime.errors import InputError

    @dataclass
    class Window(Options):
        inside: Annotated[int, Option("how many", ge=1)] | None = None
        around: Annotated[int | None, Option("how many", ge=1)] = None
        words: Annotated[list[str] | None, Option("which", min_length=1)] = None

    Window.__annotations__ = {  # as they are where annotations are not text
        "inside": Annotated[int, Option("how many", ge=1)] | None,
        "around": Annotated[int | None, Option("how many", ge=1)],
        "words": Annotated[list[str] | None, Option("which", min_length=1)],
    }
    schema = json_schema(Window)["properties"]
    for option in ("inside", "around"):
        assert schema[option]["description"] == "how many"
        assert schema[option]["anyOf"][0]["minimum"] == 1
    assert make(Window, "window", {"inside": "3", "around": "4", "words": ["a"]}) == Window(3, 4, ["a"])
    for wrong in ({"inside": 0}, {"around": 0}, {"words": []}):
        with pytest.raises(InputError, match="window: "):
            make(Window, "window", wrong)
