"""`onnxlens generate`: continue a text."""

from __future__ import annotations

import dataclasses
import sys

import click

from onnxlens.commands.options import (
    change_options,
    emit,
    open_lens,
    print_applied,
    print_json,
    read_changes,
    read_text,
    run_options,
    text_argument,
)


@click.command("generate")
@text_argument
@click.option("-n", "--max-new-tokens", default=40, show_default=True, metavar="N", help="How many tokens at most.")
@click.option("--temperature", default=1.0, show_default=True, metavar="T", help="0 is greedy.")
@click.option("--top-k", type=int, metavar="K", help="Choose among the K most probable tokens.")
@click.option("--top-p", type=float, metavar="P", help="Choose among the fewest tokens that are P probable together.")
@click.option("--seed", type=int, metavar="N", help="Makes it reproducible.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End at this text; may be given several times.")
@click.option(
    "--overflow",
    default="error",
    show_default=True,
    metavar="error|slide",
    help="What to do where the text would outgrow the model: refuse, or forget the older half when full.",
)
@change_options
@run_options
def command(
    text: str | None,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    stop: tuple[str, ...],
    overflow: str,
    files: tuple[str, ...],
    heads: tuple[str, ...],
    model: str | None,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Continue TEXT, token by token.

    TEXT may be '-' or left out to read standard input. Logits are divided by the temperature, then top-k and top-p
    leave out tokens, then one is drawn. With --json, one document a token and a last one that sums up.
    """
    text, changes = read_text(text), read_changes(files, heads)
    lens = open_lens(model, provider, threads)
    generation = lens.generate(
        text,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop=stop,
        overflow=overflow,
        interventions=changes,
    )
    if not as_json:
        emit(text, bold=True)
    for token in generation:
        if as_json:
            print_json(dataclasses.asdict(token), indent=None)
        else:
            emit(token.text)
    if not as_json:
        emit("\n")
        if sys.stderr.isatty():
            notes = {"end_of_text": ["the model ended the text"]}.get(str(generation.finish_reason), [])
            if seed is None and temperature != 0:
                notes.append(f"--seed {generation.seed} gives it again")
            if notes:
                click.secho(f"({'; '.join(notes)})", dim=True, err=True)
        print_applied(generation.applied)
        return
    print_json(
        {
            "model": lens.runner.bundle.name,
            "provider": lens.provider,
            "prompt": text,
            "text": generation.text,
            "finish_reason": generation.finish_reason,
            "seed": generation.seed,
            "applied": [dataclasses.asdict(one) for one in generation.applied],
        },
        indent=None,
    )
