"""Compares shapes of the model: trains a few for the same time and shows what each reached.

`python -m recipe.shapes 4x256x4 6x256x4 --minutes 4` prints a Markdown table.
"""

__all__ = ["Row", "measure"]

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from transformers import GPT2LMHeadModel
from transformers import logging as transformers_logging

from recipe.batches import IGNORED, repeated
from recipe.checkpoint import Shape, new_model
from recipe.corpus import KINDS, WORK
from recipe.optimisers import Settings
from recipe.train import Budget, evaluate, train


@dataclass(frozen=True)
class Row:
    """What a shape reached: million tokens seen, bits per byte of each kind, share of repeated tokens copied."""

    vocabulary: int
    parameters: int
    millions: float
    bits: dict[str, float]
    copied: float


def measure(work: Path, shape: Shape, minutes: float, settings: Settings, *, compiled: bool = True) -> Row:
    """Trains a shape for some minutes and measures it on held-out text, and on random tokens that repeat."""
    torch.manual_seed(settings.seed)
    model, budget = new_model(work, shape), Budget(minutes)
    with tempfile.TemporaryDirectory() as out:
        train(work, model, budget, settings, out=Path(out), bf16=True, compiled=compiled, save_minutes=minutes)
    millions = budget.step * settings.rows * settings.length / 1e6
    bits = {kind: evaluate(model, work, kind, settings.length)[1] for kind in KINDS}
    return Row(model.config.vocab_size, model.num_parameters(), millions, bits, _copied(model))


@torch.no_grad()
def _copied(model: GPT2LMHeadModel, rows: int = 16, period: int = 50) -> float:
    """The share of repeated random tokens that the model predicts."""
    dice = np.random.default_rng([0, 0, 1])  # another seed than any step of training has for these
    drawn = [repeated(dice, model.config.vocab_size - 1, period, 2 * period) for _ in range(rows)]
    read, answers = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
    known = answers != IGNORED
    right = model(input_ids=read).logits.argmax(-1) == answers
    return float(right[known].float().mean())


class ShapeType(click.ParamType[Shape]):
    """A shape on the command line, as 5x256x4."""

    name = "LAYERSxWIDTHxHEADS"

    def convert(self, value: str | Shape, param: click.Parameter | None, ctx: click.Context | None) -> Shape:
        """Reads one."""
        if isinstance(value, Shape):
            return value
        found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", value)
        if not found:
            self.fail(f"{value!r} is not a shape: give layers, width and heads, as 5x256x4.", param, ctx)
        return Shape(*map(int, found.groups()))


@click.command()
@click.argument("shapes", nargs=-1, required=True, type=ShapeType(), metavar="LAYERSxWIDTHxHEADS...")
@click.option("--minutes", default=4.0, show_default=True, help="How long to train each.")
@click.option("--work", type=click.Path(path_type=Path), default=(WORK,), multiple=True, help="Corpus folder.")
@click.option("--threads", default=2, show_default=True, help="Processor threads for PyTorch.")
def main(shapes: tuple[Shape, ...], minutes: float, work: tuple[Path, ...], threads: int) -> None:
    """Train SHAPES for the same time each, on each corpus, and print what they reached as a Markdown table.

    A corpus made with another --vocabulary goes into another folder: --work may be given several times.
    """
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(threads)
    head = ("vocabulary", "layers", "width", "heads", "parameters", "million tokens", *KINDS, "copied")
    click.echo(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for folder in work:
        for shape in shapes:
            try:
                row = measure(folder, shape, minutes, Settings())
            except (FileNotFoundError, ValueError) as error:
                raise click.ClickException(str(error)) from error
            bits = (f"{row.bits[kind]:.3f}" for kind in KINDS)
            cells = (
                row.vocabulary,
                shape.layers,
                shape.width,
                shape.heads,
                f"{row.parameters:,}",
                f"{row.millions:.1f}",
            )
            click.echo(f"| {' | '.join(map(str, (*cells, *bits, f'{row.copied:.0%}')))} |")


if __name__ == "__main__":
    main()
