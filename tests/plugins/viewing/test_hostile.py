"""Plugins that do harm: each is broken by itself, is named with its reason, and takes nothing else down."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
from plugin_sources import HEAD, sampler, visualizer

from onnxlens.plugins._registry import Registry
from onnxlens.runtime.errors import PluginError

REGISTER = HEAD + "@hookimpl\ndef register_samplers(register):\n    "
HOOKS = "the hooks are register_samplers, register_visualizers, register_commands, register_families"
PLAIN = "The hook 'register_samplers' must be a plain function, without yield and async."
NO_CLASS = "A sampler is a class that derives from onnxlens.plugins.Sampler, and what was registered as 'bad' is "
NAME = (
    " is not a name for a sampler: use at most 50 small letters, digits and underscores, beginning with a letter, and "
    "no keyword of Python."
)
CLASS = HEAD + "from dataclasses import dataclass\nfrom onnxlens.plugins import Sampler\n"

WAYS = {
    # At import.
    "raises": (HEAD + "1 / 0\n", "ZeroDivisionError: division by zero (line 3 of FILE)."),
    "needs a library": (
        "import no_such_library_here\n",
        "ModuleNotFoundError: No module named 'no_such_library_here'",
    ),
    "syntax": (HEAD + "def (:\n", "SyntaxError: invalid syntax (FILE, line 3)."),
    "exits": ("import sys\nsys.exit('leaving')\n", "SystemExit: leaving (line 2 of FILE)."),
    "exits with 0": ("raise SystemExit(0)\n", "SystemExit: 0 (line 1 of FILE)."),
    "base exception": ("class Odd(BaseException): pass\nraise Odd\n", "Odd (line 2 of FILE)."),
    "error without text": (
        "class Mute(Exception):\n    def __str__(self): return 1 / 0\nraise Mute\n",
        "Mute: (without a text) (line 3 of FILE).",
    ),
    "long error": ("raise ValueError('x' * 100_000)\n", f"ValueError: {'x' * 288} … (line 1 of FILE)."),
    "several lines": ("raise ValueError('a\\n\\n  b')\n", "ValueError: a b (line 1 of FILE)."),
    "recursion": ("def f(): f()\nf()\n", "RecursionError: maximum recursion depth exceeded"),
    "null bytes": ("x = 1\0\n", "SyntaxError: source code string cannot contain null bytes"),
    # The version of the interface.
    "no version": (
        "from onnxlens.plugins import hookimpl\n",
        "It does not say which version of the plugin interface it was written for; put ONNXLENS_PLUGIN_API = 1 at the "
        "top of its module.",
    ),
    "newer": (
        HEAD + "ONNXLENS_PLUGIN_API = 2\n",
        "It was written for version 2 of the plugin interface, and this onnxlens has version 1; install a newer "
        "onnxlens.",
    ),
    "retired": (
        HEAD + "ONNXLENS_PLUGIN_API = 0\n",
        "It was written for version 0 of the plugin interface, which is retired: this onnxlens has version 1; install "
        "a newer version of the plugin.",
    ),
    "text as version": (
        HEAD + "ONNXLENS_PLUGIN_API = '1'\n",
        "ONNXLENS_PLUGIN_API must be a whole number, such as 1, not '1'.",
    ),
    "truth as version": (
        HEAD + "ONNXLENS_PLUGIN_API = True\n",
        "ONNXLENS_PLUGIN_API must be a whole number, such as 1, not True.",
    ),
    # Hooks.
    "misspelt": (
        HEAD + "@hookimpl\ndef register_sampler(register): pass\n",
        f"There is no hook 'register_sampler'; {HOOKS}. Did you mean 'register_samplers'?",
    ),
    "misspelt, not marked": (
        HEAD + "def register_vizualizers(register): pass\n",
        f"There is no hook 'register_vizualizers'; {HOOKS}. Did you mean 'register_visualizers'?",
    ),
    "of another program": (
        HEAD + "@hookimpl\ndef prepare_connection(register): pass\n",
        f"There is no hook 'prepare_connection'; {HOOKS}.",
    ),
    "misspelt by name": (
        HEAD + "@hookimpl(specname='register_sampler')\ndef mine(register): pass\n",
        f"There is no hook 'register_sampler'; {HOOKS}. Did you mean 'register_samplers'?",
    ),
    "not marked": (
        HEAD + "def register_samplers(register): pass\n",
        "The function 'register_samplers' is not marked as a hook; put @hookimpl above it.",
    ),
    "no hook": (HEAD, f"It has no hook, so it adds nothing; {HOOKS}, with @hookimpl above it."),
    "other arguments": (
        HEAD + "@hookimpl\ndef register_samplers(reg): pass\n",
        "One of its hooks cannot be called: ",
    ),
    "generator": (
        REGISTER + "yield\n",
        "The hook 'register_samplers' must be a plain function, without yield and async.",
    ),
    "async": (
        HEAD + "@hookimpl\nasync def register_samplers(register): pass\n",
        "The hook 'register_samplers' must be a plain function, without yield and async.",
    ),
    # At registration.
    "raises when registering": (REGISTER + "{}['key']\n", "KeyError: 'key' (line 5 of FILE)."),
    "exits when registering": (REGISTER + "raise SystemExit\n", "SystemExit (line 5 of FILE)."),
    "rubbish": (REGISTER + "register('bad', 3)\n", NO_CLASS + "an object of int."),
    "another class": (REGISTER + "register('bad', dict)\n", NO_CLASS + "the class dict."),
    "no class": (
        sampler("bad").replace("Same)", "Same())"),
        NO_CLASS + "an object of Same; register the class, not an object of it.",
    ),
    "no dataclass": (
        sampler("bad").replace("@dataclass\n", ""),
        "The sampler 'bad' (Same) is not a dataclass; put @dataclass above it, so that its fields are options.",
    ),
    "abstract": (
        CLASS + "@dataclass\nclass Half(Sampler): pass\n@hookimpl\ndef register_samplers(register):\n"
        "    register('bad', Half)\n",
        "The sampler 'bad' (Half) lacks __call__.",
    ),
    "unknown types": (
        sampler("bad").replace("    def __call__", "    x: 'Nothing' = 1\n\n    def __call__"),
        "The options of the sampler 'bad' (Same) have types that cannot be checked: name 'Nothing' is not defined.",
    ),
    "reserved option": (
        visualizer("bad").replace("factor:", "model:"),
        "The visualizer 'bad' cannot have an option 'model': every visualizer has one of that name on the command "
        "line; choose another name.",
    ),
    "name with capitals": (sampler("Bad"), f"'Bad'{NAME}"),
    "empty name": (sampler(""), f"''{NAME}"),
    "name with a path": (sampler("../bad"), f"'../bad'{NAME}"),
    "name that Python has": (sampler("lambda"), f"'lambda'{NAME}"),
    "no text as name": (REGISTER + "register(None, None)\n", f"None{NAME}"),
    "long name": (sampler("b" * 51), f"'{'b' * 50}…'{NAME}"),
    "twice": (
        sampler("good") + "    register('good', Same)\n",
        "It registers the sampler 'good' twice.",
    ),
    "built-in name": (
        sampler("top_k"),
        "The name 'top_k' is taken by a sampler that is built in; choose another one.",
    ),
    "built-in command": (
        HEAD + "@hookimpl\ndef register_commands(register):\n    register('predict', 'os:getcwd')\n",
        "The name 'predict' is taken by a command that is built in; choose another one.",
    ),
    "no command": (
        HEAD + "@hookimpl\ndef register_commands(register):\n    register('bad', print)\n",
        "The command 'bad' must be a click command, or its place as 'module:attribute', not an object of "
        "builtin_function_or_method.",
    ),
    "no place of a command": (
        HEAD + "@hookimpl\ndef register_commands(register):\n    register('bad', 'somewhere')\n",
        "The command 'bad' must be a click command, or its place as 'module:attribute', not 'somewhere'.",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_plugin_is_listed_with_its_reason_and_harms_no_other(install, way):
    source, expected = WAYS[way]
    path = install("hostile", source)
    install("honest", sampler("honest"))
    known = Registry()
    assert known.samplers["honest"].distribution == "honest 1.0"
    (broken,) = known.broken
    assert (broken.name, broken.distribution) == ("hostile", "hostile 1.0")
    assert broken.reason.startswith(expected.replace("FILE", str(path) if "SyntaxError" not in expected else path.name))
    assert "\n" not in broken.reason
    # Its own name repeats the reason, and nothing of it is there.
    with pytest.raises(PluginError) as caught:
        known.get("sampler", "hostile")
    assert str(caught.value) == f"The plugin 'hostile' (hostile 1.0) cannot be used: {broken.reason}"
    assert not [entry for entry in known.samplers.values() if entry.distribution == "hostile 1.0"]


def test_what_was_registered_before_the_error_is_taken_back(install):
    install("hostile", sampler("early") + "    raise ValueError('half way')\n")
    known = Registry()
    assert "early" not in known.samplers
    with pytest.raises(PluginError, match=r"'hostile' .* cannot be used: ValueError: half way"):
        known.get("sampler", "early")


def test_an_error_of_registering_that_the_plugin_hides_is_one_all_the_same(install):
    install(
        "hostile",
        sampler("early") + "    try:\n        register('top_k', Same)\n    except Exception:\n        pass\n",
    )
    known = Registry()
    assert "early" not in known.samplers
    assert known.broken[0].reason == "The name 'top_k' is taken by a sampler that is built in; choose another one."


def test_registering_later_is_refused(install):
    install("late", sampler("later") + "    global kept\n    kept = register\n")
    known = Registry()
    assert "later" in known.samplers
    with pytest.raises(PluginError, match="Plugins register when they are loaded, not later"):
        sys.modules["outside_late"].kept("more", object)
    assert "more" not in known.samplers


def test_interrupting_is_still_possible(install):
    install("hostile", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        _ = Registry().samplers


def test_two_plugins_with_one_name_and_neither_wins(install):
    install("beta", sampler("same") + "    register('own', Same)\n")
    install("alpha", sampler("same"), version="2.0")
    known = Registry()
    assert "same" not in known.samplers
    assert known.samplers["own"].distribution == "beta 1.0"  # the rest of it stays
    (broken,) = known.broken
    assert str(broken) == (
        "The plugin 'same' (alpha 2.0 and beta 1.0) cannot be used: alpha 2.0 and beta 1.0 each have a sampler of that "
        "name, so none is used; keep one of them."
    )
    with pytest.raises(PluginError) as caught:
        known.get("sampler", "same")
    assert str(caught.value) == str(broken)


def test_a_plugin_that_leaves_the_folder_takes_nobody_along(file, tmp_path, monkeypatch, command, bundle):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    file("leaves", "import os\nos.chdir('elsewhere')\n" + visualizer("leaves", "os.chdir('/')\nreturn Counted(view)"))
    file("second", sampler("second"))
    known = Registry(["leaves.py", "second.py"], find=False)
    assert not known.broken
    assert "second" in known.samplers
    ran = command("--plugin", "leaves.py", "view", "leaves", "a", "-o", "here.json", "-m", bundle("base"))
    monkeypatch.chdir(tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert (tmp_path / "here.json").is_file()


def test_one_name_for_two_kinds_is_no_conflict(install):
    install("beta", sampler("same"))
    install("alpha", visualizer("same"))
    known = Registry()
    assert known.broken == []
    assert known.samplers["same"].plugin is not known.visualizers["same"].plugin


def test_a_built_in_name_stays_what_it_was(install):
    install("hostile", visualizer("tokens"))
    known = Registry()
    assert known.get("visualizer", "tokens").distribution.startswith("onnxlens ")
    assert known.visualizers["tokens"].distribution.startswith("onnxlens ")


PRINTS = """
import os, subprocess, sys
print("by print")
os.write(1, b"by the system\\n")
subprocess.run([sys.executable, "-c", "print('by a child')"])
sys.__stdout__.write("by the other name\\n")
"""


def test_what_is_printed_while_loading_goes_to_standard_error(install):
    site = install("loud", PRINTS + sampler("loud")).parent
    code = f"import sys\nsys.path.insert(0, {str(site)!r})\nfrom onnxlens._cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code, "plugins", "--json"], capture_output=True, text=True)
    assert done.returncode == 0
    import json

    names = {entry["name"] for entry in json.loads(done.stdout)["plugins"]}
    assert "loud" in names
    for line in ("by print", "by the system", "by a child", "by the other name"):
        assert line in done.stderr.splitlines()


def test_what_is_printed_while_sampling_goes_to_standard_error(command, file, bundle):
    path = file(
        "loud", sampler("loud").replace("        return logits", "        print('sampled')\n        return logits")
    )
    for arguments in (["generate", "the cat", "-n", "2"], ["search", "best-of", "the cat", "-n", "2"]):
        ran = command("--plugin", path, *arguments, "--json", "--sampler", "loud", "-m", bundle("base"))
        assert (ran.code, "sampled" in ran.out) == (0, False)
        assert "sampled" in ran.err


SAMPLING = {
    "raises": ("1 / 0", "The sampler Same failed: ZeroDivisionError: division by zero (line 12 of FILE)."),
    "exits": ("raise SystemExit(0)", "The sampler Same failed: SystemExit: 0 (line 12 of FILE)."),
    "base exception": ("raise BaseException('odd')", "The sampler Same failed: BaseException: odd (line 12 of FILE)."),
    "writes": ("logits *= 0; return logits", "The sampler Same failed: ValueError: output array is read-only (line"),
    "nothing": ("pass", "The sampler Same must return an array of floating-point logits, not NoneType."),
    "wrong shape": ("return logits[:, :1]", "The sampler Same must return logits of the same shape, [1, "),
    "no token": ("return logits * 0 - float('inf')", "The sampler Same leaves no token to choose from."),
    "no number": ("return logits * float('nan')", "The sampler Same returns logits that are NaN or infinite."),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("way", SAMPLING)
def test_a_sampler_that_fails_while_it_runs_is_one_line(command, file, bundle, way):
    body, expected = SAMPLING[way]
    path = file("bad", sampler("bad").replace("        return logits", f"        {body}"))
    for arguments in (["generate", "a", "--json"], ["search", "beam", "a"], ["search", "best-of", "a"]):
        ran = command("--plugin", path, *arguments, "--sampler", "bad", "-n", "2", "-m", bundle("base"))
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"Error: {expected.replace('FILE', str(path))}".replace("[1, ", "["))
        assert ran.err.count("\n") == 1


def test_what_was_generated_before_a_sampler_failed_ends_its_line(command, file, bundle):
    late = "if context.step > 2: 1 / 0\n        return logits"
    path = file("late", sampler("late").replace("return logits", late))
    ran = command("--plugin", path, "generate", "a", "--sampler", "late", "-n", "9", "-m", bundle("base"))
    assert (ran.code, ran.out.startswith("a"), ran.out.endswith("\n")) == (1, True, True)
    assert len(ran.out) > len("a\n")
    assert ran.err.startswith("Error: The sampler Same failed: ZeroDivisionError: division by zero (line 12 of ")


def test_a_sampler_that_cannot_be_made_is_one_line(command, file, bundle):
    broken = sampler("bad").replace(
        "    def __call__", "    def __post_init__(self):\n        1 / 0\n\n    def __call__"
    )
    path = file("bad", broken)
    ran = command("--plugin", path, "generate", "a", "--sampler", "bad", "-m", bundle("base"))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(
        f"Error: The sampler 'bad' (the file {path}) failed: ZeroDivisionError: division by zero ("
    )


def test_what_is_printed_while_drawing_goes_to_standard_error(command, file, bundle):
    path = file("loud", visualizer("loud", "print('drawn')\nreturn Counted(view)"))
    ran = command("--plugin", path, "view", "loud", "the cat", "--json", "-m", bundle("base"))
    assert ran.json > 1
    assert "drawn" in ran.err


def test_a_slow_plugin_delays_only_those_who_need_plugins(install, command, bundle):
    install("slow", "import time\ntime.sleep(1.2)\n" + sampler("slow"))
    began = time.perf_counter()
    command("view", "tokens", "--help")
    for arguments in (["--help"], ["hooks", "-m", bundle("base")], ["view", "tokens", "a", "--colour", "nothing"]):
        assert command(*arguments).code == 0
    assert "outside_slow" not in sys.modules, time.perf_counter() - began
    ran = command("plugins")
    assert re.search(r"Loading slow \(slow 1\.0\) took \d+\.\d s\.", ran.out)


RUNNING = {
    "raises": ("1 / 0", "failed: ZeroDivisionError: division by zero (line 28 of FILE)."),
    "exits": ("raise SystemExit(3)", "failed: SystemExit: 3 (line 28 of FILE)."),
    "no rendering": ("return 'a text'", "Count.draw must return a Rendering, and returned str."),
    "nothing": ("pass", "Count.draw must return a Rendering, and returned NoneType."),
    "undeclared": ("view.cache['pattern', 0]", "'blocks.0.attn.hook_pattern' was not read;"),
    "wrong text": (
        "one = Counted(view)\none.text = lambda: 3\nreturn one",
        "Counted.text() must return something that",
    ),
    "text that fails": ("one = Counted(view)\none.text = lambda: 1 / 0\nreturn one", "failed: ZeroDivisionError:"),
    "text that fails late": (
        "class Late:\n    def __rich_console__(self, console, options): raise ValueError('late')\n"
        "one = Counted(view)\none.text = Late\nreturn one",
        "failed: ValueError: late (",
    ),
    "no text": ("one = Rendering()\nreturn one", "Rendering has no text(); it has no format at all."),
}


@pytest.mark.parametrize("way", RUNNING)
def test_a_visualizer_that_fails_while_it_runs_is_one_line(command, file, bundle, way):
    draw, expected = RUNNING[way]
    path = file("bad", visualizer("bad", draw))
    ran = command("--plugin", path, "view", "bad", "the cat", "-m", bundle("base"))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: ")
    if expected.startswith("failed"):
        assert ran.err.startswith(f"Error: The visualizer 'bad' (the file {path}) failed: ")
    assert expected.replace("FILE", str(path)) in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            "float('nan')",
            ("Counted.data() returned something that JSON cannot hold: Out of range float values are not JSON"),
        ),
        (
            "object()",
            (
                "Counted.data() returned something that JSON cannot hold: Object of type object is not JSON "
                "serializable."
            ),
        ),
        ("view", "Counted.data() returned something that JSON cannot hold: "),
        ("'\\ud800'", "Counted.data() returned something that JSON cannot hold: 'utf-8' codec can't encode"),
    ],
)
def test_data_that_json_cannot_hold(command, file, bundle, data, expected):
    path = file("bad", visualizer("bad", f"one = Counted(view)\none.data = lambda: {data}\nreturn one"))
    ran = command("--plugin", path, "view", "bad", "the cat", "--json", "-m", bundle("base"))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"Error: {expected}")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("'hook_embed'", "Count.hook_points must return a list of names, and returned 'hook_embed'."),
        ("None", "Count.hook_points must return a list of names, and returned None."),
        ("[3]", "Count.hook_points must name hook points by text, not 3."),
        ("['hook_embedd']", "Unknown hook point 'hook_embedd'."),
        ("['blocks.99.hook_mlp_out']", "Unknown hook point 'blocks.99.hook_mlp_out': this model has blocks 0 to 1."),
    ],
)
def test_hook_points_that_are_none(command, file, bundle, names, expected):
    path = file("bad", visualizer("bad").replace("return []", f"return {names}"))
    ran = command("--plugin", path, "view", "bad", "the cat", "-m", bundle("base"))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"Error: {expected}")


def test_the_text_of_a_plugin_does_nothing_to_a_terminal(command, file):
    path = file("evil", sampler("evil").replace("Leaves", "\\x1b[2J[red]Leaves"))
    for arguments in (["plugins"], ["plugins", "show", "evil"]):
        ran = command("--plugin", path, *arguments)
        assert ran.code == 0
        assert "\x1b" not in ran.out
    assert r"\x1b[2J[red]Leaves" in ran.out


def test_what_a_visualizer_prints_does_nothing_to_a_terminal(command, file, bundle):
    path = file("evil", visualizer("evil", "one = Counted(view)\none.text = lambda: '\\x1b[2J[red]x'\nreturn one"))
    ran = command("--plugin", path, "view", "evil", "a", "-m", bundle("base"))
    assert ran.out == "\\x1b[2J[red]x\n"
