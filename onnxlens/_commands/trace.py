"""`onnxlens trace`: write activations to a file."""

from __future__ import annotations

from pathlib import Path

import click

from onnxlens._commands.options import (
    RunOptions,
    change_options,
    console,
    escape_controls,
    print_applied,
    print_json,
    read_changes,
    read_text,
    run_options,
    text_argument,
)


@click.command("trace", short_help="Write what happens inside to a file.")
@text_argument
@click.option(
    "--hooks",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="A hook point or glob to read; all but hook_result if left out.  [may be repeated]",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The safetensors file to write.")
@change_options
@run_options
def command(
    text: str | None,
    patterns: tuple[str, ...],
    output: Path,
    files: tuple[str, ...],
    heads: tuple[str, ...],
    run: RunOptions,
) -> None:
    """Run TEXT and write what happens inside to a safetensors file.

    The file holds one array for each hook point, and `tokens`; its header names the model, the request and the tokens'
    texts. In Python, onnxlens.open_trace opens it. TEXT may be '-' or left out to read standard input.
    """
    if str(output) in ("", "-"):
        raise click.UsageError("A trace goes to a file; name one with -o, such as -o trace.safetensors.")
    text, changes = read_text(text), read_changes(files, heads)
    lens = run.open_lens()
    _, cache = lens.run_with_cache(text, names_filter=patterns or None, interventions=changes)
    cache.save(output)
    if run.as_json:
        arrays = {name: list(array.shape) for name, array in cache.items()}
        applied = [one.to_dict() for one in cache.applied]
        print_json(
            {
                "file": str(output),
                "model": cache.model,
                "bytes": cache.nbytes,
                "hook_points": arrays,
                "applied": applied,
            }
        )
    else:
        from rich.filesize import decimal

        console().print(
            f"{escape_controls(str(output))}: {len(cache)} hook points over {cache.tokens.shape[1]} tokens, "
            f"{decimal(cache.nbytes)}",
            soft_wrap=True,
        )
        print_applied(cache.applied)
