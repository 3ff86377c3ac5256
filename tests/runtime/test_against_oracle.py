"""Every hook point and the logits against the float64 oracle, measured with PyTorch eager float32 as the yardstick.

The runner's largest error may be twice eager's own, plus one float32 ulp of the value's largest magnitude: where eager
happens to be exact (a lookup in a table), neither can be better than that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import oracle
import pytest
import torch
from checkpoints import CONFIGS

from onnxlens.catalog import SHIPPED, places
from onnxlens.export.model import GPT2
from onnxlens.runtime.runner import Runner

Values = dict[str, np.ndarray]


def eager(runner: Runner, ids: np.ndarray, mask: np.ndarray) -> Values:
    """All hook points and logits from PyTorch in float32, without a graph."""
    model = GPT2(runner.config).eval()
    weights = {name: torch.from_numpy(np.array(value)) for name, value in runner.bundle.weights.items()}
    if runner.config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["wte.weight"]
    model.load_state_dict(weights)
    values: dict[str, torch.Tensor] = {}

    def tap(name: str, value: torch.Tensor) -> torch.Tensor:
        values[name] = value
        return value

    config = runner.config
    nothing = torch.zeros(len(ids), config.n_head, 0, config.d_head)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    with torch.inference_mode():
        arguments = (torch.from_numpy(array) for array in (ids, mask, positions))
        values["logits"], _ = model(*arguments, [(nothing, nothing)] * config.n_layer, tap)
        for layer in range(config.n_layer):
            z = values[f"blocks.{layer}.attn.hook_z"].transpose(1, 2)  # [B, H, P, d]
            w_o = weights[f"h.{layer}.attn.c_proj.weight"].reshape(config.n_head, config.d_head, -1)
            values[f"blocks.{layer}.attn.hook_result"] = (z @ w_o).transpose(1, 2)  # [B, P, H, D]
    return {name: value.numpy() for name, value in values.items()}


def batches(runner: Runner, *, padded: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and masks of several lengths; the largest error over all of them is what is compared."""
    rng = np.random.default_rng(7)
    limit = min(runner.config.n_positions, 40)
    for length in (1, 2, 7, 16, limit):
        ids = rng.integers(0, runner.config.vocab_size, (4, length))
        mask = np.ones_like(ids)
        if padded:
            for row, padding in enumerate(rng.integers(0, length, 4)):
                mask[row, :padding] = 0
        yield ids, mask


def real(name: str, value: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The values at positions that are not padding; for attention, those of queries that are not."""
    by_position = value.swapaxes(1, 2) if name.endswith(("hook_attn_scores", "hook_pattern")) else value
    return by_position[mask == 1]


def largest_error(found: np.ndarray, true: np.ndarray) -> float:
    """Masked scores are -inf on both sides, or the error is infinite."""
    same = (found == true) | (np.isneginf(found) & np.isneginf(true))
    return float(np.where(same, 0.0, np.abs(found - np.where(same, 0.0, true))).max())


def check(runner: Runner, *, padded: bool) -> None:
    config = json.loads((runner.bundle.path / "config.json").read_text(encoding="utf-8"))
    weights = {name: value.astype(np.float64) for name, value in runner.bundle.weights.items()}
    ours: dict[str, float] = {}
    eagers: dict[str, float] = {}
    ulps: dict[str, float] = {}
    for ids, mask in batches(runner, padded=padded):
        true = oracle.run(config, weights, ids, mask)
        output = runner.run(ids, mask, names_filter="*")
        found = {**output.activations, "logits": output.logits}
        reference = eager(runner, ids, mask)
        assert set(found) == set(true) == set(reference)
        for name, value in true.items():
            assert found[name].shape == value.shape, name
            exact = real(name, value, mask)
            magnitude = np.float32(np.abs(exact[np.isfinite(exact)]).max(initial=0))
            for errors, values in ((ours, found), (eagers, reference)):
                error = largest_error(real(name, values[name], mask).astype(np.float64), exact)
                errors[name] = max(errors.get(name, 0.0), error)
            ulps[name] = max(ulps.get(name, 0.0), float(np.spacing(magnitude)))
    too_large = {
        name: f"{ours[name]:.2e} where eager has {eagers[name]:.2e}"
        for name in ours
        if not ours[name] <= 2 * eagers[name] + ulps[name]
    }
    assert not too_large


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # -inf minus -inf, masked out after
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", [*CONFIGS, "base-float16", "untied-float16"])
def test_no_hook_point_is_further_from_the_truth_than_twice_eager_pytorch(runner, name, padded):
    check(runner(name), padded=padded)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_the_trained_model_is_no_further_from_the_truth_than_twice_eager_pytorch():
    folder = places()["shipped"] / SHIPPED
    check(Runner(folder, provider="cpu", threads=1), padded=True)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("name", ["hook_embed", "blocks.1.attn.hook_pattern", "blocks.0.attn.hook_result", "logits"])
def test_an_error_of_a_hundred_thousandth_would_be_noticed(runner, name):
    class Skewed(Runner):
        def run(self, *args, **options):
            output = super().run(*args, **options)
            value = output.logits if name == "logits" else output.activations[name]
            value *= np.float32(1 + 1e-5)
            return output

    with pytest.raises(AssertionError, match=name):
        check(Skewed(runner("base").bundle, provider="cpu", threads=1), padded=False)
