"""Trains the small GPT-2 on the corpus: `python -m onnxlens.models.train`."""

__all__ = ["Budget", "Settings", "evaluate", "train"]

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress
from torch.nn import functional
from transformers import GPT2LMHeadModel
from transformers import logging as transformers_logging

from onnxlens.models import checkpoint
from onnxlens.models.batches import Batches, bytes_per_token, windows
from onnxlens.models.corpus import KINDS, WORK

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Everything about the optimisation that can be chosen."""

    rows: int = 8
    length: int = checkpoint.CONTEXT
    learning_rate: float = 2e-3
    warm_up: float = 0.02  # share of the budget
    floor: float = 0.03  # share of the learning rate that is left at the end
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    seed: int = 0

    def rate(self, progress: float) -> float:
        """The learning rate: a linear warm-up, then half a cosine. Progress runs from 0 to 1."""
        if progress < self.warm_up:
            return self.learning_rate * max(progress / self.warm_up, 0.01)
        angle = math.pi * (progress - self.warm_up) / (1 - self.warm_up)
        return self.learning_rate * (self.floor + (1 - self.floor) * (1 + math.cos(angle)) / 2)


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


@torch.inference_mode()
def evaluate(model: GPT2LMHeadModel, work: Path, kind: str, length: int) -> tuple[float, float]:
    """Measures the model on the held-out text of one kind.

    Returns:
        The mean loss in nats per token, and bits per byte of text, both in float32.
    """
    rows, sizes = windows(work, kind, length), bytes_per_token(work)
    nats = sum(_loss(model, batch, reduction="sum").item() for batch in torch.split(rows, 16))
    answers = rows[:, 1:]
    return nats / answers.numel(), nats / math.log(2) / float(sizes[answers].sum())


def train(
    work: Path,
    model: GPT2LMHeadModel,
    budget: Budget,
    settings: Settings,
    *,
    resume: bool = False,
    bf16: bool = False,
    save_minutes: float = 4,
    report: Callable[[Budget, float], None] = lambda budget, loss: None,
) -> None:
    """Trains a model until the budget is used, and writes the checkpoint folder now and then and at the end.

    Args:
        work: Folder that the corpus step wrote.
        model: The model, changed in place.
        budget: How long.
        settings: How.
        resume: Whether to go on from the last checkpoint in the work folder.
        bf16: Whether to multiply matrices in bfloat16; weights stay float32.
        save_minutes: How often to write the checkpoint and measure the held-out text.
        report: Called with the budget and the loss after each step.

    Raises:
        FileNotFoundError: If there is nothing to resume.
        ValueError: If what is resumed has used up the budget already.
    """
    optimizer = torch.optim.AdamW(_parameter_groups(model, settings), betas=settings.betas, fused=True)
    if resume:
        state = checkpoint.resume(model, work)
        optimizer.load_state_dict(state["optimizer"])
        budget.step, budget.spent = state["step"], state["spent"]
        if budget.progress >= 1:
            raise ValueError(
                f"Nothing left to train: the checkpoint has had {budget.step} steps "
                f"in {budget.spent / 60:.1f} minutes. Give it a larger budget."
            )
    batches = Batches(work, settings.rows, settings.length, settings.seed)
    next_save = budget.spent + 60 * save_minutes
    model.train()
    while budget.progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(budget.progress)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = _loss(model, batches(budget.step))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        budget.tick()
        report(budget, loss.item())
        if budget.spent >= next_save or budget.progress >= 1:
            state = {"optimizer": optimizer.state_dict(), "step": budget.step, "spent": budget.spent}
            checkpoint.save(model, work, state)
            for kind in KINDS:
                nats, bits = evaluate(model, work, kind, settings.length)
                log.info("step %d held out %s: loss %.4f, %.4f bits per byte", budget.step, kind, nats, bits)
            next_save = budget.spent + 60 * save_minutes


def _loss(model: GPT2LMHeadModel, windows: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Cross-entropy in nats of each token given those before it; windows are ids [rows, length + 1]."""
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits  # [rows, length, vocabulary]
    logits, answers = logits.flatten(0, 1).float(), windows[:, 1:].flatten()  # [rows * length, ...]
    return functional.cross_entropy(logits, answers, reduction=reduction)


def _parameter_groups(model: GPT2LMHeadModel, settings: Settings) -> list[dict[str, object]]:
    """Decays matrices, not biases and gains."""
    parameters = list(model.parameters())
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim == 1]
    decay = settings.weight_decay
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


class Reporter:
    """Shows how training goes: a bar on a terminal, a line every 100 steps in a pipe."""

    def __init__(self, bar: Progress, settings: Settings) -> None:
        self._bar, self._tokens = bar, settings.rows * settings.length
        self._task = bar.add_task("starting", total=1.0)
        self._losses: deque[float] = deque(maxlen=100)

    def __call__(self, budget: Budget, loss: float) -> None:
        """Reports one finished step."""
        self._losses.append(loss)
        mean = sum(self._losses) / len(self._losses)
        speed = self._tokens * budget.step / budget.spent
        line = f"step {budget.step}: loss {mean:.4f}, {speed:,.0f} tokens/s"
        self._bar.update(self._task, completed=budget.progress, description=line)
        if self._bar.disable and budget.step % 100 == 0:
            log.info("%s, %.1f minutes", line, budget.spent / 60)


@click.command()
@click.option("--minutes", default=40.0, show_default=True, help="How long, all resumed runs together.")
@click.option("--steps", type=int, help="Train this many steps instead, which repeats exactly.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the work folder.")
@click.option("--work", type=click.Path(path_type=Path), default=WORK, show_default=True, help="Corpus folder.")
@click.option("--rows", default=Settings.rows, show_default=True, help="Windows of 256 tokens in a batch.")
@click.option("--rate", default=Settings.learning_rate, show_default=True, help="Highest learning rate.")
@click.option("--threads", default=2, show_default=True, help="Threads for PyTorch.")
@click.option("--bf16/--fp32", default=True, show_default=True, help="Precision of the matrix products.")
def main(
    minutes: float, steps: int | None, resume: bool, work: Path, rows: int, rate: float, threads: int, bf16: bool
) -> None:
    """Train the small GPT-2 and write a Hugging Face checkpoint into the work folder."""
    console = Console()
    handlers = [RichHandler(console=console)] if console.is_terminal else None
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(threads)
    settings = Settings(rows=rows, learning_rate=rate)
    torch.manual_seed(settings.seed)
    try:
        model = checkpoint.new_model(work)
        log.info("%s parameters, PyTorch %s, %s", f"{model.num_parameters():,}", torch.__version__, settings)
        with Progress(console=console, disable=not console.is_terminal) as bar:
            report = Reporter(bar, settings)
            train(work, model, Budget(minutes, steps), settings, resume=resume, bf16=bf16, report=report)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
