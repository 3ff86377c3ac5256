"""Trains the small GPT-2 on the corpus: `python -m recipe.train`."""

__all__ = ["Budget", "evaluate", "train"]

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress
from torch.nn import functional
from transformers import GPT2LMHeadModel
from transformers import logging as transformers_logging

from recipe import checkpoint
from recipe.batches import IGNORED, Batches, bytes_per_token, windows
from recipe.corpus import KINDS, WORK
from recipe.curve import Curve
from recipe.optimisers import Optimisers, Settings
from recipe.unlikelihood import continued, unlikelihood

log = logging.getLogger(__name__)

PREFIXES = (8, 16, 32)  # tokens of text before a continuation that should not loop, in turn
CONTINUED = 100  # tokens of such a continuation


@dataclass
class Budget:
    """How long to train: for some minutes, or for a number of steps, which repeats exactly."""

    minutes: float
    steps: int | None = None
    step: int = 0
    spent: float = 0.0  # seconds, over all resumed runs
    _since: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Counts a finished step."""
        now = time.monotonic()
        self.step, self.spent, self._since = self.step + 1, self.spent + now - self._since, now

    @property
    def progress(self) -> float:
        """How much of the budget is used, from 0 to 1."""
        return min(1.0, self.step / self.steps if self.steps else self.spent / (60 * self.minutes))


@torch.no_grad()
def evaluate(model: GPT2LMHeadModel, work: Path, kind: str, length: int) -> tuple[float, float]:
    """Measures the model on the held-out text of one kind.

    Returns:
        The mean loss in nats per token, and bits per byte of text, both in float32.
    """
    rows, sizes = windows(work, kind, length), bytes_per_token(work)
    nats = 0.0
    for batch in torch.split(rows.to(model.device), 16):
        read, answers = batch[:, :-1], batch[:, 1:]
        nats += answers.numel() * _loss(model, read, answers, torch.ones_like(answers)).item()
    answers = rows[:, 1:]
    return nats / answers.numel(), nats / math.log(2) / float(sizes[answers].sum())


def train(
    work: Path,
    model: GPT2LMHeadModel,
    budget: Budget,
    settings: Settings,
    *,
    out: Path | None = None,
    resume: bool = False,
    bf16: bool = False,
    compiled: bool = False,
    save_minutes: float = 10,
    report: Callable[[Budget, float], None] = lambda budget, loss: None,
) -> None:
    """Trains a model until the budget is used, and writes the checkpoint folder now and then and at the end.

    Args:
        work: Folder that the corpus step wrote.
        model: The model, changed in place, on the device to train on.
        budget: How long.
        settings: How.
        out: Folder for the checkpoint, the state and the loss curve; the work folder unless it is given.
        resume: Whether to go on from the last checkpoint there.
        bf16: Whether to multiply matrices in bfloat16; weights stay float32.
        compiled: Whether to compile the model, which takes half a minute and a C++ compiler, and saves a third.
        save_minutes: How often to write the checkpoint and the loss curve and measure the held-out text.
        report: Called with the budget and the loss after each step.

    Raises:
        FileNotFoundError: If there is nothing to resume.
        ValueError: If what is resumed has used up the budget already or had other settings, or if the loss is no
            number any more.
    """
    out = out or work
    optimisers, curve = Optimisers(model, settings), Curve()
    if resume:
        state = checkpoint.resume(model, out)
        optimisers.load_state_dict(state["optimisers"])
        budget.step, budget.spent, curve = state["step"], state["spent"], Curve(**state["curve"])
        _same(state["settings"], asdict(settings))
        if budget.progress >= 1:
            raise ValueError(
                f"Nothing left to train: the checkpoint has had {budget.step} steps "
                f"in {budget.spent / 60:.1f} minutes. Give it a larger budget."
            )
    batches = Batches(work, settings.rows, settings.length, settings.seed)
    loss_of = torch.compile(_loss, dynamic=False) if compiled else _loss
    next_save = budget.spent + 60 * save_minutes
    model.train()
    while budget.progress < 1:
        read, answers, weights = (part.to(model.device) for part in batches(budget.step, budget.progress))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            loss = loss_of(model, read, answers, weights)
            torch.autograd.backward(loss)
            if budget.progress >= settings.against_loops and budget.step % 2:
                prefix = PREFIXES[budget.step // 2 % len(PREFIXES)]
                text = continued(model, batches.prefixes(budget.step, prefix).to(model.device), CONTINUED)
                torch.autograd.backward(unlikelihood(model, text, prefix))
        nats = loss.item()
        if not math.isfinite(nats):
            raise ValueError(f"The loss is {nats} at step {budget.step + 1}: lower the rates, or resume.")
        optimisers.step(settings.scale(budget.step, budget.progress))
        budget.tick()
        curve.losses.append(nats)
        report(budget, nats)
        if budget.spent >= next_save or budget.progress >= 1:
            for kind in KINDS:
                nats, bits = evaluate(model, work, kind, settings.length)
                curve.held_out(budget.step, kind, bits)
                log.info("step %d held out %s: loss %.4f, %.4f bits per byte", budget.step, kind, nats, bits)
            state = {"optimisers": optimisers.state_dict(), "step": budget.step, "spent": budget.spent}
            state |= {"curve": asdict(curve), "settings": asdict(settings)}
            checkpoint.save(model, work / "tokenizer.json", out, state)
            curve.draw(out / "loss.png", settings.rows * settings.length)
            next_save = budget.spent + 60 * save_minutes


def _same(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuses to go on with other settings."""
    for name, value in now.items():
        if before[name] != value:
            raise ValueError(
                f"The checkpoint was trained with {name} {before[name]}, and this run has {value}: "
                "give the same, or train without --resume."
            )


def _loss(model: GPT2LMHeadModel, read: torch.Tensor, answers: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross-entropy in nats of each answer given the tokens read up to there; all [rows, length].

    A small batch may ask for nothing; then the loss is 0.
    """
    logits = model(input_ids=read, use_cache=False).logits.float()  # [rows, length, vocabulary]
    nats = functional.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none", ignore_index=IGNORED)
    counted = weights.flatten() * (answers.flatten() != IGNORED)  # [rows * length]
    return (nats * counted).sum() / counted.sum().clamp(min=1)


class Reporter:
    """Shows how training goes: a bar on a terminal, a line every 50 steps in a pipe."""

    def __init__(self, bar: Progress, settings: Settings) -> None:
        self._bar, self._tokens = bar, settings.rows * settings.length
        self._task = bar.add_task("starting", total=1.0)
        self._mean: float | None = None

    def __call__(self, budget: Budget, loss: float) -> None:
        """Reports one finished step."""
        self._mean = loss if self._mean is None else 0.98 * self._mean + 0.02 * loss
        speed = self._tokens * budget.step / budget.spent
        line = f"step {budget.step}: loss {self._mean:.4f}, {speed:,.0f} tokens/s"
        self._bar.update(self._task, completed=budget.progress, description=line)
        if self._bar.disable and budget.step % 50 == 0:
            log.info("%s, %.1f minutes", line, budget.spent / 60)


@click.command()
@click.option("--steps", type=click.IntRange(1), default=6000, show_default=True, help="How many steps to train.")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), help="Train so long instead, all resumed runs together."
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the work folder.")
@click.option("--work", type=click.Path(path_type=Path), default=WORK, show_default=True, help="Corpus folder.")
@click.option("--layers", default=checkpoint.Shape.layers, show_default=True, help="Blocks.")
@click.option("--width", default=checkpoint.Shape.width, show_default=True, help="Width of the residual stream.")
@click.option("--heads", default=checkpoint.Shape.heads, show_default=True, help="Attention heads of a block.")
@click.option("--rows", default=Settings.rows, show_default=True, help="Windows of 256 tokens in a batch.")
@click.option("--threads", default=2, show_default=True, help="Processor threads for PyTorch.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where to train.")
@click.option("--bf16/--fp32", default=True, show_default=True, help="Precision of the matrix products.")
@click.option("--compile/--eager", "compiled", default=True, show_default=True, help="Whether to compile the model.")
def main(
    steps: int,
    minutes: float | None,
    resume: bool,
    work: Path,
    layers: int,
    width: int,
    heads: int,
    rows: int,
    threads: int,
    device: str,
    bf16: bool,
    compiled: bool,
) -> None:
    """Train the small GPT-2 and write a Hugging Face checkpoint and the loss curve into the work folder.

    The same number of steps gives the same weights every time on one processor; what a number of minutes gives depends
    on its speed. An interrupted run goes on with --resume from its last checkpoint, at most ten minutes back. On a GPU,
    --device cuda does in minutes what takes a processor more than an hour, up to rounding.
    """
    console = Console()
    handlers = [RichHandler(console=console)] if console.is_terminal else None
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(device == "cpu")  # at no cost there; without, sums are added in varying order
    settings = Settings(rows=rows)
    torch.manual_seed(settings.seed)
    try:
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("No CUDA device: this PyTorch sees none. Train with --device cpu.")
        model = checkpoint.new_model(work, checkpoint.Shape(layers, width, heads))
        torch.nn.Module.to(model, device)
        log.info("%s parameters, PyTorch %s, %s", f"{model.num_parameters():,}", torch.__version__, settings)
        with Progress(console=console, disable=not console.is_terminal) as bar:
            report, budget = Reporter(bar, settings), Budget(minutes or 0.0, None if minutes else steps)
            train(work, model, budget, settings, resume=resume, bf16=bf16, compiled=compiled, report=report)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
