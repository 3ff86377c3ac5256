"""`onnxlens predict`: the next token."""

from __future__ import annotations

import click

from onnxlens._commands.options import (
    RunOptions,
    change_options,
    console,
    escape_controls,
    print_applied,
    print_table,
    read_changes,
    read_text,
    run_options,
    shown,
    text_argument,
)

_BAR = 24  # characters for a probability of 1


@click.command("predict")
@text_argument
@click.option("--top", default=10, show_default=True, metavar="N", help="How many candidates to list.")
@change_options
@run_options
def command(
    text: str | None,
    top: int,
    files: tuple[str, ...],
    heads: tuple[str, ...],
    run: RunOptions,
) -> None:
    """Predict the token that follows TEXT.

    TEXT may be '-' or left out to read standard input. An empty text predicts from <|endoftext|>. Probabilities are
    over the full vocabulary.
    """
    text, changes = read_text(text), read_changes(files, heads)
    lens = run.open_lens()
    prediction = lens.predict(text, top=top, interventions=changes)
    if run.as_json:
        run.print_result(lens, prediction.to_dict())
        return
    from rich.bar import Bar
    from rich.table import Table
    from rich.text import Text

    out = console()
    read = lens.tokenizer.pieces(prediction.ids)
    pieces = [Text(t, style="bold" if n % 2 else "bold cyan") for n, t in enumerate(map(shown, read))]
    out.print(Text(" ").join(pieces))
    table = Table(
        box=None,
        pad_edge=False,
        caption=Text(f"{escape_controls(lens.runner.bundle.name)} on {lens.provider}"),
        caption_justify="left",
    )
    for heading in ("next token", "id", "logit", "probability"):
        table.add_column(heading, justify="left" if heading == "next token" else "right", no_wrap=True)
    table.add_column("", width=_BAR)
    named = lens.tokenizer.pieces([candidate.id for candidate in prediction.top])
    for candidate, name in zip(prediction.top, named, strict=True):
        table.add_row(
            Text(shown(name), style="bold"),
            str(candidate.id),
            f"{candidate.logit:.3f}",
            f"{candidate.probability:.2%}",
            Bar(1.0, 0, candidate.probability, width=_BAR, color="cyan"),
        )
    print_table(table)
    print_applied(prediction.applied)
