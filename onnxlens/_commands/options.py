"""The parts that commands share: options, text input, and output as text and as JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxlens.runtime._escape import escape_controls, json_text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment, Segments
    from rich.table import Table

    from onnxlens._lens import Lens
    from onnxlens.plugins._registry import Registry
    from onnxlens.runtime._activations.applied import Applied
    from onnxlens.runtime._interventions.interventions import Intervention

__all__ = [
    "RunOptions",
    "change_options",
    "check_sampling",
    "console",
    "emit",
    "escape_controls",
    "escaped_segments",
    "gradients_report",
    "json_option",
    "lines_are_endless",
    "model_option",
    "plugins",
    "print_applied",
    "print_json",
    "print_json_text",
    "print_table",
    "read_changes",
    "read_text",
    "rounding",
    "run_options",
    "sampling_options",
    "shown",
    "status",
    "text_argument",
    "unescaped",
]

F = TypeVar("F", bound=Callable[..., Any])

_NARROWEST, _USUAL = 20, 80  # columns

model_option = click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="A bundle's path, a name under models/ or in your data folder; the model that ships if left out.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
text_argument = click.argument("text", required=False)

_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\"}
_ESCAPE = re.compile(r"\\([nrt0\\]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})")


@dataclass(frozen=True)
class RunOptions:
    """The options of every command that runs a model.

    Attributes:
        model: the bundle's path or name; None for the model that ships.
        provider: the execution provider.
        threads: how many threads compute; None for as many as there are physical cores.
        as_json: whether to print JSON.
    """

    model: str | None
    provider: str
    threads: int | None
    as_json: bool

    def open_lens(self) -> Lens:
        """Opens the model; on a terminal, shows what takes long."""
        from onnxlens._lens import load

        with status("opening the model") as say:
            return load(self.model, provider=self.provider, threads=self.threads, progress=say, plugins=plugins())

    @staticmethod
    def print_result(lens: Lens, result: Mapping[str, Any], *, indent: int | None = 1) -> None:
        """Prints a command's result as JSON, with the model and the provider that it ran on."""
        print_json({"model": lens.runner.bundle.name, "provider": lens.provider, **result}, indent=indent)


def run_options(command: F) -> F:
    """Adds the options of every command that runs a model; the command gets them as `run`, a `RunOptions`."""

    @wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        run = RunOptions(**{field.name: options.pop(field.name) for field in fields(RunOptions)})
        return command(*arguments, run=run, **options)

    decorated: Any = wrapped
    for option in (
        json_option,
        click.option("--threads", type=int, metavar="N", help="The number of threads."),
        click.option(
            "--provider",
            default="auto",
            metavar="auto|cpu|cuda",
            help="The execution provider.",
            show_default=True,
        ),
        model_option,
    ):
        decorated = option(decorated)
    found: F = decorated
    return found


def sampling_options(command: F) -> F:
    """Adds the options of every command that draws tokens."""
    for option in (
        click.option("--seed", type=int, metavar="N", help="Seed of random draws: the same seed gives the same text."),
        click.option(
            "--sampler",
            metavar="CHAIN",
            help="Samplers in place of these three: 'repetition_penalty=1.1 | min_p=0.05 | …'.",
        ),
        click.option(
            "--top-p",
            type=float,
            metavar="P",
            help="Choose among the fewest most probable tokens whose probabilities add up to P.",
        ),
        click.option("--top-k", type=int, metavar="K", help="Choose among the K most probable tokens."),
        click.option("--temperature", default=1.0, show_default=True, metavar="T", help="0 is greedy."),
    ):
        command = option(command)
    return command


def check_sampling(temperature: float, top_k: int | None, top_p: float | None, sampler: str | None) -> None:
    """Refuses options of sampling that exclude each other.

    Raises:
        UsageError: they do.
    """
    if sampler is not None and (temperature != 1.0 or top_k is not None or top_p is not None):
        raise click.UsageError("Give either --sampler, or --temperature, --top-k and --top-p, which it replaces.")


def change_options(command: F) -> F:
    """Adds the options of every command that can change activations."""
    for option in (
        click.option(
            "--ablate-head",
            "heads",
            multiple=True,
            metavar="LAYER.HEAD",
            help="Zero the output of a head, such as 3.5.",
        ),
        click.option(
            "--intervene", "files", multiple=True, metavar="FILE", help="Make the interventions in a JSON file."
        ),
    ):
        command = option(command)
    return command


def read_changes(files: tuple[str, ...], heads: tuple[str, ...]) -> list[Intervention]:
    """The interventions of files, in the order given, then those of heads to ablate.

    Raises:
        InputError: a file or head cannot be read as such.
    """
    from onnxlens.runtime._interventions.intervention_files import read_interventions
    from onnxlens.runtime._interventions.interventions import Intervention
    from onnxlens.runtime.errors import InputError

    found = [one for file in files for one in read_interventions(file)]
    for head in heads:
        if not re.fullmatch(r"\d{1,6}\.\d{1,6}", head):
            raise InputError(f"--ablate-head takes a layer and a head with a dot between, such as 3.5, not {head!r}.")
        layer, number = map(int, head.split("."))
        found.append(Intervention.zero(f"blocks.{layer}.attn.hook_z", heads=number))
    return found


def print_applied(applied: Iterable[Applied]) -> None:
    """Prints on a terminal what interventions changed, and where."""
    if sys.stderr.isatty():
        for one in applied:
            click.secho(f"({escape_controls(str(one))})", dim=True, err=True)


def plugins(context: click.Context | None = None) -> Registry:
    """The plugins that the options before the command select."""
    from onnxlens.plugins._registry import Registry

    root = (context or click.get_current_context()).find_root()
    if "onnxlens.plugins" not in root.meta:
        files, find = root.params.get("files", ()), not root.params.get("no_plugins", False)
        root.meta["onnxlens.plugins"] = Registry(files, find=find)
    found: Registry = root.meta["onnxlens.plugins"]
    return found


def read_text(text: str | None) -> str:
    """The text given as argument, or standard input where that is `-` or piped, without one newline at its end.

    Raises:
        InputError: standard input is not UTF-8, or too long.
    """
    from onnxlens.runtime._text.human_text import HumanTextError, read_human_text
    from onnxlens.runtime.errors import InputError

    if text is not None and text != "-":
        return text
    if sys.stdin is None or (text is None and sys.stdin.isatty()):
        raise click.UsageError("Missing argument 'TEXT'. Give a text, or pipe one in.")
    try:
        return read_human_text(sys.stdin.buffer).removesuffix("\n")
    except HumanTextError as error:
        raise InputError(f"Standard input cannot be read: {error}.") from error


def unescaped(text: str) -> str:
    r"""A text in which `\n`, `\r`, `\t`, `\0`, `\\`, `\xHH`, `\uHHHH` and `\UHHHHHHHH` stand for characters.

    As with printf; in most shells, a newline is hard to write otherwise. Other backslashes stay as they are.

    Raises:
        InputError: there is no such character.
    """
    from onnxlens.runtime.errors import InputError

    def character(found: re.Match[str]) -> str:
        if found[1] in _ESCAPED:
            return _ESCAPED[found[1]]
        number = int(found[1][1:], 16)
        if number > sys.maxunicode or 0xD800 <= number <= 0xDFFF:
            raise InputError(f"{found[0]} is not a Unicode character.")
        return chr(number)

    return _ESCAPE.sub(character, text)


def console(*, stderr: bool = False) -> Console:
    """A console for tables: control characters in what is printed are escaped."""
    out = _console_class()(stderr=stderr, highlight=False, markup=False, emoji=False)
    if out.width < _NARROWEST:
        out.width = _NARROWEST if _columns() else _USUAL
    return out


@cache
def _console_class() -> type[Console]:
    from rich.console import Console

    class EscapingConsole(Console):
        """A console that escapes control characters in what it prints; its own colours stay."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for one in super().render(renderable, options):
                yield one if one.control else one._replace(text=escape_controls(one.text, keep="\n"))

    return EscapingConsole


def _columns() -> int:
    """The width that the variable COLUMNS states; 0 if it states none."""
    stated = os.environ.get("COLUMNS", "")
    return int(stated) if re.fullmatch(r"[0-9]{1,6}", stated) else 0


def print_table(table: Table) -> None:
    """Prints a table; in a pipe or a file it is as wide as it needs to be."""
    out = console()
    if lines_are_endless(out):
        out.width = sys.maxsize
    out.print(table)


def lines_are_endless(out: Console) -> bool:
    """Whether neither a terminal nor the variable COLUMNS limits the width."""
    return not out.is_terminal and not _columns()


def escaped_segments(renderable: RenderableType) -> Segments:
    """A plugin's output, ready to be printed: colours stay, other control characters are escaped."""
    from rich.segment import Segment, Segments
    from rich.text import Text

    made = Text(renderable) if isinstance(renderable, str) else renderable
    return Segments(
        [Segment(escape_controls(one.text, keep="\n"), one.style) for one in console().render(made) if not one.control]
    )


def print_json(document: Any, *, indent: int | None = 1) -> None:
    """Prints one JSON document; with `indent=None` on one line, at once."""
    print_json_text(json.dumps(document, ensure_ascii=False, indent=indent, allow_nan=False))


def print_json_text(text: str) -> None:
    """Prints a JSON document that is text already."""
    click.echo(json_text(text, getattr(sys.stdout, "encoding", None) or "ascii"))


def rounding(report: dict[str, Any], storage: str) -> str:
    """The effect of storing weights with less precision, in words, from a verification report that has it."""
    effect = report["rounding"]
    return (
        f"stored as {storage}, which moves a logit by at most {effect['absolute']:.1e} ({effect['relative']:.1e} of "
        f"their range); the greedy token stays at {effect['same_greedy_token']:.1%} of {effect['positions']} positions"
    )


def gradients_report(report: dict[str, Any]) -> str:
    """The comparison of the gradients with PyTorch's, in words, from a verification report that has it."""
    compared = report["gradients"]
    return (
        f"gradients compared with {compared.get('reference')}: largest error {compared['largest_relative_error']:.1e} "
        f"of a value's range (allowed {compared['tolerance']:.0e})"
    )


def emit(text: str, *, bold: bool = False) -> None:
    """Writes running text at once: unchanged into a pipe or file, with control characters escaped to a terminal."""
    if sys.stdout.isatty():
        click.secho(escape_controls(text, keep="\n\t"), bold=bold, nl=False)
    else:
        sys.stdout.write(text)
        sys.stdout.flush()


def shown(token: str) -> str:
    """A token's text in quotes, with invisible characters as escapes."""
    from onnxlens.runtime._text.token_text import quoted_token

    return quoted_token(token)


@contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal what is being done, but not in a pipe; yields a function that changes the text."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.text import Text

    with console(stderr=True).status(Text(f"{escape_controls(text)} …")) as spinner:
        yield lambda text: spinner.update(Text(f"{escape_controls(text)} …"))
