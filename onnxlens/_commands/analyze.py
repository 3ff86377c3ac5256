"""`onnxlens analyze`: what the model's parts do, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxlens._commands.options import (
    RunOptions,
    console,
    read_text,
    run_options,
    shown,
    text_argument,
    unescaped,
)

if TYPE_CHECKING:
    import numpy as np

    from onnxlens._lens import Lens
    from onnxlens.metrics import TokenMetric
    from onnxlens.plugins.charts.columns import Columns
    from onnxlens.runtime._result import Result

_LEAST = 0.1  # of a difference between two texts, in nats or logits; shares of a smaller one are noise

F = TypeVar("F", bound=Callable[..., Any])


@click.group("analyze", short_help="What heads, layers and positions do, as tables.")
def command() -> None:
    """See what heads, layers and positions do in a text."""


def _unescaped(context: click.Context, option: click.Parameter, token: str | None) -> str | None:
    return None if token is None else unescaped(token)


def _each_unescaped(context: click.Context, option: click.Parameter, tokens: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(unescaped, tokens))


def _metric_options(function: F) -> F:
    for option in (
        click.option("--against", metavar="TOKEN", callback=_unescaped, help="Measure its logit minus that of TOKEN."),
        click.option(
            "--answer",
            metavar="TOKEN",
            callback=_unescaped,
            help=r"The token to measure; \n in it is a newline. The most probable one if left out.",
        ),
    ):
        function = option(function)
    return function


@command.command("logit-lens")
@text_argument
@click.option("--top", default=1, show_default=True, metavar="N", help="How many candidates at each place.")
@click.option(
    "--watch",
    multiple=True,
    metavar="TOKEN",
    callback=_each_unescaped,
    help=r"Show the rank of this token, too; \n in it is a newline.  [may be repeated]",
)
@run_options
def logit_lens(
    text: str | None,
    top: int,
    watch: tuple[str, ...],
    run: RunOptions,
) -> None:
    """What the model would predict after each token of TEXT, if it ended after each block."""
    from onnxlens.analysis import logit_lens as analyse

    lens, text = _opened(run, text)
    found = analyse(lens, text, top=top, watch=watch)
    tokens = lens.to_str_tokens(found.tokens)
    if run.as_json:
        _print_json(run, lens, found, tokens)
        return
    from onnxlens.plugins.visualizers.logit_lens import table

    pieces = lens.tokenizer.pieces(found.tokens.tolist())
    _print(table(found, pieces, lambda token: lens.tokenizer.pieces([token])[0], watch))


@command.command("dla")
@text_argument
@_metric_options
@click.option("--position", default=-1, show_default=True, metavar="N", help="The position that predicts.")
@click.option(
    "--neurons",
    default=0,
    type=int,
    show_default=True,
    metavar="N",
    help="Also list this many neurons.",
)
@run_options
def dla(
    text: str | None,
    answer: str | None,
    against: str | None,
    position: int,
    neurons: int,
    run: RunOptions,
) -> None:
    """Direct logit attribution: what each part adds to the logit of a token after TEXT; the parts add up to it."""
    import numpy as np

    from onnxlens.analysis import attribute_logit
    from onnxlens.runtime.errors import InputError

    if neurons < 0:
        raise InputError(f"--neurons must be at least 0, not {neurons}.")
    lens, text = _opened(run, text)
    found = attribute_logit(lens, text, answer, against, position=position, neurons=neurons > 0)
    answers = [found.token] if found.against is None else [found.token, found.against]
    parts = {"embed": found.embed, "pos_embed": found.pos_embed, "biases": found.biases}
    if lens.config.positional_embedding_type != "standard":
        del parts["pos_embed"]
    if run.as_json:
        _print_json(run, lens, found, lens.to_str_tokens(found.tokens), answer=lens.to_str_tokens(answers))
        return
    what = "the logit of " + " minus that of ".join(map(shown, lens.tokenizer.pieces(answers)))
    rows: list[Sequence[object]] = [
        (f"layer {n}", *map(_signed, found.heads[n]), _signed(found.mlps[n])) for n in range(lens.config.n_layers)
    ]
    _print_table(("head", *_numbers(lens.config.n_heads), "MLP"), rows, caption=f"{what}: {found.logit:.3f}")
    _print_table(("part", "adds"), [(name, _signed(value)) for name, value in parts.items()])
    if found.neurons is not None:
        flat = np.argsort(-np.abs(found.neurons), axis=None)[:neurons]
        places = zip(*np.unravel_index(flat, found.neurons.shape), strict=True)
        _print_table(("neuron", "adds"), [(f"layer {n}, neuron {i}", _signed(found.neurons[n, i])) for n, i in places])


@command.command("ablate")
@text_argument
@_metric_options
@click.option(
    "--hook", default="z", show_default=True, metavar="NAME", help="The hook point to replace, such as result."
)
@click.option("--operation", default="zero", show_default=True, metavar="zero|mean", help="The value that replaces it.")
@run_options
def ablate(
    text: str | None,
    answer: str | None,
    against: str | None,
    hook: str,
    operation: str,
    run: RunOptions,
) -> None:
    """How the prediction after TEXT changes without each head, or each layer's MLP, in turn."""
    from onnxlens.analysis import ablate_heads

    lens, text = _opened(run, text)
    metric, what = _metric(lens, text, answer, against)
    found = ablate_heads(lens, [text], metric, hook=hook, operation=operation)  # type: ignore[arg-type]  # refuses others
    tokens = lens.to_str_tokens(found.tokens[0])
    if run.as_json:
        _print_json(run, lens, found, tokens, metric=what)
        return
    if found.axes == ("layer", "head"):
        _print_heads(found.effects, f"change of {what} without a head; with all of them it is {found.baseline:.3f}")
        return
    caption = f"change of {what} without {hook} of a layer; with all of them it is {found.baseline:.3f}"
    _print_table(
        ("layer", "change"), [(str(n), _signed(value)) for n, value in enumerate(found.effects)], caption=caption
    )


@command.command("patch")
@text_argument
@click.option(
    "--corrupted",
    required=True,
    metavar="TEXT",
    help="The text to patch; it must have the same number of tokens.",
)
@_metric_options
@click.option(
    "--hook", default="resid_pre", show_default=True, metavar="NAME", help="The hook point to patch, such as z."
)
@click.option(
    "--span", default=1, show_default=True, metavar="N", help="How many neighbouring tokens to patch together."
)
@run_options
def patch(
    text: str | None,
    corrupted: str,
    answer: str | None,
    against: str | None,
    hook: str,
    span: int,
    run: RunOptions,
) -> None:
    """How much of the prediction after the clean TEXT each of its values restores in a corrupted text."""
    from onnxlens.analysis import patch_activations

    lens, text = _opened(run, text)
    metric, what = _metric(lens, text, answer, against)
    found = patch_activations(lens, [text], [corrupted], metric, hook=hook, span=span)
    tokens = lens.to_str_tokens(found.corrupted_tokens[0])
    if run.as_json:
        _print_json(run, lens, found, tokens, metric=what)
        return
    caption = f"share of {what} restored; clean it is {found.clean:.3f}, corrupted {found.corrupted:.3f}"
    if abs(found.clean - found.corrupted) < _LEAST:
        caption += f"\nThese differ by {abs(found.clean - found.corrupted):.2g} only, so shares are mostly noise."
    if found.axes == ("layer", "head"):
        _print_heads(found.recovered, caption)
        return
    names = _names(found.joined(lens.tokenizer.pieces(found.corrupted_tokens[0].tolist())))
    rows = [(name, *map(_signed, shares)) for name, shares in zip(names, found.recovered.T, strict=True)]
    _print_table(("layer", *_numbers(lens.config.n_layers)), rows, caption=caption)


@command.command("heads")
@click.option("--length", default=50, show_default=True, metavar="N", help="Random tokens before they repeat.")
@click.option("--count", default=16, show_default=True, metavar="N", help="How many sequences.")
@click.option("--seed", default=0, show_default=True, metavar="N", help="Seed of the random tokens.")
@run_options
def heads(length: int, count: int, seed: int, run: RunOptions) -> None:
    """Which heads find the previous token, a copy, or the token after the copy, on repeated random tokens."""
    from onnxlens.analysis import head_scores

    lens = run.open_lens()
    found = head_scores(lens, length=length, count=count, seed=seed)
    scores = {name: getattr(found, name) for name in ("induction", "previous", "duplicate")}
    if run.as_json:
        run.print_result(lens, found.to_dict())
        return
    order = sorted(
        ((n, h) for n in range(lens.config.n_layers) for h in range(lens.config.n_heads)),
        key=lambda place: -max(score[place] for score in scores.values()),
    )
    rows = [(f"layer {n}, head {h}", *(f"{score[n, h]:.3f}" for score in scores.values())) for n, h in order]
    caption = f"mean attention; {found.accuracy:.1%} of the repeated tokens are predicted"
    _print_table(("head", *scores), rows, caption=caption)


@command.command("surprisal")
@text_argument
@run_options
def surprisal(text: str | None, run: RunOptions) -> None:
    """How unexpected each token of TEXT is."""
    from onnxlens.analysis import surprisal as analyse

    lens, text = _opened(run, text)
    found = analyse(lens, text)
    tokens = lens.to_str_tokens(found.tokens)
    if run.as_json:
        _print_json(run, lens, found, tokens)
        return
    names = _names(lens.tokenizer.pieces(found.tokens.tolist()), first=1)  # there is no prediction for the first token
    columns = zip(names, found.values, found.entropy, found.rank.tolist(), strict=True)
    rows = [(name, f"{value:.2f}", f"{entropy:.2f}", rank) for name, value, entropy, rank in columns]
    caption = f"in nats; mean {found.loss:.3f}, perplexity {found.perplexity:.1f}"
    _print_table(("token", "surprisal", "expected", "rank"), rows, caption=caption)


def _opened(run: RunOptions, text: str | None) -> tuple[Lens, str]:
    text = read_text(text)
    return run.open_lens(), text


def _metric(lens: Lens, text: str, answer: str | None, against: str | None) -> tuple[TokenMetric, str]:
    """The metric at the last position, and its name."""
    from onnxlens.metrics import log_probability, logit_difference

    token: int | str = answer if answer is not None else lens.predict(text, top=1).top[0].id
    name = shown(answer if answer is not None else lens.tokenizer.pieces([int(token)])[0])
    if against is None:
        return log_probability(token), f"log p({name})"
    return logit_difference(token, against), f"logit({name}) - logit({shown(against)})"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _numbers(count: int) -> Iterator[str]:
    """Headings of heads or layers: numbers, the first with a word before it, since columns must be narrow."""
    return map(str, range(count))


def _names(pieces: Sequence[str], first: int = 0) -> list[str]:
    """The tokens of a text in quotes, with positions where equal; on a terminal, long ones end in `…`."""
    from onnxlens.plugins.charts.columns import cut
    from onnxlens.runtime._text.token_text import told_apart

    out = console()
    names = told_apart([shown(piece) for piece in pieces], first)
    return [cut(name, out.width) for name in names] if out.is_terminal else names


def _print_heads(values: np.ndarray, caption: str) -> None:
    """A table of layers and heads."""
    rows = [(f"layer {n}", *map(_signed, row)) for n, row in enumerate(values)]
    _print_table(("head", *_numbers(values.shape[1])), rows, caption=caption)


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> None:
    """Prints a whole table: on a terminal, columns that do not fit beside the others come below them."""
    from rich.text import Text

    from onnxlens.plugins.charts.columns import Columns

    _print(Columns(headings, lambda cut: [[str(cell) for cell in row] for row in rows]))
    if caption:
        console().print(Text(caption), soft_wrap=True)


def _print(table: Columns) -> None:
    console().print(table, crop=False)


def _print_json(run: RunOptions, lens: Lens, found: Result, tokens: list[str], **more: object) -> None:
    """Prints a result with the texts of its tokens; their ids are `token_ids`."""
    document = found.to_dict()
    if "tokens" in document:
        document["token_ids"] = document.pop("tokens")
    run.print_result(lens, {"tokens": tokens, **more, **document})
