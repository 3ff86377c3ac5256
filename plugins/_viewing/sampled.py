"""The options of visualizers that draw tokens: those of `Lens.generate`, with the same defaults."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, Any

from onnxlens.plugins._options import Option
from onnxlens.plugins._viewing.visualizer import Visualizer

__all__ = ["Sampled", "described"]


@dataclass
class Sampled(Visualizer):
    """The base of visualizers that draw tokens."""

    temperature: Annotated[float, Option("divides the logits; 0 is greedy")] = 1.0
    top_k: Annotated[int | None, Option("choose among the k most probable tokens")] = None
    top_p: Annotated[
        float | None, Option("choose among the fewest most probable tokens whose probabilities add up to p")
    ] = None
    sampler: Annotated[str | None, Option("a chain of samplers as text, instead of these three")] = None
    seed: Annotated[int | None, Option("seed of the draws; if left out, one is drawn and named in the title", ge=0)] = (
        None
    )

    @functools.cached_property
    def sampling(self) -> dict[str, Any]:
        """The options for `Lens.generate`, with a seed, which is the same in every drawing."""
        from onnxlens._sampling import checked_seed

        options: dict[str, Any] = {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "sampler")}
        return {**options, "seed": checked_seed(self.seed)}


def described(sampling: dict[str, Any]) -> str:
    """The sampling options in words, such as `top_k=40, temperature=0.8, seed 3`."""
    stages = [f"{name}={sampling[name]}" for name in ("top_k", "top_p") if sampling[name] is not None]
    chain = sampling["sampler"] or ", ".join([*stages, f"temperature={sampling['temperature']:g}"])
    return f"{chain}, seed {sampling['seed']}"
