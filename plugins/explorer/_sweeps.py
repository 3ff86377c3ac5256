"""Sweeps over a model: a metric without each part, or with each part of another text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.analysis import ablate_heads, head_scores, patch_activations
from onnxlens.metrics import AnyMetric, log_probability, logit_difference
from onnxlens.plugins.explorer._requests import Answer, SweepRequest
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["swept"]


def swept(lens: Lens, ids: list[int], request: SweepRequest) -> Answer:
    """Runs a sweep; its kinds are described in `web/src/engine/types.ts`.

    Args:
        lens: the model, with the edits of the request.
        ids: the text's token ids.
        request: what was asked.

    Raises:
        OnnxLensError: a token or the other text cannot be used.
    """
    if request.kind == "head_scores":
        return _scores(lens, ids)
    token = request.token
    if token is None:
        token = int(lens.predict(np.array(ids)).logits.argmax())
    metric: AnyMetric = log_probability(token) if request.against is None else logit_difference(token, request.against)
    facts: dict[str, Any] = {"token": token, "against": request.against}
    text = np.array([ids])
    if request.kind in ("ablate_heads", "ablate_mlps"):
        hook = "z" if request.kind == "ablate_heads" else "mlp_out"
        ablation = ablate_heads(lens, text, metric, hook=hook)
        return Answer({**facts, "baseline": ablation.baseline}, {"effects": _float32(-ablation.effects)})
    if request.other is None:
        raise InputError(f"The sweep {request.kind!r} needs another text, under 'other'.")
    hook = "z" if request.kind == "patch_heads" else request.kind.removeprefix("patch_")
    patching = patch_activations(lens, text, np.array([lens.tokenizer.encode(request.other)]), metric, hook=hook)
    return Answer(
        {**facts, "baseline": patching.clean, "corrupted": patching.corrupted},
        {"effects": _float32(patching.recovered)},
    )


def _scores(lens: Lens, ids: list[int]) -> Answer:
    """How each head attends: to known patterns on random tokens that repeat, and how far and widely on this text."""
    length = min(50, (lens.config.n_ctx - 1) // 2)
    found = head_scores(lens, length=length)
    distance, entropy = [], []
    for layer in range(lens.config.n_layers):
        _, cache = lens.run_with_cache(
            np.array(ids), names_filter=f"blocks.{layer}.attn.hook_pattern", remove_batch_dim=True
        )
        pattern = cache["pattern", layer].astype(np.float64)  # [H, P, P]
        places = np.arange(len(ids))
        back = (places[:, np.newaxis] - places).clip(0)  # [P, P]
        distance.append((pattern * back).sum(-1).mean(-1))
        logs = np.log(np.where(pattern > 0, pattern, 1))
        entropy.append(-(pattern * logs).sum(-1).mean(-1))
    arrays = {
        "induction": found.induction,
        "previous_token": found.previous,
        "duplicate_token": found.duplicate,
        "distance": np.stack(distance),
        "entropy": np.stack(entropy),
    }
    facts = {"token": -1, "against": None, "baseline": None, "accuracy": found.accuracy}
    return Answer(facts, {name: _float32(values) for name, values in arrays.items()})


def _float32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)
