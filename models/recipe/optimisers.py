"""The two optimisers of the training: Muon for the matrices inside the blocks, AdamW for everything else."""

__all__ = ["Optimisers", "Settings"]

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from recipe.checkpoint import CONTEXT


@dataclass(frozen=True)
class Settings:
    """Everything about the optimisation that can be chosen.

    Rates are those of AdamW: Muon's updates are scaled to the same root mean square (Liu et al. 2025,
    "Muon is Scalable for LLM Training"), so that one order of magnitude fits both.
    """

    rows: int = 16
    length: int = CONTEXT
    matrix_rate: float = 5e-3
    other_rate: float = 3e-3
    warm_up: int = 50  # steps
    decay: float = 0.7  # share of the budget over which the rates fall to zero
    weight_decay: float = 0.1
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    against_loops: float = 0.86  # share of the budget from which on every other step trains against loops, too
    seed: int = 0

    def scale(self, step: int, progress: float) -> float:
        """The share of the full rates at a step: a linear warm-up, a plateau, then a line down to zero.

        Args:
            step: Finished steps.
            progress: How much of the budget is used, from 0 to 1.
        """
        return min(1.0, (step + 1) / self.warm_up, (1 - progress) / self.decay)


class Optimisers:
    """Updates a GPT-2: each step orthogonalises the updates of block matrices and leaves the rest to AdamW.

    Muon is Jordan et al. 2024, AdamW is Loshchilov and Hutter 2019. Embeddings are matrices too, but their rows
    are looked up one by one, which Muon is not made for.

    Attributes:
        parts: Muon, then AdamW.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        """Sorts the parameters of a model by what updates them."""
        matrices: list[nn.Parameter] = []
        tables: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            kind = vectors if parameter.ndim == 1 else matrices if ".h." in name else tables
            kind.append(parameter)
        self._settings = settings
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices,
                lr=settings.matrix_rate,
                weight_decay=settings.weight_decay,
                momentum=settings.momentum,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                [
                    {"params": tables, "weight_decay": settings.weight_decay},
                    {"params": vectors, "weight_decay": 0.0},
                ],
                lr=settings.other_rate,
                betas=settings.betas,
                fused=True,
            ),
        ]
        self._full = [group["lr"] for part in self.parts for group in part.param_groups]
        self._parameters = [*matrices, *tables, *vectors]

    def step(self, scale: float) -> None:
        """Updates every parameter from its gradient, and drops the gradients.

        Args:
            scale: Share of the full learning rates.
        """
        torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.clip)
        groups = (group for part in self.parts for group in part.param_groups)
        for group, full in zip(groups, self._full, strict=True):
            group["lr"] = full * scale
        for part in self.parts:
            part.step()
            part.zero_grad()

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of both, to be saved."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Takes back what `state_dict` returned."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
