"""Activation caches whose values are the oracle's, rounded to float32: nothing has to be exported or run for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import oracle
from checkpoints import config_entries, family, random_weights, tokenizer

from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._bundle.model_facts import ModelFacts
from onnxlens.runtime._bundle.named_weights import NamedWeights

__all__ = ["Reading", "reading"]


@dataclass(frozen=True)
class Reading:
    """A cache, what is true of it, and what it was made from."""

    cache: ActivationCache
    true: dict[str, np.ndarray]
    config: dict[str, Any]
    weights: dict[str, np.ndarray]


class _Tokenizer:
    """As much of a tokenizer as the facts of a model need, without its file."""

    def __init__(self) -> None:
        self._fast = tokenizer()

    def encode(self, text: str) -> list[int]:
        return self._fast.encode(text).ids

    encode_word = encode

    def pieces(self, ids: list[int]) -> list[str]:
        return [self._fast.decode([token]) for token in ids]


@lru_cache
def _run(name: str, batch: int, length: int, padded: bool) -> tuple[Any, ...]:
    config = config_entries(name)
    weights = random_weights(config, seed=len(name))
    rng = np.random.default_rng(batch * 100 + length)
    ids = rng.integers(0, config["vocab_size"], (batch, length))
    mask = np.ones_like(ids)
    if padded:
        mask[0, : length // 2] = 0
    with np.errstate(invalid="ignore"):
        true = oracle.run(config, weights, ids, mask)
    for shared in (*weights.values(), *true.values()):
        shared.flags.writeable = False
    return config, weights, ids, mask, true


def reading(
    name: str = "base", *, batch: int = 2, length: int = 7, padded: bool = False, without: tuple[str, ...] = ()
) -> Reading:
    """Everything a model of `checkpoints.CONFIGS` computes on random ids, less hook points that end in `without`."""
    config, weights, ids, mask, true = _run(name, batch, length, padded)
    described = family(config).description()
    facts = ModelFacts(name, f"hash of {name}", described, NamedWeights(weights, described), _Tokenizer)  # type: ignore[arg-type]
    activations = {
        key: value.astype(np.float32)
        for key, value in true.items()
        if key != "logits" and not (without and key.endswith(without))
    }
    return Reading(ActivationCache(activations, ids, mask, facts=facts), true, config, weights)
