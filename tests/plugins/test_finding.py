"""Where plugins are found, which of them are loaded, and when."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from plugin_sources import sampler

from onnxlens.plugins._registry import Registry
from onnxlens.runtime.errors import PluginError


def mine(known: Registry) -> dict[str, str]:
    """What is not built in, by name, with where it is from."""
    built_in = {entry.name for entry in known.built_in}
    return {name: entry.distribution for name, entry in known.samplers.items() if name not in built_in}


def test_built_in_ones_are_plugins_too():
    known = Registry(find=False)
    assert {"temperature", "top_k", "top_p", "greedy", "multinomial"} <= set(known.samplers)
    assert "tokens" in known.visualizers
    assert known.samplers["top_k"].distribution.startswith("onnxlens ")
    assert known.samplers["top_k"].kind == "sampler"
    assert known.broken == []


def test_installed_packages_files_and_the_users_folder(install, file, dropped):
    install("one", sampler("first"), version="2.5")
    path, other = file("two", sampler("second")), dropped("three", sampler("third"))
    known = Registry([path])
    assert mine(known) == {"first": "one 2.5", "second": f"the file {path}", "third": f"the file {other}"}
    assert known.broken == []
    assert known.samplers["first"].summary == "Leaves everything as it is."


def test_find_false_loads_only_what_was_named(install, file, dropped):
    install("one", sampler("first"))
    dropped("three", sampler("third"))
    assert set(mine(Registry([file("two", sampler("second"))], find=False))) == {"second"}


def test_a_file_leaves_nothing_beside_itself(file):
    path = file("two", sampler("second"))
    assert set(mine(Registry([path], find=False))) == {"second"}
    assert [one.name for one in path.parent.iterdir()] == ["two.py"]


def test_a_file_that_is_found_twice_is_one(dropped):
    path = dropped("three", sampler("third"))
    known = Registry([path, str(path)])
    assert (set(mine(known)), known.broken) == ({"third"}, [])


def test_hidden_files_of_the_folder_are_none(dropped):
    dropped("_three", sampler("third"))
    assert mine(Registry()) == {}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("", set()),
        ("  ", set()),
        ("one", {"first"}),
        ("ONE, three", {"first", "third"}),
        ("entry-of-four", {"fourth"}),
        ("entry_of.four", {"fourth"}),
        ("four", {"fourth"}),
    ],
)
def test_the_environment_limits_them(install, dropped, monkeypatch, limit, expected):
    install("one", sampler("first"))
    dropped("three", sampler("third"))
    install("four", sampler("fourth"), entry="entry_of_four")
    assert set(mine(Registry())) == {"first", "third", "fourth"}
    monkeypatch.setenv("ONNXLENS_PLUGINS", limit)
    known = Registry()
    assert (set(mine(known)), known.broken) == (expected, [])


def test_what_is_limited_away_is_not_even_imported(install, monkeypatch):
    install("one", "raise SystemExit")
    monkeypatch.setenv("ONNXLENS_PLUGINS", "")
    assert Registry().broken == []
    assert "outside_one" not in sys.modules


def test_the_environment_names_what_is_not_there(install, monkeypatch):
    install("one", sampler("first"))
    monkeypatch.setenv("ONNXLENS_PLUGINS", "onne")
    known = Registry()
    (broken,) = known.broken
    assert str(broken) == (
        "The plugin 'onne' (ONNXLENS_PLUGINS) cannot be used: ONNXLENS_PLUGINS names it, and there is no such plugin. "
        "Did you mean 'one'?"
    )
    with pytest.raises(PluginError, match=r"The plugin 'onne' .* there is no such plugin"):
        known.get("sampler", "onne")


def test_a_file_that_was_named_where_plugins_are_off(file, monkeypatch):
    path = file("two", sampler("second"))
    monkeypatch.setenv("ONNXLENS_PLUGINS", "")
    with pytest.raises(PluginError) as caught:
        Registry([path])
    assert str(caught.value) == (
        f"ONNXLENS_PLUGINS is empty, which turns plugins off, but {path} was named as one; unset "
        "ONNXLENS_PLUGINS, or do not name the file."
    )
    monkeypatch.setenv("ONNXLENS_PLUGINS", "other")
    assert set(mine(Registry([path]))) == {"second"}


@pytest.mark.parametrize(
    ("limit", "expected"), [("", "is empty, so no plugins are loaded."), ("two", "is 'two', so no others are loaded.")]
)
def test_what_the_environment_leaves_out_is_no_riddle(install, monkeypatch, limit, expected):
    install("one", sampler("first"))
    monkeypatch.setenv("ONNXLENS_PLUGINS", limit)
    with pytest.raises(PluginError) as caught:
        Registry().get("sampler", "first")
    assert str(caught.value).endswith(f" ONNXLENS_PLUGINS {expected}")


def test_files_that_cannot_be_plugins(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for path, expected in [
        (tmp_path / "no.py", f"The plugin {tmp_path}/no.py does not exist; give the path of a Python file, such as"),
        (tmp_path, f"The plugin {tmp_path} is not a file; give the path"),
        (tmp_path / "notes.txt", f"A plugin is a Python file, and {tmp_path}/notes.txt does not end with .py."),
        ("a\0b.py", "A plugin is a Python file, and 'a\\x00b.py' cannot be one:"),
        (3, "A plugin is a Python file, and 3 cannot be one:"),
    ]:
        with pytest.raises(PluginError) as caught:
            Registry([path])
        assert str(caught.value).startswith(expected)
    with pytest.raises(PluginError, match=r"^Plugins are named by the paths of their files, not by 5\.$"):
        Registry(5)


def test_what_is_built_in_needs_no_other_plugin(install):
    install("one", "raise ValueError('never seen')")
    known = Registry()
    assert known.get("visualizer", "tokens").name == "tokens"
    assert known.get("sampler", "top_k").name == "top_k"
    assert "_outside" not in vars(known)


def test_an_unknown_name_has_a_suggestion():
    with pytest.raises(PluginError) as caught:
        Registry(find=False).get("visualizer", "tokns")
    expected = "There is no visualizer 'tokns'. Did you mean 'tokens'? 'onnxlens plugins' lists all of them."
    assert str(caught.value) == expected
    with pytest.raises(PluginError, match=r"There is no command 'x'\. There are none\. 'onnxlens plugins' lists all"):
        Registry(find=False).get("command", "x")


def test_a_package_with_damaged_metadata_harms_no_other(install, tmp_path):
    install("one", sampler("first"))
    damaged = tmp_path / "site" / "two-1.0.dist-info"
    damaged.mkdir()
    (damaged / "METADATA").write_bytes(b"\xff\xfe")
    (damaged / "entry_points.txt").write_bytes(b"\xff\xfe[onnxlens]\n")
    known = Registry()
    assert set(mine(known)) == {"first"}
    (broken,) = known.broken
    assert broken.name == "two-1.0"
    assert broken.reason.startswith("its metadata cannot be read: UnicodeDecodeError")


HEAVY = """
import sys
from onnxlens._cli import _run
code = _run(sys.argv[1:])
print(code, *sorted(name for name in ("outside_one", "numpy", "rich", "matplotlib") if name in sys.modules))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["view", "--help"]])
def test_help_imports_nothing_heavy(install, arguments):
    site = install("one", "import matplotlib\n").parent
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(site)!r})\n{HEAVY}", *arguments],
        capture_output=True,
        text=True,
    )
    loaded = done.stdout.splitlines()[-1].split()
    assert loaded[0] == "0", done.stderr
    assert not {"matplotlib", "outside_one"} & set(loaded)
    if arguments == ["--help"]:
        assert loaded == ["0"]


def test_what_an_author_needs_is_light():
    code = "import onnxlens.plugins, sys; from onnxlens.plugins import hookimpl; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_public_names_are_what_they_say():
    import onnxlens.plugins

    for name in onnxlens.plugins.__all__:
        assert getattr(onnxlens.plugins, name) is not None
    assert set(onnxlens.plugins.__all__) == set(onnxlens.plugins._HOME)
    with pytest.raises(AttributeError, match=r"module 'onnxlens.plugins' has no attribute 'nothing'"):
        _ = onnxlens.plugins.nothing
    assert Path(onnxlens.plugins.__file__).name == "__init__.py"
