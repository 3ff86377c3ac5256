"""Sweeps over a model: a metric without each part, or with each part of another text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.analysis import ablate_heads, head_scores, patch_activations
from onnxlens.analysis._attention import distance_and_entropy
from onnxlens.metrics import AnyMetric, log_probability, logit_difference
from onnxlens.plugins.explorer._requests import Answer, SweepRequest
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["swept"]

_REPEATED = 50  # random tokens, before they repeat
_LARGEST_PASS = 2**28  # bytes of patterns that are read in one pass


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
        ablation = ablate_heads(lens, text, metric, hook=hook, layers=request.layers)
        return Answer({**facts, "baseline": ablation.baseline}, {"effects": _float32(-ablation.effects)})
    if request.other is None:
        raise InputError(f"The sweep {request.kind!r} needs another text, under 'other'.")
    hook = "z" if request.kind == "patch_heads" else request.kind.removeprefix("patch_")
    other = np.array([lens.tokenizer.encode(request.other)])
    patching = patch_activations(lens, text, other, metric, hook=hook, layers=request.layers)
    return Answer(
        {**facts, "baseline": patching.clean, "corrupted": patching.corrupted},
        {"effects": _float32(patching.recovered)},
    )


def _scores(lens: Lens, ids: list[int]) -> Answer:
    """How each head attends: to known patterns on random tokens that repeat, and how far and widely on this text."""
    length = min(_REPEATED, (lens.config.n_ctx - 1) // 2)
    heads = lens.config.n_layers * lens.config.n_heads
    # The patterns of all heads are read at once: fewer sequences in a pass where there are many heads.
    rows = min(8, max(1, _LARGEST_PASS // (4 * heads * (2 * length + 1) ** 2)))
    found = head_scores(lens, length=length, rows=rows)
    count = len(ids)
    distance, entropy = [], []
    together = max(1, _LARGEST_PASS // (4 * lens.config.n_heads * count**2))  # layers in a pass
    for start in range(0, lens.config.n_layers, together):
        layers = range(start, min(start + together, lens.config.n_layers))
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
        output = lens.run(np.array([ids]), names_filter=names, logits="none", keep_cache=False)
        for name in names:
            # Head by head: [P, P] float64 is large for a long text.
            of_heads = [distance_and_entropy(pattern) for pattern in output.activations[name][0]]
            distance.append([one for one, _ in of_heads])
            entropy.append([one for _, one in of_heads])
    arrays = {
        "induction": found.induction,
        "previous_token": found.previous,
        "duplicate_token": found.duplicate,
        "distance": np.array(distance),
        "entropy": np.array(entropy),
    }
    facts = {"token": -1, "against": None, "baseline": None, "accuracy": found.accuracy}
    return Answer(facts, {name: _float32(values) for name, values in arrays.items()})


def _float32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)
