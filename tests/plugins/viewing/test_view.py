"""`lens.view` and `onnxlens view`: a visualizer's options, what is read, and every format."""

from __future__ import annotations

import json
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from plugin_sources import HEAD, visualizer
from yardstick import close

from onnxlens._lens import Lens
from onnxlens.plugins._drawing.rendering import Rendering
from onnxlens.plugins._registry import Registry
from onnxlens.plugins.visualizers.tokens import Tokens
from onnxlens.runtime.errors import ContextLengthError, InputError, MissingLibraryError, OutputError, PluginError


@pytest.fixture
def lens(runner) -> Lens:
    return Lens(runner("base"), Registry(find=False))


@pytest.fixture
def model(bundle):
    return ["-m", bundle("base"), "--provider", "cpu", "--threads", "1"]


def test_surprisal_is_that_of_the_model(lens):
    data = lens.view("tokens", "the cat sat").data()
    ids = lens.to_tokens("the cat sat")
    logits = lens.run(ids, logits="all").logits[0].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = -logs[np.arange(ids.shape[1] - 1), ids[0, 1:]]
    values = [token["value"] for token in data["tokens"]]
    assert values[0] is None
    close(values[1:], expected, scale=logits)
    assert [token["id"] for token in data["tokens"]] == ids[0].tolist()


def test_the_norm_is_that_of_the_residual_stream(lens):
    data = lens.view("tokens", "the cat", colour="norm", layer=0).data()
    _, cache = lens.run_with_cache("the cat", names_filter="blocks.0.hook_resid_post")
    expected = np.linalg.norm(cache["resid_post", 0][0].astype(np.float64), axis=-1)
    close([token["value"] for token in data["tokens"]], expected)
    assert data["value"] == "length of the residual stream after block 0"


@pytest.mark.parametrize(
    ("options", "names", "logits"),
    [
        ({}, (), "all"),
        ({"colour": "norm", "layer": 1}, ("blocks.1.hook_resid_post",), "none"),
        ({"colour": "norm", "layer": "-2"}, ("blocks.0.hook_resid_post",), "none"),
    ],
)
def test_exactly_what_was_named_is_read(lens, monkeypatch, options, names, logits):
    plans, plan = [], lens.runner.plan
    monkeypatch.setattr(lens.runner, "plan", lambda *a, **o: plans.append(plan(*a, **o)) or plans[-1])
    lens.view("tokens", "the cat", **options)
    (one,) = plans
    assert (one.request.reads, one.request.logits, one.request.keys_and_values) == (names, logits, False)


def test_several_views_share_one_run(lens, monkeypatch):
    plans, plan = [], lens.runner.plan
    monkeypatch.setattr(lens.runner, "plan", lambda *a, **o: plans.append(plan(*a, **o)) or plans[-1])
    wanted = ["tokens", ("attention", {"layer": 1}), Tokens(colour="norm", layer=1), (Tokens, {"colour": "norm"})]
    shown = lens.views("the cat", wanted)
    (one,) = plans
    assert one.request.reads == ("blocks.1.attn.hook_pattern", "blocks.1.hook_resid_post")
    assert one.request.logits == "all"
    monkeypatch.undo()
    singly = [lens.view("tokens", "the cat"), lens.view("attention", "the cat", layer=1)]
    singly += [lens.view("tokens", "the cat", colour="norm", layer=1)] * 2
    assert [one.data() for one in shown] == [one.data() for one in singly]


def test_each_view_has_what_its_visualizer_named_and_nothing_else(lens):
    seen = []

    class Nosy(Tokens):
        def draw(self, view):
            seen.append((sorted(view.cache), view.logits is not None))
            return super().draw(view)

    lens.views("the cat", [Nosy(colour="norm"), Nosy(), Nosy(colour="nothing")])
    assert seen == [(["blocks.1.hook_resid_post"], False), ([], True), ([], False)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("tokens", "views takes a list of visualizers, not 'tokens'; for one there is view."),
        (3, "views takes a list of visualizers, not 3"),
        ([("tokens",)], "A visualizer with options is (name, {option: value}), not ('tokens',)."),
        ([("tokens", "layer")], "A visualizer with options is (name, {option: value}), not ('tokens', 'layer')."),
        (["tokens", ("attention", {"layer": 9})], "layer must be one of this model's, -2 to 1, not 9."),
    ],
)
def test_wrong_lists_of_views(lens, wanted, expected):
    with pytest.raises(InputError) as caught:
        lens.views("the cat", wanted)
    assert str(caught.value).startswith(expected)


def test_what_reads_nothing_runs_nothing(lens, monkeypatch):
    monkeypatch.setattr(lens.runner, "plan", None)
    assert lens.view("tokens", "a " * 500, colour="nothing").data()["value"] is None


def test_changes_of_an_enclosing_block_are_shown(lens):
    from onnxlens import Intervention

    plain = lens.view("tokens", "the cat", colour="norm").data()
    with lens.hooks(interventions=Intervention.zero("blocks.1.hook_mlp_out")):
        changed = lens.view("tokens", "the cat", colour="norm").data()
    assert plain != changed


def test_a_visualizer_may_be_given_as_one(lens):
    expected = lens.view("tokens", "the cat", colour="norm").data()
    assert lens.view(Tokens(colour="norm"), "the cat").data() == expected
    assert lens.view(Tokens, "the cat", colour="norm").data() == expected
    assert lens.view(Tokens, lens.to_tokens("the cat"), colour="norm").data() == expected
    with pytest.raises(InputError, match="this one is made already"):
        lens.view(Tokens(), "the cat", colour="norm")
    with pytest.raises(InputError, match="A visualizer is given by its name, or as one, not as 3"):
        lens.view(3, "the cat")
    with pytest.raises(InputError, match="view shows one text at a time"):
        lens.view("tokens", ["the", "cat"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"color": "norm"},
            "tokens has no option 'color'; its options are colour, layer, word. Did you mean 'colour'?",
        ),
        ({"colour": "blue"}, "tokens: colour must be one of 'norm', 'nothing', 'surprisal', not 'blue'."),
        ({"layer": "many"}, "tokens: layer must be a whole number, not 'many'."),
        ({"layer": 1.5}, "tokens: layer must be a whole number, not 1.5."),
        ({"colour": "norm", "layer": 2}, "layer must be one of this model's, -2 to 1, not 2."),
        ({"colour": ["norm"]}, "tokens: colour must be "),
    ],
)
def test_wrong_options(lens, options, expected):
    with pytest.raises(InputError) as caught:
        lens.view("tokens", "the cat", **options)
    assert str(caught.value).startswith(expected)


def test_a_long_hostile_text_is_inert(lens):
    unit = "<script>alert(1)</script></code>\x00\u202e\u0627\N{GRINNING FACE}\r\n\x1b[31m[bold]$x$"
    text = unit * 200
    shown = lens.view("tokens", text, colour="nothing")
    page = shown.html()
    assert page.count("<script>") == 1  # its own
    assert not set(page) & set("\x00\x1b\u202e")
    printed = shown.encoded("txt").decode()
    assert not set(printed) & set("\x00\x1b\r\u202e")
    assert shown.encoded("png").startswith(b"\x89PNG")
    assert "".join(one["token"] for one in shown.data()["tokens"][:40]).startswith(unit[:25])
    with pytest.raises(ContextLengthError, match="tokens long, and this model has 48 positions; shorten it"):
        lens.view("surprisal", text)


def test_every_format(command, model, tmp_path):
    for ending, begin in [("txt", b"tiny"), ("png", b"\x89PNG"), ("svg", b"<?xml"), ("html", b"<!DOCTYPE html>")]:
        path = tmp_path / f"view.{ending}"
        ran = command("view", "tokens", "the cat", "-o", path, *model)
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith(f"{path}: tokens, ")
        if ending != "txt":
            assert path.read_bytes().startswith(begin)
    path = tmp_path / "view.json"
    assert command("view", "tokens", "the cat", "-o", path, "--json", *model).json["file"] == str(path)
    assert json.loads(path.read_text()) == command("view", "tokens", "the cat", "--json", *model).json
    ElementTree.fromstring((tmp_path / "view.svg").read_text())
    assert {one.name for one in tmp_path.iterdir()} == {f"view.{e}" for e in ("txt", "png", "svg", "html", "json")}
    assert oct(path.stat().st_mode)[-3:] == "644"


def test_the_terminal(command, model):
    ran = command("view", "tokens", "the [red]cat", *model)
    assert (ran.code, ran.err) == (0, "")
    assert "surprisal in nats" in ran.out
    assert "'['" in ran.out


def test_options_of_the_command_line(command, model):
    ran = command("view", "tokens", "the cat", "--colour", "norm", "--layer", "0", "--json", *model)
    assert ran.json["value"] == "length of the residual stream after block 0"
    ran = command("view", "tokens", "--json", *model, stdin=b"the cat")
    assert len(ran.json["tokens"]) > 1


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["tokens", "a", "-o", "~nobody-of-that-name/x.txt"], 1,
         "Error: Cannot write ~nobody-of-that-name/x.txt: there is no such user, whose folder it would be in."),
        (["logit_lens", "a", "--watch", "[[["], 1, "Error: '[[[' is 3 tokens ('[', '[', '['), and must be one"),
        (["tokns", "a"], 2, "Error: There is no visualizer 'tokns'. Did you mean 'tokens'?"),
        (["tokens", "a", "--colour", "blue"], 1, "Error: tokens: colour must be one of 'norm', 'nothing', 'surprisal'"),
        (["tokens", "a", "--layer", "x"], 2, "Error: Invalid value for '--layer': 'x' is not a whole number."),
        (["tokens", "a", "-o", "x.pdf"], 1, "Error: Cannot write x.pdf: a rendering is saved as .txt, .png, .svg, "),
        (["tokens", "a", "-o", "x"], 1, ".txt, .png, .svg, .html or .json, and it has no ending."),
        (["tokens", "a", "-o", "/no/where/x.txt"], 1, "Cannot write /no/where/x.txt: there is no folder /no/where."),
        (["tokens", "a", "-o", "-"], 2, "A rendering goes to a file; name one with -o, such as -o view.html."),
        (["tokens", "a", "--layers", "1"], 2, "No such option"),
        (["tokens", "a", "--plugin", "x"], 2, "--plugin goes before the command: onnxlens --plugin ..."),
        (["tokens", "a" * 49], 1, "Error: The text is 49 tokens long, and this model has 48 positions; shorten it."),
    ],
)  # fmt: skip
def test_what_cannot_be_done(command, model, arguments, code, expected):
    ran = command("view", *arguments, *model)
    assert (ran.code, ran.out) == (code, "")
    assert expected in ran.err


@pytest.mark.parametrize("value", ["1e400", "", "\x1b[31m", "x" * 100_000, "1.5"])
def test_a_hostile_value_that_is_no_number_is_wrong_usage(command, model, file, value):
    ran = command("--plugin", file("kinds", KINDS), "view", "kinds", "a", "--factor", value, "--json", *model)
    assert (ran.code, ran.out) == (2, "")
    assert "Error: Invalid value for '--factor': '" in ran.err
    assert "' is not a whole number." in ran.err
    assert "\x1b" not in ran.err
    assert len(ran.err) < 1000


def test_a_format_that_a_rendering_lacks(command, model, file, tmp_path):
    path = file("count", visualizer("count"))
    ran = command("--plugin", path, "view", "count", "the cat", "-o", tmp_path / "x.html", *model)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: Counted has no .html; it has .txt or .json.\n"
    assert not (tmp_path / "x.html").exists()


def test_what_fails_leaves_the_file_that_was_there(lens, tmp_path):
    class Half(Rendering):
        def html(self):
            return 3

        def figure(self):
            return "no figure"

    path = tmp_path / "x.html"
    path.write_text("before")
    with pytest.raises(PluginError, match=r"Half.html\(\) must return text, and returned int\."):
        Half().save(path)
    with pytest.raises(PluginError, match=r"Half.figure\(\) must return a figure of matplotlib, and returned str\."):
        Half().save(tmp_path / "x.png")
    with pytest.raises(OutputError, match="it is a folder"):
        (tmp_path / "y.txt").mkdir()
        lens.view("tokens", "a").save(tmp_path / "y.txt")
    assert path.read_text() == "before"
    assert {one.name for one in tmp_path.iterdir()} == {"x.html", "y.txt"}


def test_each_method_that_is_not_there_says_what_is(lens):
    class Only(Rendering):
        def data(self):
            return 1

    for method in ("text", "figure", "html"):
        with pytest.raises(InputError) as caught:
            getattr(Only(), method)()
        assert str(caught.value) == f"Only has no {method}(); it has .json."
    assert Only().formats == ("json",)
    assert lens.view("tokens", "a").formats == ("txt", "png", "svg", "html", "json")


def test_the_same_is_the_same_file(lens):
    for ending in ("png", "svg", "html", "json", "txt"):
        first, second = (lens.view("tokens", "the cat").encoded(ending) for _ in range(2))
        assert first == second


def test_a_rendering_prints_its_text(lens):
    shown = lens.view("tokens", "the cat")
    assert str(shown) == shown.encoded("txt").decode().rstrip("\n")
    assert repr(shown) == "TokensRendering(.txt, .png, .svg, .html or .json)"


def test_a_layer_that_nothing_is_read_from_is_an_error(lens):
    with pytest.raises(
        InputError,
        match=(
            r"^layer is the block whose residual stream is measured, which needs "
            r"colour norm, not surpr"
        ),
    ):
        lens.view("tokens", "the cat", layer=0)
    assert (
        lens.view("tokens", "the cat", colour="norm").data()
        == lens.view("tokens", "the cat", colour="norm", layer=-1).data()
    )


@pytest.mark.parametrize(("ending", "library"), [("png", "matplotlib"), ("svg", "matplotlib"), ("html", "plotly")])
def test_a_picture_without_its_library_names_the_extra_and_what_needs_none(
    lens, monkeypatch, tmp_path, ending, library
):
    for name in ("matplotlib", "plotly", "plotly.graph_objects", "plotly.offline"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingLibraryError) as caught:
        lens.view("attention", "the cat").save(tmp_path / f"x.{ending}")
    assert str(caught.value) == (
        f"A .{ending} of this needs {library}, which is not installed: pip install 'onnxlens[plots]', for pictures "
        "and pages. Without it, there is .txt or .json."
    )


KINDS = visualizer("kinds", "one = Counted(view)\none.data = lambda: self.shown()\nreturn one").replace(
    "    def hook_points",
    """    flag: Annotated[bool, Option("a switch")] = False
    many: Annotated[list[int], Option("several", min_length=1)] = field(default_factory=lambda: [1])
    maybe: Annotated[float | None, Option("or nothing", gt=0)] = None
    words: Annotated[str, Option("text")] = "5"
    table: Annotated[dict[str, int], Option("a mapping")] = field(default_factory=dict)

    def shown(self):
        return [self.factor, self.flag, self.many, self.maybe, self.words, self.table]

    def hook_points""",
).replace("import dataclass", "import dataclass, field")  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [1, False, [1], None, "5", {}]),
        (["--factor", "3", "--flag"], [3, True, [1], None, "5", {}]),
        (["--no-flag", "--many", "3", "--many", "4"], [1, False, [3, 4], None, "5", {}]),
        (["--many", "[7, 8]", "--maybe", "0.5"], [1, False, [7, 8], 0.5, "5", {}]),
        (["--many", "7,8", "--many", "9"], [1, False, [7, 8, 9], None, "5", {}]),
        (["--words", "007", "--table", '{"a": 1}'], [1, False, [1], None, "007", {"a": 1}]),
    ],
)
def test_options_of_every_type(command, model, file, arguments, expected):
    ran = command("--plugin", file("kinds", KINDS), "view", "kinds", "a", *arguments, "--json", *model)
    assert ran.json == expected, ran.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--factor", "0"], "kinds: factor must be a whole number of at least 1, not '0'."),
        (["--factor", "9" * 5000], "kinds: factor must be a number that a computer can hold, not '999"),
        (["--maybe", "nan"], "kinds: maybe must be "),
        (["--maybe", "-1"], "kinds: maybe must be "),
        (["--many", "x"], "kinds: many[0] must be a whole number"),
        (["--many", "1,,2"], "kinds: many[1] must be a whole number"),
        (["--many", "[]"], "kinds: many must be "),
        (["--many", "[" * 100_000], "kinds: many[0] must be a whole number"),
        (["--table", "{"], "kinds: table must be a mapping such as {\"a\": 1}, not '{'."),
        (["--table", '{"a": "x"}'], "kinds: table"),
    ],
)
def test_hostile_values_of_options_are_one_line(command, model, file, arguments, expected):
    ran = command("--plugin", file("kinds", KINDS), "view", "kinds", "a", *arguments, "--json", *model)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"Error: {expected}")
    assert ran.err.count("\n") == 1
    assert "\x1b" not in ran.err
    assert len(ran.err) < 1000


def test_help_of_a_visualizer_lists_its_options(command, file):
    ran = command("--plugin", file("kinds", KINDS), "view", "kinds", "--help")
    assert ran.code == 0
    for piece in ("Counts tokens.", "--factor N", "--flag / --no-flag", "--many N", "--table JSON", "A switch."):
        assert piece in ran.out


COMMAND = (
    HEAD
    + '''
import click

@click.command()
@click.argument("what")
def shout(what):
    """Shouts."""
    click.echo(what.upper())

@hookimpl
def register_commands(register):
    register("shout", shout)
    register("whisper", "PLACE")
'''
)


def test_commands_of_plugins(command, install):
    install("voice", COMMAND.replace("PLACE", "outside_voice:shout"))
    assert command("shout", "hello").out == "HELLO\n"
    assert command("whisper", "hello").out == "HELLO\n"
    assert "Shouts." in command("shout", "--help").out
    assert "shout" not in command("--help").out  # which loads no plugin
    ran = command("shuot", "hello")
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("no_such_module_here:x", "The command 'whisper' (voice 1.0) failed: ModuleNotFoundError: No module named"),
        (
            "outside_voice:nothing",
            "The command 'whisper' (voice 1.0) failed: AttributeError: module 'outside_voice'",
        ),
        ("os:getcwd", "The command 'whisper' (voice 1.0) did not resolve to a click command: os:getcwd."),
    ],
)
def test_a_command_that_is_none(command, install, place, expected):
    install("voice", COMMAND.replace("PLACE", place))
    ran = command("whisper", "hello")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"Error: {expected}")


def test_a_command_that_fails_is_named(command, file):
    for body, code, expected in [
        (
            "1 / 0",
            1,
            "Error: The command 'shout' (the file FILE) failed: ZeroDivisionError: division by zero (line ",
        ),
        (
            "raise BaseException('odd')",
            1,
            "Error: The command 'shout' (the file FILE) failed: BaseException: odd (line ",
        ),
        ("raise click.UsageError('not so')", 2, "Usage: onnxlens shout [OPTIONS] WHAT"),
    ]:
        path = file("voice", COMMAND.replace("PLACE", "a:b").replace("click.echo(what.upper())", body))
        ran = command("--plugin", path, "shout", "hello")
        assert (ran.code, ran.out) == (code, ""), ran.err
        assert ran.err.startswith(expected.replace("FILE", str(path)))


def test_a_command_may_exit_with_a_code_of_its_own(command, file):
    path = file("voice", COMMAND.replace("PLACE", "a:b").replace("click.echo(what.upper())", "raise SystemExit(3)"))
    with pytest.raises(SystemExit) as ended:
        command("--plugin", path, "shout", "hello")
    assert ended.value.code == 3


def test_a_command_of_a_broken_plugin_repeats_the_reason(command, install):
    install("voice", COMMAND.replace("PLACE", "a:b") + "    1 / 0\n")
    ran = command("shout", "hello")
    assert ran.code == 1
    assert ran.err.startswith("Error: The plugin 'voice' (voice 1.0) cannot be used: ZeroDivisionError")
