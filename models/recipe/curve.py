"""The loss curve of a training run: what was measured when, kept as numbers and drawn as a picture."""

__all__ = ["Curve", "smooth"]

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

DOTS = 150  # per inch


@dataclass
class Curve:
    """Losses of the training batches, and bits per byte of the held-out text of each kind.

    Attributes:
        losses: Nats per token of each step's batch, from step 1 on.
        bits: For each kind of held-out text, pairs of a step and the bits per byte measured after it.
    """

    losses: list[float] = field(default_factory=list)
    bits: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def held_out(self, step: int, kind: str, bits: float) -> None:
        """Adds a measurement of held-out text, in bits per byte."""
        self.bits.setdefault(kind, []).append((step, bits))

    def draw(self, path: Path, tokens_per_step: int) -> None:
        """Draws the loss on the left and bits per byte on the right, over the tokens seen.

        Args:
            path: Where the picture goes; its suffix decides the format.
            tokens_per_step: Tokens in a batch.
        """
        millions = tokens_per_step / 1e6
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        steps = np.arange(1, len(self.losses) + 1)
        losses = np.array(self.losses)
        left.plot(steps * millions, losses, color="#9ecae1", linewidth=0.5, label="each batch")
        left.plot(steps * millions, smooth(losses), color="#08519c", label="mean of 50 batches")
        left.set(xlabel="million tokens", ylabel="training loss, nats per token")
        for kind, points in self.bits.items():
            at, bits = np.array(points).T
            right.plot(at * millions, bits, marker=".", label=f"held-out {kind}")
        right.set(xlabel="million tokens", ylabel="bits per byte", ylim=(0, None))
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.legend()
        figure.savefig(path, dpi=DOTS)


def smooth(values: NDArray[np.float64], width: int = 50) -> NDArray[np.float64]:
    """The mean of the last `width` values at each point, of fewer at the start; both [N]."""
    sums = np.cumsum(values)
    before = np.concatenate([np.zeros(min(width, len(sums))), sums[:-width]])
    means: NDArray[np.float64] = (sums - before) / np.minimum(np.arange(1, len(sums) + 1), width)
    return means
