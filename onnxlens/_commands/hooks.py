"""`onnxlens hooks`: the values that can be read."""

from __future__ import annotations

import click

from onnxlens._commands.options import json_option, model_option, print_json, print_table


@click.command("hooks")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@model_option
@json_option
def command(patterns: tuple[str, ...], model: str | None, as_json: bool) -> None:
    """List hook points: the intermediate values that can be read.

    PATTERN is a name or a shell glob, such as 'blocks.*.attn.*'. A number in a shape is this model's own; a word
    depends on the text.
    """
    from onnxlens._catalog import find
    from onnxlens.runtime._bundle.bundle import Bundle
    from onnxlens.runtime._bundle.selection import select

    description = Bundle(find(model)).description
    config, points = description.cfg, description.points
    chosen = [points[name] for name in select(patterns or "*", points)]
    running = {"batch", "pos", "query_pos", "key_pos"}
    shapes = [
        [axis if axis in running else size for axis, size in zip(p.axes, p.shape(config, 1, 1), strict=True)]
        for p in chosen
    ]
    if as_json:
        print_json(
            [
                {
                    "name": p.name,
                    "shape": shape,
                    "axes": list(p.axes),
                    "meaning": p.meaning,
                    "on_request": p.on_request,
                }
                for p, shape in zip(chosen, shapes, strict=True)
            ]
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("hook point", "shape", "meaning"):
        table.add_column(heading, no_wrap=heading == "hook point")
    for point, shape in zip(chosen, shapes, strict=True):
        table.add_row(point.name, " ".join(map(str, shape)), point.meaning)
    print_table(table)
