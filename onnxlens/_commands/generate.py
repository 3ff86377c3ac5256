"""`onnxlens generate`: continue a text."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from onnxlens._commands.options import (
    RunOptions,
    change_options,
    check_sampling,
    console,
    emit,
    print_applied,
    print_json,
    print_table,
    read_changes,
    read_text,
    run_options,
    sampling_options,
    shown,
    text_argument,
    unescaped,
)
from onnxlens.runtime.errors import OnnxLensError

if TYPE_CHECKING:
    from onnxlens._generation import GeneratedToken
    from onnxlens._lens import Lens
    from onnxlens.plugins._sampling.explain import Explanation


@click.command("generate")
@text_argument
@click.option("-n", "--max-new-tokens", default=40, show_default=True, metavar="N", help="The most tokens to generate.")
@sampling_options
@click.option("--explain", is_flag=True, help="Explain why each token was chosen.")
@click.option(
    "--stop", multiple=True, metavar="TEXT", help=r"End at this text, in which \n is a newline.  [may be repeated]"
)
@click.option(
    "--overflow",
    default="error",
    show_default=True,
    metavar="error|slide",
    help="What to do if the text would become longer than the context: raise an error, or drop the older half when it "
    "is full.",
)
@change_options
@run_options
def command(
    text: str | None,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    sampler: str | None,
    explain: bool,
    seed: int | None,
    stop: tuple[str, ...],
    overflow: str,
    files: tuple[str, ...],
    heads: tuple[str, ...],
    run: RunOptions,
) -> None:
    """Continue TEXT, token by token.

    TEXT may be '-' or left out to read standard input. Logits are divided by the temperature, top-k and top-p remove
    tokens, and one is drawn from the rest. With --sampler, its stages apply from left to right instead, and then one is
    drawn unless the last stage chooses. With --json, one document for each token, and a summary as the last one.
    """
    from onnxlens.plugins._loading import quiet

    check_sampling(temperature, top_k, top_p, sampler)
    text, changes = read_text(text), read_changes(files, heads)
    lens = run.open_lens()
    with quiet():  # so that what samplers print does not mix with the output
        generation = lens.generate(
            text,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            sampler=sampler,
            explain=explain,
            seed=seed,
            stop=[unescaped(one) for one in stop],
            overflow=overflow,
            interventions=changes,
        )
    tokens = _quietly(generation)
    first = list(itertools.islice(tokens, 1))  # errors are reported before anything is shown
    if not run.as_json and not explain:
        emit(text, bold=True)
    try:
        for token in itertools.chain(first, tokens):
            if run.as_json:
                print_json(token.to_dict(), indent=None)
            elif token.explanation is not None:
                _print_explanation(lens, token.explanation)
            else:
                emit(token.text)
    except (OnnxLensError, KeyboardInterrupt):
        if not run.as_json and not explain:
            emit("\n")  # so that messages about it do not continue the line of text
        raise
    if not run.as_json:
        if not explain:
            emit("\n")
        if sys.stderr.isatty():
            notes = {"end_of_text": ["the model ended the text"]}.get(str(generation.finish_reason), [])
            if seed is None and temperature != 0:
                notes.append(f"--seed {generation.seed} gives it again")
            if notes:
                click.secho(f"({'; '.join(notes)})", dim=True, err=True)
        print_applied(generation.applied)
        return
    run.print_result(lens, generation.to_dict(), indent=None)


def _quietly(tokens: Iterator[GeneratedToken]) -> Iterator[GeneratedToken]:
    from onnxlens.plugins._loading import quiet

    while True:
        with quiet():
            token = next(tokens, None)
        if token is None:
            return
        yield token


def _print_explanation(lens: Lens, explanation: Explanation) -> None:
    """Prints why a token was chosen: a line for the token, one for each sampler, one for the choice."""
    from rich.table import Table
    from rich.text import Text

    from onnxlens.plugins._sampling.explain import STAGE_HEADINGS

    out, chosen = console(), explanation.chosen
    out.print(Text(shown(lens.tokenizer.pieces([chosen.id])[0]), style="bold"), f"(token {chosen.id})")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in STAGE_HEADINGS:
        table.add_column(heading, justify="left" if heading == "sampler" else "right")
    for stage in explanation.stages:
        counts = f"{stage.tokens:,}", f"{stage.removed_tokens:,}"
        table.add_row(Text(stage.sampler), *counts, f"{stage.removed:.2%}", f"{stage.moved:.2%}")
    if explanation.stages:
        print_table(table)
    out.print(Text(f"{explanation.reason}\n"))
