"""Keeps the documents up to date: runs their examples, and writes the parts that are generated from the code.

`python docs/build.py` brings README.md and docs/*.md up to date; with `--check` it changes nothing, names what is stale
and exits with 1. Give names of documents to restrict it to them.

In a document:

- The text between `<!-- generated: NAME -->` and `<!-- end generated -->` is written by the function of that name.
- ```python and ```sh blocks are run, those of one document in order, in one folder and one namespace, with a
  checkpoint `./my-finetuned-gpt2` (small and random) lying ready. A shell block stops at the first error.
- A ```text block right after a ```python block is the output of that block.
- In a ```console block, lines that begin with `$ ` are run, and the lines after each are its output. A command may
  fail only where its output shows an error.
- `<!-- not run: REASON -->` before a block keeps it from being run.
- The files in docs/examples are shown as they are, and `make portability` runs them.

Floating-point numbers differ a little between processors. So two texts are the same if decimal fractions differ by one
in the last digit or by 1e-4 of their value, and bars by their length; all else must be equal. The outputs are those of
a CPU: write them with a build of ONNX Runtime for the CPU.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import onnxlens.plugins
import onnxlens.plugins.charts
from onnxlens._cli import cli
from onnxlens.plugins import _hookspecs as hookspecs
from onnxlens.plugins._options import json_schema
from onnxlens.plugins.samplers import SAMPLERS
from onnxlens.runtime import errors

__all__ = ["ExampleError", "documents", "fences", "main", "picture", "rebuilt", "same"]

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path("docs/images/predict.svg")

_WIDTH = 100  # of output shown in the documents
_PICTURE_WIDTH = 76
_PROMPT = "Data visualization empowers users to"

_SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end generated -->)", re.S)
_FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n+)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
_DECIMAL = re.compile(r"\d+\.\d+")

# Names that are not in `onnxlens` itself: the export, which needs PyTorch, and the types of results.
_ELSEWHERE = (
    "onnxlens.export.export",
    "onnxlens.export.export_model",
    "onnxlens.analysis.logit_lens",
    "onnxlens.analysis.LogitLens",
    "onnxlens.analysis.attribute_logit",
    "onnxlens.analysis.LogitAttribution",
    "onnxlens.analysis.attribute_sources",
    "onnxlens.analysis.SourceAttribution",
    "onnxlens.analysis.ablate_heads",
    "onnxlens.analysis.HeadAblation",
    "onnxlens.analysis.patch_activations",
    "onnxlens.analysis.Patching",
    "onnxlens.analysis.patch_path",
    "onnxlens.analysis.PathPatching",
    "onnxlens.analysis.attention_rollout",
    "onnxlens.analysis.AttentionRollout",
    "onnxlens.analysis.head_scores",
    "onnxlens.analysis.HeadScores",
    "onnxlens.analysis.surprisal",
    "onnxlens.analysis.Surprisal",
    "onnxlens.analysis.activation_statistics",
    "onnxlens.analysis.ActivationStatistics",
    "onnxlens.analysis.Context",
    "onnxlens.analysis.gradient_times_input",
    "onnxlens.analysis.integrated_gradients",
    "onnxlens.analysis.attribution_patching",
    "onnxlens.analysis.Attribution",
    "onnxlens.analysis.PatchingAttribution",
    "onnxlens.analysis.IntegratedGradients",
    "onnxlens.decoding.beam_search",
    "onnxlens.decoding.contrastive_search",
    "onnxlens.decoding.best_of",
    "onnxlens.decoding.Hypothesis",
    "onnxlens.metrics.logit",
    "onnxlens.metrics.logit_difference",
    "onnxlens.metrics.log_probability",
    "onnxlens.metrics.loss",
    "onnxlens.metrics.Metric",
    "onnxlens.plugins.samplers.Explanation",
    "onnxlens.plugins.samplers.Stage",
    "onnxlens.plugins.samplers.Likely",
    "onnxlens.plugins.samplers.Sampler",
    "onnxlens.plugins.samplers.Context",
    "onnxlens.utils.get_act_name",
    "onnxlens.utils.test_prompt",
    "onnxlens.utils.lm_cross_entropy_loss",
    "onnxlens.utils.lm_accuracy",
    "onnxlens.utils.composition_scores",
    "onnxlens.runtime.TransformerLensConfig",
    "onnxlens.runtime.PassOptions",
    "onnxlens.runtime.Output",
    "onnxlens.runtime.KVCache",
    "onnxlens.runtime.HookPoint",
    "onnxlens.runtime.NamedWeights",
    "onnxlens.runtime.Stop",
    "onnxlens.runtime.ModelFacts",
    "onnxlens.runtime.folded_logits",
)
_KIT = (
    "onnxlens.plugins.testing.check_sampler",
    "onnxlens.plugins.testing.check_visualizer",
    "onnxlens.plugins.testing.context_of",
    "onnxlens.plugins.testing.hostile",
)
_STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
_LETTERS = {
    "batch": "B",
    "pos": "P",
    "query_pos": "Q",
    "key_pos": "K",
    "head": "H",
    "d_model": "D",
    "d_head": "d",
    "d_mlp": "M",
    "one": "1",
}


class ExampleError(Exception):
    """An example in a document fails, or its output differs from the document."""


def documents() -> list[Path]:
    """The documents whose examples are run, as paths in the repository."""
    return [Path("README.md"), *(path.relative_to(ROOT) for path in sorted((ROOT / "docs").glob("*.md")))]


def fences(text: str) -> list[re.Match[str]]:
    """The fenced blocks of a document: groups `language`, `code`, and `reason` for one that is not to be run."""
    return list(_FENCE.finditer(text))


def rebuilt(document: Path, folder: Path) -> str:
    """Returns a document with all generated parts written again.

    Args:
        document: its path in the repository.
        folder: an empty folder for the examples to run in.

    Raises:
        ExampleError: an example fails; the text names document and line.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    text = _SECTION.sub(lambda found: f"{found[1]}{_GENERATORS[found[2]]()}\n{found[3]}", text)
    _prepare(folder)
    pieces, position = [], 0
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed: str | None = None
    for fence in fences(text):
        code, language = fence["code"], fence["language"]
        place = f"{document}:{text.count(chr(10), 0, fence.start('code')) + 1}"
        follows = printed is not None and not text[position : fence.start()].removeprefix("```").strip()
        pieces.append(text[position : fence.start("code")])
        position = fence.end("code")
        if language == "text" and follows:
            code = printed or ""
        printed = None
        if fence["reason"] is None:
            if language == "python":
                printed = _run_python(code, namespace, folder, place)
            elif language == "sh":
                _run_shell(code, folder, place)
            elif language == "console":
                code = _run_console(code, folder, place)
        pieces.append(code)
    return "".join([*pieces, text[position:]])


def same(old: str, new: str) -> bool:
    """Whether two texts are equal up to floating-point rounding."""
    old, new = (re.sub("[▏▎▍▌▋▊▉█]+ *", "", text) for text in (old, new))
    if _DECIMAL.sub("#", old) != _DECIMAL.sub("#", new):
        return False
    return all(map(_near, _DECIMAL.findall(old), _DECIMAL.findall(new)))


def _near(old: str, new: str) -> bool:
    last_digit = 10.0 ** -len(old.partition(".")[2])
    return abs(float(old) - float(new)) < max(1.5 * last_digit, 1e-4 * abs(float(old)))


def picture() -> str:
    """A run of `onnxlens predict`, as SVG."""
    from rich.console import Console
    from rich.text import Text

    from onnxlens._commands import options, predict

    out = Console(record=True, width=_PICTURE_WIDTH, force_terminal=True, highlight=False, file=io.StringIO())
    out.print(Text.assemble(("$ ", "dim"), f'onnxlens predict "{_PROMPT}"'))
    console = options.console
    predict.console = options.console = lambda: out
    try:
        predict.command.main([_PROMPT], standalone_mode=False)
    finally:
        predict.console = options.console = console
    svg = out.export_svg(title="onnxlens", unique_id="predict")
    # Rich names web fonts to load; a picture should load nothing.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.S).replace("Fira Code, monospace", "monospace")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _hook_table() -> str:
    rows = ["| name | shape | meaning |", "| --- | --- | --- |"]
    described = onnxlens.Bundle(onnxlens.find()).description
    for point in described.hook_points:
        if point.name.startswith("blocks.") and not point.name.startswith("blocks.0."):
            continue
        shape = " ".join(_LETTERS[axis] for axis in point.axes)
        request = "; computed on request" if point.on_request else ""
        rows.append(f"| `{point.name.replace('blocks.0.', 'blocks.N.')}` | {shape} | {point.meaning}{request} |")
    return "\n".join(rows)


def _command_reference() -> str:
    root = _context(cli, "onnxlens")
    root.params["no_plugins"] = True
    return "\n\n".join([f"```text\n{cli.get_help(root)}\n```", *_subcommands(cli, root, "##")])


def _subcommands(group: click.Group, context: click.Context, heading: str) -> list[str]:
    parts = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inside = _context(command, name, context)
        parts.append(f"{heading} {inside.command_path}\n\n```text\n{command.get_help(inside)}\n```")
        if isinstance(command, click.Group):
            parts += _subcommands(command, inside, f"{heading}#")
    return parts


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    settings = {"help_option_names": ["-h", "--help"], "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    return click.Context(command, info_name=name, parent=parent, **settings)


def _python_reference() -> str:
    names = [f"onnxlens.{name}" for name in onnxlens.__all__ if name != "OnnxLensError"]
    parts = [_described(name) for name in [*names, *_ELSEWHERE]]
    table = ["## Errors", "", "| in `onnxlens.runtime.errors` | is raised where |", "| --- | --- |"]
    for name in errors.__all__:
        value = getattr(errors, name)
        if inspect.isclass(value):
            table.append(f"| `{name}` | {(inspect.getdoc(value) or '').replace(chr(10), ' ')} |")
    return "\n\n".join([*parts, "\n".join(table)])


def _hook_specifications() -> str:
    rows = ["| hook | what it does |", "| --- | --- |"]
    rows += [f"| `{name}(register)` | {getattr(hookspecs, name).__doc__} |" for name in hookspecs.HOOKS]
    return "\n".join(rows)


def _plugin_reference() -> str:
    names = [f"onnxlens.plugins.{name}" for name in onnxlens.plugins.__all__ if name not in ("InputError", "hookimpl")]
    charts = [f"onnxlens.plugins.charts.{name}" for name in onnxlens.plugins.charts.__all__]
    return "\n\n".join(_described(name) for name in [*names, *charts, *_KIT])


def _sampler(name: str) -> str:
    """The description of a sampler, with its source and options."""
    sampler = SAMPLERS[name]
    schema = json_schema(sampler)
    lines = [(inspect.getdoc(sampler) or "").replace("*", r"\*")]
    if schema["properties"]:
        lines += ["", "| option | meaning | default |", "| --- | --- | --- |"]
    for option, facts in schema["properties"].items():
        default = f"`{json.dumps(facts['default'])}`" if "default" in facts else ""
        lines.append(f"| `{option}` | {facts['description']} | {default} |")
    return "\n".join(lines)


def _described(name: str) -> str:
    module, _, last = name.rpartition(".")
    value = getattr(importlib.import_module(module), last)
    text = inspect.getdoc(value) or ""
    shown = not inspect.isclass(value) or "\nArgs:" in text
    lines = [_signature(last, value) if shown else f"class {last}", "", _indented(text)]
    for member, raw in _members(value).items() if inspect.isclass(value) else ():
        # A property has its function in `fget`, a cached one in `func`, a class method in `__func__`.
        attribute = getattr(raw, "fget", None) or getattr(raw, "func", None)
        function = attribute or getattr(raw, "__func__", raw)
        if (not member.startswith("_") or member == "__call__") and inspect.isfunction(function):
            heading = member if attribute else _signature(member, function, is_method=not isinstance(raw, staticmethod))
            lines += ["", f".{heading}", "", _indented(inspect.getdoc(function) or "")]
    return f"## {name}\n\n```text\n" + "\n".join(lines) + "\n```"


def _members(value: type) -> dict[str, Any]:
    """The members of a class, followed by those that it inherits from other classes of onnxlens."""
    parts = [base for base in value.__mro__ if base.__module__.startswith("onnxlens.")]
    members: dict[str, Any] = {}
    for part in parts:
        members |= {name: member for name, member in vars(part).items() if name not in members}
    return members


def _signature(name: str, function: Callable[..., Any], *, is_method: bool = False) -> str:
    signature = inspect.signature(function)
    pieces: list[str] = []
    kinds = []
    for parameter in [*signature.parameters.values()][is_method:]:
        if kinds[-1:] == [parameter.POSITIONAL_ONLY] != [parameter.kind]:
            pieces.append("/")
        if parameter.kind is parameter.KEYWORD_ONLY and not {parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL} & {
            *kinds
        }:
            pieces.append("*")
        kinds.append(parameter.kind)
        piece = f"{_STARS.get(parameter.kind, '')}{parameter.name}"
        if parameter.annotation is not parameter.empty:
            piece += f": {parameter.annotation}"
        if parameter.default is not parameter.empty:
            piece += f" = {'...' if callable(parameter.default) else repr(parameter.default)}"
        pieces.append(piece)
    if kinds[-1:] == [inspect.Parameter.POSITIONAL_ONLY]:
        pieces.append("/")
    result = (
        "" if signature.return_annotation in (signature.empty, None, "None") else f" -> {signature.return_annotation}"
    )
    line = f"{name}({', '.join(pieces)}){result}"
    return line if len(line) <= _WIDTH else f"{name}(\n    " + ",\n    ".join(pieces) + f",\n){result}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


def _example(path: Path) -> str:
    """The source of an example that is a file; `make portability` runs it."""
    language = {".py": "python", ".mjs": "js", ".html": "html", ".c": "c"}[path.suffix]
    note = "<!-- not run: make portability runs it -->\n" if language == "python" else ""
    return f"{note}```{language}\n{path.read_text(encoding='utf-8')}```"


_GENERATORS: dict[str, Callable[[], str]] = {
    "hook_specifications": _hook_specifications,
    "hook_table": _hook_table,
    "plugin_reference": _plugin_reference,
    "command_reference": _command_reference,
    "python_reference": _python_reference,
    **{f"sampler_{name}": functools.partial(_sampler, name) for name in SAMPLERS},
    **{
        f"example_{path.name.replace('.', '_')}": functools.partial(_example, path)
        for path in (ROOT / "docs" / "examples").iterdir()
        if path.is_file()
    },
}


def _prepare(folder: Path) -> None:
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))
    from checkpoints import write_checkpoint

    write_checkpoint(folder / "my-finetuned-gpt2")


def _run_python(code: str, namespace: dict[str, Any], folder: Path, place: str) -> str:
    printed = io.StringIO()
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
            exec(compile(code, place, "exec", dont_inherit=True), namespace)
    except Exception as error:
        raise ExampleError(f"{place}: {type(error).__name__}: {error}") from error
    return printed.getvalue()


def _run_shell(code: str, folder: Path, place: str, *, may_fail: bool = False) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": str(_WIDTH)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    if result.returncode and not may_fail:
        raise ExampleError(f"{place}: exit code {result.returncode} from {code.strip()!r}:\n{result.stdout}")
    return "".join(line.rstrip() + "\n" for line in result.stdout.splitlines())


def _run_console(code: str, folder: Path, place: str) -> str:
    if not code.startswith("$ "):
        raise ExampleError(f"{place}: a console block begins with a line that begins with '$ '.")
    pieces = []
    for entry in re.split(r"^\$ ", code, flags=re.M)[1:]:
        command, _, shown = entry.partition("\n")
        output = _run_shell(command, folder, place, may_fail="Error:" in shown)
        pieces.append(f"$ {command}\n{output}")
    return "".join(pieces)


def _update(path: Path, new: str, *, check: bool) -> bool:
    """Updates a file, unless `check`; returns whether it was stale."""
    target = ROOT / path
    stale = not target.is_file() or not same(target.read_text(encoding="utf-8"), new)
    if stale and not check:
        target.parent.mkdir(exist_ok=True)
        target.write_text(new, encoding="utf-8")
    return stale


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if something is stale.")
@click.argument("names", nargs=-1, metavar="[DOCUMENT]...")
def main(check: bool, names: tuple[str, ...]) -> None:
    """Bring README.md and docs up to date with the code, and run their examples."""
    known = [*documents(), PICTURE]
    unknown = [name for name in names if Path(name) not in known]
    if unknown:
        raise click.UsageError(f"Unknown document {unknown[0]!r}; there are {', '.join(map(str, known))}.")
    stale = []
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        stack.callback(os.environ.update, dict(os.environ))
        # Examples see neither the user's models nor the network.
        folders = {f"XDG_{kind.upper()}_HOME": f"{scratch}/{kind}" for kind in ("data", "config")}
        os.environ.update(ONNXLENS_CACHE=f"{scratch}/cache", HF_HUB_OFFLINE="1", **folders)
        for number, path in enumerate(path for path in known if not names or str(path) in names):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            try:
                new = picture() if path == PICTURE else rebuilt(path, folder)
            except ExampleError as error:
                raise click.ClickException(str(error)) from error
            if _update(path, new, check=check):
                stale.append(str(path))
    for name in stale:
        click.echo(f"{name} is stale" if check else f"{name} was updated", err=check)
    if check and stale:
        raise click.ClickException("Run 'python docs/build.py'.")


if __name__ == "__main__":
    main()
