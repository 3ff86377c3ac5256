"""`onnxlens plugins`: lists plugins, describes them, and begins new ones."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlens._commands.options import (
    console,
    escape_controls,
    json_option,
    lines_are_endless,
    plugins,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from onnxlens.plugins._registry import Entry

__all__ = ["command"]

_SLOW = 1.0  # seconds of loading that are reported
_COLUMN = 16  # characters


@click.group("plugins", invoke_without_command=True, short_help="List plugins, describe one, or begin a new one.")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the samplers, visualizers, commands and model families, and which plugins are broken, and why.

    Plugins are installed packages with an entry point 'onnxlens', Python files in your configuration folder, and those
    given by --plugin. The variable ONNXLENS_PLUGINS limits them to those it names; if it is empty, none is loaded.
    """
    if context.invoked_subcommand is not None:
        if as_json:
            name = context.invoked_subcommand
            raise click.UsageError(f"Give --json after the command: onnxlens plugins {name} --json.")
        return
    from onnxlens.plugins._registry import KINDS

    known = plugins(context)
    entries = [entry for kind in KINDS for entry in known.entries(kind).values()]
    if as_json:
        print_json(
            {
                "plugins": [_document(entry) for entry in entries],
                "broken": [
                    {"name": one.name, "distribution": one.distribution, "reason": one.reason} for one in known.broken
                ],
                "loaded": [
                    {"name": one.source.name, "distribution": one.source.distribution, "seconds": round(one.seconds, 3)}
                    for one in known.loaded
                ],
            }
        )
        return
    _print_groups(entries)
    out = console()
    own = {entry.distribution for entry in known.built_in}
    for broken in known.broken:
        out.print(f"\n{escape_controls(str(broken))}", soft_wrap=True)
    for one in known.loaded:
        if one.seconds > _SLOW and one.source.distribution not in own:
            out.print(
                f"\nLoading {escape_controls(one.source.name)} ({escape_controls(one.source.distribution)}) took "
                f"{one.seconds:.1f} s.",
                soft_wrap=True,
            )


@command.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show all about the sampler, visualizer, command or model family NAME."""
    from onnxlens.plugins._registry import KINDS
    from onnxlens.plugins._sources import limited
    from onnxlens.runtime.errors import PluginError, suggestion

    known = plugins()
    found = [known.entries(kind)[name] for kind in KINDS if name in known.entries(kind)]
    if not found:
        for kind in KINDS:
            if known.is_broken(kind, name):
                known.get(kind, name)  # which raises an error that says why
        near = suggestion(name[:100], [name for kind in KINDS for name in known.entries(kind)], 1)
        raise PluginError(f"There is no plugin {name[:100]!r}.{near} 'onnxlens plugins' lists all of them.{limited()}")
    if as_json:
        print_json([_document(entry) for entry in found])
        return
    out = console()
    for number, entry in enumerate(found):
        if number:
            out.print()
        _print_entry(entry)


@command.command("new")
@click.argument("name")
@click.option("--kind", required=True, metavar="sampler|visualizer|family", help="The kind of plugin.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FOLDER", help="The folder to create.")
def new(name: str, kind: str, output: Path | None) -> None:
    """Begin a plugin NAME: write a package that works, with a test, into a new folder.

    The folder is onnxlens- and the name, here, if none is given.
    """
    from onnxlens.plugins._scaffold import write

    folder = write(name, kind, output)
    shown = escape_controls(str(folder))
    console().print(
        f"{shown} is a package with the {kind} {name}. Try it:\n\n"
        f"  pip install -e '{shown}[test]'\n  onnxlens plugins show {name}\n  python -m pytest {shown}",
        soft_wrap=True,
    )


def _document(entry: Entry) -> dict[str, Any]:
    from onnxlens.plugins._description import documentation, hook_points
    from onnxlens.plugins._options import json_schema

    return {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "summary": entry.summary,
        "help": documentation(entry),
        "options": None if entry.kind in ("command", "family") else json_schema(entry.plugin),
        "hook_points": hook_points(entry),
    }


def _print_groups(entries: list[Entry]) -> None:
    """A table for each kind and distribution, one line an entry; 'show' prints what a narrow terminal cuts off."""
    from rich.table import Table
    from rich.text import Text

    from onnxlens.plugins._description import hook_points
    from onnxlens.plugins._options import option_names

    out = console()
    whole = lines_are_endless(out)
    for number, ((kind, distribution), group) in enumerate(groupby(entries, lambda one: (one.kind, one.distribution))):
        heading = f"{'families' if kind == 'family' else f'{kind}s'}, from {escape_controls(distribution)}"
        out.print(f"\n{heading}" if number else heading, soft_wrap=True, style="bold")
        rows = []
        for entry in group:
            cells = {"name": entry.name}
            if kind not in ("command", "family"):
                cells["options"] = " ".join(option_names(entry.plugin))
            if kind == "visualizer":
                reads = hook_points(entry)
                cells["reads"] = "by its options" if reads is None else " ".join(reads)
            rows.append({**cells, "summary": entry.summary})
        table = Table(box=None, pad_edge=False, header_style="dim", expand=not whole)
        for heading in rows[0]:
            widest = max(len(heading), *(len(row[heading]) for row in rows))
            # Names are typed by users, so they are never cut; the summary has the remaining width.
            width = {"name": widest, "summary": None}.get(heading, min(widest, _COLUMN))
            if whole:
                width = widest
            table.add_column(heading, no_wrap=True, width=width, ratio=None if width else 1, overflow="ellipsis")
        for row in rows:
            table.add_row(*(Text(escape_controls(cell)) for cell in row.values()))
        print_table(table)


def _print_entry(entry: Entry) -> None:
    from rich.table import Table
    from rich.text import Text

    from onnxlens.plugins._description import documentation, hook_points, option_rows

    out = console()
    out.print(f"{entry.kind} {entry.name}, from {escape_controls(entry.distribution)}", soft_wrap=True)
    if text := documentation(entry):
        out.print(f"\n{escape_controls(text, keep=chr(10))}")
    if rows := option_rows(entry):
        table = Table(box=None, pad_edge=False)
        for heading in ("option", "type", "default", "meaning"):
            table.add_column(heading, no_wrap=heading == "option", overflow="fold")
        for row in rows:
            type_ = row["type"] + (f", {row['bounds']}" if row["bounds"] else "")
            default = "must be given" if row["required"] else json.dumps(row["default"], ensure_ascii=False)
            table.add_row(*(Text(escape_controls(cell)) for cell in (row["name"], type_, default, row["help"])))
        out.print()
        print_table(table)
    if entry.kind == "sampler":
        first = next(iter(rows), None)
        argument = f"={first['default'] if first['default'] is not None else first['name'].upper()}" if first else ""
        out.print(f'\nUse: onnxlens generate TEXT --sampler "{entry.name}{argument}"', soft_wrap=True)
    elif entry.kind == "visualizer":
        reads = hook_points(entry)
        listed = "hook points that depend on its options" if reads is None else " ".join(reads) or "nothing"
        out.print(f"\nReads, by default, of a model of 12 blocks: {escape_controls(listed)}", soft_wrap=True)
        out.print(f"Use: onnxlens view {entry.name} TEXT", soft_wrap=True)
    elif entry.kind == "command":
        out.print(f"\nUse: onnxlens {entry.name} --help", soft_wrap=True)
    elif entry.kind == "family":
        out.print(f"\nUse: onnxlens export SOURCE, for a checkpoint whose model_type is {entry.name}", soft_wrap=True)
