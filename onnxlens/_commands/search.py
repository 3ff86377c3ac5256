"""`onnxlens search`: continuations by beam search, contrastive search, or the best of several samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from onnxlens._commands.options import (
    RunOptions,
    check_sampling,
    print_table,
    read_text,
    run_options,
    sampling_options,
    shown,
    text_argument,
)

if TYPE_CHECKING:
    from onnxlens._lens import Lens
    from onnxlens.decoding import Hypothesis

_new_tokens = click.option(
    "-n", "--max-new-tokens", default=40, show_default=True, metavar="N", help="The most tokens to generate."
)


@click.group("search")
def command() -> None:
    """Continue a text by beam search, by contrastive search, or by the best of several samples."""


@command.command("beam")
@text_argument
@_new_tokens
@click.option(
    "--num-beams", default=4, show_default=True, metavar="N", help="How many continuations to keep at each step."
)
@click.option(
    "--num-return-sequences", default=1, show_default=True, metavar="N", help="How many continuations to print."
)
@click.option("--length-penalty", default=1.0, show_default=True, metavar="P", help="Above 0 favours long texts.")
@click.option(
    "--early-stopping",
    default="no",
    show_default=True,
    metavar="no|yes|never",
    help="When to end: if no better text is likely (no), when there are enough texts (yes), or if none can become "
    "better (never).",
)
@click.option(
    "--num-beam-groups",
    default=1,
    show_default=True,
    metavar="N",
    help="The number of groups that avoid each other's tokens.",
)
@click.option(
    "--diversity-penalty",
    default=0.0,
    show_default=True,
    metavar="P",
    help="How strongly groups avoid each other's tokens.",
)
@click.option(
    "--sampler", metavar="CHAIN", help="Samplers that shape the probabilities first: 'no_repeat_ngram_size=3 | …'."
)
@run_options
def beam(
    text: str | None,
    max_new_tokens: int,
    num_beams: int,
    num_return_sequences: int,
    length_penalty: float,
    early_stopping: str,
    num_beam_groups: int,
    diversity_penalty: float,
    sampler: str | None,
    run: RunOptions,
) -> None:
    """Beam search: the most probable continuations of TEXT among those that the beams reach."""
    from onnxlens.decoding import beam_search
    from onnxlens.plugins._loading import quiet
    from onnxlens.runtime.errors import InputError

    stopping: dict[str, bool | str] = {"no": False, "yes": True, "never": "never"}
    if early_stopping not in stopping:
        raise InputError(f"--early-stopping must be no, yes or never, not {early_stopping!r}.")
    text = read_text(text)
    lens = run.open_lens()
    with quiet():  # so that what samplers print does not mix with the output
        found = beam_search(
            lens,
            text,
            num_beams=num_beams,
            num_return_sequences=num_return_sequences,
            max_new_tokens=max_new_tokens,
            length_penalty=length_penalty,
            early_stopping=stopping[early_stopping],  # type: ignore[arg-type]  # one of the three
            num_beam_groups=num_beam_groups,
            diversity_penalty=diversity_penalty,
            sampler=sampler,
        )
    _print(run, lens, text, found)


@command.command("contrastive")
@text_argument
@_new_tokens
@click.option("--top-k", default=4, show_default=True, metavar="K", help="How many candidates for each token.")
@click.option(
    "--penalty-alpha",
    default=0.6,
    show_default=True,
    metavar="A",
    help="The weight of unlikeness: 0 is greedy decoding, 1 ignores probability.",
)
@run_options
def contrastive(
    text: str | None,
    max_new_tokens: int,
    top_k: int,
    penalty_alpha: float,
    run: RunOptions,
) -> None:
    """Contrastive search: probable tokens whose states are unlike those of earlier tokens."""
    from onnxlens.decoding import contrastive_search

    text = read_text(text)
    lens = run.open_lens()
    found = contrastive_search(lens, text, top_k=top_k, penalty_alpha=penalty_alpha, max_new_tokens=max_new_tokens)
    _print(run, lens, text, [found])


@command.command("best-of")
@text_argument
@_new_tokens
@click.option("--count", default=4, show_default=True, metavar="N", help="How many continuations to sample.")
@sampling_options
@run_options
def best_of(
    text: str | None,
    max_new_tokens: int,
    count: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    sampler: str | None,
    seed: int | None,
    run: RunOptions,
) -> None:
    """Sample several continuations at once, and print them from the most to the least probable."""
    from onnxlens.decoding import best_of as sample
    from onnxlens.plugins._loading import quiet

    check_sampling(temperature, top_k, top_p, sampler)
    text = read_text(text)
    lens = run.open_lens()
    with quiet():
        found = sample(
            lens,
            text,
            count=count,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            sampler=sampler,
            seed=seed,
        )
    _print(run, lens, text, found)


def _print(run: RunOptions, lens: Lens, text: str, found: Sequence[Hypothesis]) -> None:
    if run.as_json:
        run.print_result(lens, {"prompt": text, "continuations": [one.to_dict() for one in found]})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("continuation", overflow="fold")
    for one in found:
        table.add_row(f"{one.score:.3f}", str(len(one.ids)), Text(shown(one.text)))
    print_table(table)
