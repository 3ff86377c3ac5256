"""`onnxlens models`: the bundles that are found, and where."""

from __future__ import annotations

import click

from onnxlens._commands.options import console, escape_controls, json_option, print_json, print_table


@click.command("models", short_help="List the models and where they are.")
@json_option
def command(as_json: bool) -> None:
    """List the models found: under models/ here, in your data folder, and the one that ships."""
    from onnxlens._catalog import SHIPPED, installed, places
    from onnxlens.runtime._bundle.bundle import Bundle
    from onnxlens.runtime.errors import BundleError

    rows = []
    for found in installed():
        try:
            manifest = Bundle(found.path).manifest
            size, state = sum(record.size for record in manifest.files.values()), "ok"
            parameters = manifest.parameters
        except BundleError as error:
            size, parameters, state = 0, 0, str(error)
        rows.append(
            {
                "name": found.name,
                "place": found.place,
                "default": found.place == "shipped" and found.name == SHIPPED,
                "parameters": parameters,
                "bytes": size,
                "path": str(found.path),
                "state": state,
            }
        )
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "where", "parameters", "MB", "path"):
        table.add_column(heading, justify="right" if heading in ("parameters", "MB") else "left", overflow="fold")
    for row in rows:
        where = {"here": "models/", "user": "your data folder", "shipped": "ships with onnxlens"}[str(row["place"])]
        table.add_row(
            escape_controls(str(row["name"])),
            where if row["state"] == "ok" else "damaged, see below",
            f"{row['parameters']:,}",
            f"{int(str(row['bytes'])) / 1e6:,.1f}",
            escape_controls(str(row["path"])),
        )
    print_table(table)
    out = console()
    for row in rows:
        if row["state"] != "ok":
            out.print(f"\n{escape_controls(str(row['name']))}: {escape_controls(str(row['state']))}", soft_wrap=True)
    out.print("\nLooked in: " + ", ".join(str(place) for place in places().values()), soft_wrap=True)
