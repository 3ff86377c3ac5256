"""`onnxlens view`: visualizers, each a command with its own options."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlens._commands.options import (
    RunOptions,
    console,
    escape_controls,
    escaped_segments,
    plugins,
    print_json,
    print_json_text,
    read_text,
    run_options,
    text_argument,
)
from onnxlens.runtime.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from onnxlens.plugins._registry import Entry

__all__ = ["command"]

_OWN = "own_"  # begins the names of a visualizer's options, so that they never clash with this module's
_METAVARS = {"integer": "N", "number": "X", "string": "TEXT", "object": "JSON"}
_NUMBERS = {"integer", "number"}


class _Views(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        # 'onnxlens plugins' lists those of plugins: listing them here would load them.
        return [entry.name for entry in plugins(ctx).built_in if entry.kind == "visualizer"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        known = plugins(ctx)
        try:
            return _command(known.get("visualizer", cmd_name))
        except PluginError as error:
            if known.is_broken("visualizer", cmd_name):
                raise
            raise click.UsageError(str(error), ctx) from error  # the same error as for any unknown command


@click.group(
    "view",
    cls=_Views,
    short_help="Show what happens inside, by a visualizer.",
    options_metavar="",
    subcommand_metavar="NAME [TEXT] [OPTIONS]",
)
def command() -> None:
    """Show what happens inside while TEXT runs, by the visualizer NAME.

    Only the values that it reads are computed. 'onnxlens view NAME --help' lists its options, and 'onnxlens plugins'
    all visualizers, also those of plugins.
    """


def _command(entry: Entry) -> click.Command:
    """The command of a visualizer."""
    from onnxlens.plugins._description import documentation
    from onnxlens.plugins._options import json_schema

    schema = json_schema(entry.plugin)
    required = schema.get("required", ())

    @text_argument
    @click.option("-o", "--output", metavar="FILE", help="Write a .txt, .png, .svg, .html or .json file.")
    @click.option("--open", "is_opened", is_flag=True, help="Open the file, or a page if no file is named.")
    @run_options
    def show(
        text: str | None,
        output: str | None,
        is_opened: bool,
        run: RunOptions,
        **plugin_options: Any,
    ) -> None:
        options = {
            name: _value(value, one)
            for name, one in schema.get("properties", {}).items()
            if (value := plugin_options[f"{_OWN}{name}"]) is not None and value != ()
        }
        _show(entry, text, options, output, run, is_opened=is_opened)

    own: list[click.Parameter] = [
        _option(name, one, name in required) for name, one in schema.get("properties", {}).items()
    ]
    common: list[click.Parameter] = list(reversed(getattr(show, "__click_params__", [])))
    return click.Command(
        entry.name,
        callback=show,
        params=[common[0], *own, *common[1:]],
        help=escape_controls(documentation(entry), keep="\n"),
        short_help=escape_controls(entry.summary),
    )


def _show(
    entry: Entry,
    text: str | None,
    options: dict[str, Any],
    output: str | None,
    run: RunOptions,
    *,
    is_opened: bool,
) -> None:
    from onnxlens.plugins._drawing.rendering import check_ending
    from onnxlens.plugins._failures import named_in_errors
    from onnxlens.plugins._loading import quiet
    from onnxlens.plugins._options import make
    from onnxlens.runtime.errors import OutputError

    who = f"The visualizer {entry.name!r} ({entry.distribution})"
    if output is not None:
        if output in ("", "-"):
            raise click.UsageError("A rendering goes to a file; name one with -o, such as -o view.html.")
        check_ending(output)
    path = None if output is None else _absolute(output)  # a plugin may leave the folder
    with named_in_errors(who), quiet():
        make(entry.plugin, entry.name, options)  # errors in options are reported before a model is opened
    text = read_text(text)
    lens = run.open_lens()
    with quiet():
        rendering = lens.view(entry.name, text, **options)
    if is_opened and path is None:
        output = _scratch(f"{entry.name}.html")
        path = Path(output)
    if path is not None:
        with named_in_errors(who), quiet(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("default")
            rendering.save(path)
        for one in said:
            click.echo(f"Note: {escape_controls(str(one.message))}", err=True)
        size = path.stat().st_size
        if run.as_json:
            print_json({"file": output, "visualizer": entry.name, "bytes": size})
        else:
            from rich.filesize import decimal

            console().print(f"{escape_controls(str(output))}: {entry.name}, {decimal(size)}", soft_wrap=True)
        if is_opened and click.launch(str(path)):
            raise OutputError(f"{output} was written, but nothing on this machine could open it.")
    elif run.as_json:
        with named_in_errors(who), quiet():
            document = rendering.json()
        print_json_text(document)
    else:
        if console().is_terminal:
            with named_in_errors(who), quiet():
                frames = rendering.frames()
            if frames is not None:
                _play(frames, who)
        with named_in_errors(who), quiet():
            segments = escaped_segments(rendering.renderable())
        ends = bool(segments.segments) and segments.segments[-1].text.endswith("\n")
        console().print(segments, end="" if ends else "\n", crop=False)


def _absolute(output: str) -> Path:
    from onnxlens.runtime.errors import OutputError

    try:
        return Path(output).expanduser().absolute()
    except RuntimeError as error:
        raise OutputError(f"Cannot write {output}: there is no such user, whose folder it would be in.") from error


def _scratch(name: str) -> str:
    """A file to open, among the system's temporary files."""
    import tempfile

    return str(Path(tempfile.mkdtemp(prefix="onnxlens-")) / name)


def _play(frames: Iterator[RenderableType], who: str) -> None:
    """Shows renderings one after the other in the same place, and clears them at the end."""
    from rich.live import Live

    from onnxlens.plugins._failures import named_in_errors

    with named_in_errors(who), Live(console=console(), auto_refresh=False, transient=True) as live:
        for frame in frames:
            live.update(escaped_segments(frame), refresh=True)


def _option(name: str, schema: dict[str, Any], required: bool) -> click.Option:
    """An option of the command line for one of a visualizer's; its value is checked where the visualizer is made."""
    flag = f"--{name.replace('_', '-')}"
    kinds = _kinds(schema)
    text = escape_controls(schema.get("description", "")).rstrip(".")
    help = f"{text[:1].upper()}{text[1:]}." if text else ""
    if not required and schema.get("default") is not None:
        default = schema["default"]
        help = f"{help}  [default: {escape_controls(default if isinstance(default, str) else json.dumps(default))}]"
    if kinds == {"boolean"}:
        return click.Option([f"{flag}/--no-{flag[2:]}", _OWN + name], default=None, help=help)
    choices = schema.get("enum", ())
    items = _kinds(_list(schema).get("items") or {})
    named = {kind for kind in kinds if kind != "array"} | items
    metavar = "|".join(map(str, choices)) or next((_METAVARS[kind] for kind in _METAVARS if kind in named), "VALUE")
    if items and items <= _NUMBERS:
        metavar += ",..."
    elif "array" in kinds:
        help = f"{help}  [may be repeated]"
    plain = _Number(kinds) if kinds and kinds <= _NUMBERS else None
    return click.Option(
        [flag, _OWN + name],
        type=plain,
        multiple="array" in kinds,
        required=required,
        metavar=metavar,
        help=help.strip(),
    )


class _Number(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4
    """A number on the command line; the visualizer checks whether it is in range."""

    def __init__(self, kinds: set[str]) -> None:
        self.name = "number" if "number" in kinds else "whole number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = r"[+-]?\d+" if self.name == "whole number" else r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf|nan"
        if not re.fullmatch(number, value.strip(), re.I):
            self.fail(f"{escape_controls(value[:100])!r} is not a {self.name}.", param, ctx)
        return value


def _value(value: Any, schema: dict[str, Any]) -> Any:
    """The value to convert to the option's type: JSON for types with parts."""
    if isinstance(value, tuple):
        if len(value) == 1 and value[0].lstrip().startswith("[") and isinstance(found := _parsed(value[0]), list):
            return found
        if (_kinds(_list(schema).get("items") or {}) or {""}) <= _NUMBERS:
            return [part.strip() for one in value for part in one.split(",")]
        return list(value)
    if isinstance(value, str) and "object" in _kinds(schema) and value.lstrip().startswith("{"):
        return _parsed(value)
    return value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # which no such option accepts: its error says what it accepts


def _list(schema: dict[str, Any]) -> dict[str, Any]:
    """The help about an option's list; empty if it takes no list."""
    kinds: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return next((one for one in kinds if one.get("type") == "array"), {})


def _kinds(schema: dict[str, Any]) -> set[str]:
    """The JSON types of an option, without null."""
    kinds = {one.get("type") for one in schema.get("anyOf", [schema])} - {"null", None}
    return {str(kind) for kind in kinds}
