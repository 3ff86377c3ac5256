"""How far values may be from the truth: the float64 oracle, with PyTorch eager float32 for a yardstick.

The runner's largest error may be twice eager's own, plus one float32 ulp of the value's largest magnitude: where eager
happens to be exact (a lookup in a table), neither can be better than that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import oracle
import torch

from onnxlens.export.model import GPT2
from onnxlens.runtime.runner import Runner

__all__ = ["Errors", "Values"]

Values = dict[str, np.ndarray]
Change = Callable[[str, np.ndarray], np.ndarray]


def unchanged(name: str, value: np.ndarray) -> np.ndarray:
    """Leaves a value as it is."""
    return value


@contextmanager
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from threads, which wait for each other when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Eager:
    """A runner's model in PyTorch float32, without a graph."""

    def __init__(self, runner: Runner) -> None:
        self._config = runner.config
        self._weights = {name: torch.from_numpy(np.array(value)) for name, value in runner.bundle.weights.items()}
        if self._config.tie_word_embeddings:
            self._weights["lm_head.weight"] = self._weights["wte.weight"]
        self._model = GPT2(self._config).eval()
        self._model.load_state_dict(self._weights)

    def __call__(self, ids: np.ndarray, mask: np.ndarray, change: Change) -> Values:
        """All hook points and logits."""
        config, values = self._config, dict[str, torch.Tensor]()

        def changed(name: str, value: torch.Tensor) -> torch.Tensor:
            values[name] = torch.from_numpy(change(name, value.numpy()).astype(np.float32))
            return values[name]

        def tap(name: str, value: torch.Tensor) -> torch.Tensor:
            if name.endswith("hook_attn_out"):  # the results of the heads are on no path of the model
                layer = name.split(".")[1]
                z = values[f"blocks.{layer}.attn.hook_z"].transpose(1, 2)  # [B, H, P, d]
                w_o = self._weights[f"h.{layer}.attn.c_proj.weight"].reshape(config.n_head, config.d_head, -1)
                result = (z @ w_o).transpose(1, 2)  # [B, P, H, D]
                value = value + (changed(f"blocks.{layer}.attn.hook_result", result) - result).sum(2)
            return changed(name, value)

        nothing = torch.zeros(len(ids), config.n_head, 0, config.d_head)
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        with torch.inference_mode(), one_thread():
            arguments = (torch.from_numpy(array) for array in (ids, mask, positions))
            values["logits"], _ = self._model(*arguments, [(nothing, nothing)] * config.n_layer, tap)
        return {name: value.numpy() for name, value in values.items()}


def nudged(change: Change, seed: int) -> Change:
    """A change, and the residual stream before each block rounded another way: some values by one ulp."""
    rng = np.random.default_rng(seed)

    def one(name: str, value: np.ndarray) -> np.ndarray:
        value = change(name, value)
        if not name.endswith("hook_resid_pre"):
            return value
        return np.nextafter(value, value + rng.integers(-1, 2, value.shape).astype(value.dtype), dtype=value.dtype)

    return one


def real(name: str, value: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The values at positions that are not padding; for attention, those of queries that are not."""
    by_position = value.swapaxes(1, 2) if name.endswith(("hook_attn_scores", "hook_pattern")) else value
    return by_position[mask == 1]


def largest_error(found: np.ndarray, true: np.ndarray) -> float:
    """Masked scores are -inf on both sides, or the error is infinite."""
    same = (found == true) | (np.isneginf(found) & np.isneginf(true))
    return float(np.where(same, 0.0, np.abs(found - np.where(same, 0.0, true))).max())


class Errors:
    """The largest errors of a runner over several passes, and of eager PyTorch over the same.

    Args:
        runner: what is measured.
    """

    def __init__(self, runner: Runner) -> None:
        self._eager = Eager(runner)
        self._config = json.loads((runner.bundle.path / "config.json").read_text(encoding="utf-8"))
        self._weights = {name: value.astype(np.float64) for name, value in runner.bundle.weights.items()}
        self._ours: dict[str, float] = {}
        self._eagers: dict[str, float] = {}
        self._ulps: dict[str, float] = {}

    def add(
        self,
        found: Values,
        ids: np.ndarray,
        mask: np.ndarray,
        change: Change = unchanged,
        roundings: int = 0,
        groups: Mapping[str, list[int]] | None = None,
    ) -> None:
        """Measures what a pass found: hook points and logits, all of them.

        Args:
            found: values by name, [B, P, ...].
            ids: [B, P].
            mask: [B, P].
            change: what the pass changed, written the direct way: from a hook point's name and value to a new value.
            roundings: in how many other ways eager rounds, too: what an ulp in the residual stream already does is the
                model's own.
            groups: rows whose errors are compared apart from those of the others, by what they are called; so that none
                hides behind the larger errors of another. None for all together.
        """
        true = oracle.run(self._config, self._weights, ids, mask, change=change)
        changes = [change, *(nudged(change, seed) for seed in range(roundings))]
        references = [self._eager(ids, mask, one) for one in changes]
        assert set(found) == set(true) == set(references[0])
        for name, value in true.items():
            assert found[name].shape == value.shape, name
            for group, rows in ({"": list(range(len(ids)))} if groups is None else groups).items():
                key = f"{name} {group}".strip()
                exact = real(name, value[rows], mask[rows])
                magnitude = np.float32(np.abs(exact[np.isfinite(exact)]).max(initial=0))
                for errors, values in ((self._ours, found), *((self._eagers, reference) for reference in references)):
                    error = largest_error(real(name, values[name][rows], mask[rows]).astype(np.float64), exact)
                    errors[key] = max(errors.get(key, 0.0), error)
                self._ulps[key] = max(self._ulps.get(key, 0.0), float(np.spacing(magnitude)))

    def too_large(self, ulps: int = 1) -> dict[str, str]:
        """The names whose error is more than twice eager's.

        Args:
            ulps: how many float32 ulps of the value's largest magnitude are allowed beyond that; over few values, eager
                can be exact by luck.
        """
        return {
            name: f"{ours:.2e} where eager has {self._eagers[name]:.2e}"
            for name, ours in self._ours.items()
            if not ours <= 2 * self._eagers[name] + ulps * self._ulps[name]
        }
