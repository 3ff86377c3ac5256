"""What an engine computes from a run besides its activations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens._sampling import checked_seed
from onnxlens.analysis import gradient_times_input, surprisal
from onnxlens.analysis._logit_attribution import parts_of_logit, parts_read
from onnxlens.analysis._source_attribution import effects_by_source
from onnxlens.metrics import logit_difference
from onnxlens.plugins._sampling.sampler import softmax
from onnxlens.plugins.explorer._addresses import Address
from onnxlens.plugins.explorer._costs import costs
from onnxlens.plugins.explorer._requests import RunRequest
from onnxlens.runtime import Intervention
from onnxlens.runtime._running.logits import top_ids
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens
    from onnxlens.plugins.explorer._guesses import Guesses
    from onnxlens.runtime._activations.cache import ActivationCache

__all__ = ["READS", "Run", "needed"]

_NEXT = 20  # tokens that `next` names at least
_PROMOTED = 10  # tokens that a direction promotes, and that it suppresses


@dataclass
class Run:
    """A run whose derived values are computed.

    Attributes:
        lens: the model.
        guesses: computes its logit lens.
        request: what was asked.
        ids: the text's token ids.
        row: the logits at the position that predicts, [V].
        cache: the activations at all positions, without the batch axis.
        near: those that are needed at the position that predicts, with the batch axis.
        place: the place of that position in `near`.
        token: the answer's id.
        against: the id of the token whose logit is subtracted.
        position: the position that predicts.
        edits: the interventions of the request.
        facts: plain values found.
        arrays: arrays found.
        named: ids of tokens that the answer names.
    """

    lens: Lens
    guesses: Guesses
    request: RunRequest
    ids: list[int]
    row: np.ndarray
    cache: ActivationCache
    near: ActivationCache
    place: int
    token: int
    against: int
    position: int
    edits: Sequence[Intervention]
    facts: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)

    @property
    def states(self) -> np.ndarray:
        """The stream before each block and after the last, [S, P, D]."""
        return np.stack([self.cache[name] for name in _states(self.lens)])


def _states(lens: Lens) -> list[str]:
    layers = lens.config.n_layers
    return [*(f"blocks.{layer}.hook_resid_pre" for layer in range(layers)), f"blocks.{layers - 1}.hook_resid_post"]


def _next(run: Run) -> None:
    """Logits of the next token over the full vocabulary, [V] float32, and the ids of the largest."""
    best = top_ids(run.row, min(max(run.request.top, _NEXT), len(run.row)))
    run.arrays["next.logits"] = run.row.astype(np.float32)
    run.arrays["next.ids"] = best.astype(np.int32)
    run.named.update(best.tolist())


def _guesses(run: Run) -> None:
    """The logit lens: ids and probabilities, [states, P, top], or [states, n, top] at the positions of the request."""
    if final := sorted(name for name in run.cache.changed if name.startswith("ln_final.")):
        raise InputError(f"The best guesses need the model's own final normalisation, but {final[0]!r} is edited.")
    request = run.request
    if request.positions is None:
        ids, shares = run.guesses.of(run.ids, run.states, request.top, keep=not request.edits)
    else:
        if outside := [one for one in request.positions if not 0 <= one < len(run.ids)]:
            raise InputError(f"positions must be from 0 to {len(run.ids) - 1}, not {outside[0]}.")
        ids, shares = run.guesses.at(run.states[:, request.positions], request.top)
    run.arrays["guesses.ids"], run.arrays["guesses.probabilities"] = ids, shares
    layers = run.lens.config.n_layers
    run.facts["states"] = [*(f"{layer}_pre" for layer in range(layers)), "final_post"]
    run.named.update(np.unique(ids).tolist())


def _effects(run: Run, neurons: bool = False) -> None:
    """Direct logit attribution: heads [L, H], MLPs [L], and the other parts, which add up to the difference."""
    row = run.row.astype(np.float64)
    found = parts_of_logit(
        run.lens,
        run.near,
        np.array(run.ids),
        row,
        run.token,
        run.against,
        run.position,
        pos_slice=run.place,
        neurons=neurons,
    )
    if neurons:
        assert found.neurons is not None
        run.arrays["neurons"] = found.neurons.astype(np.float32)
        return
    run.arrays["effects.heads"] = found.heads.astype(np.float32)
    run.arrays["effects.mlps"] = found.mlps.astype(np.float32)
    rest = {"embed": found.embed, "pos_embed": found.pos_embed, "biases": found.biases, "change": found.change}
    run.facts["effects"] = {**rest, "logit": found.logit}


def _sources(run: Run) -> None:
    """The direct effect of each head through each token, [L, H, P]."""
    near = copy.copy(run.near).remove_batch_dim()
    found = effects_by_source(run.lens, near, run.cache, run.token, run.against, run.place)
    run.arrays["sources"] = found.astype(np.float32)


def _ranks(run: Run) -> None:
    """The rank of the answer at the position in each state, 0 for the most probable, and its probability: [states]."""
    logits = run.guesses.logits(run.states[:, run.position : run.position + 1])[:, 0].astype(np.float64)  # [S, V]
    own = logits[:, run.token, np.newaxis]
    run.arrays["ranks"] = (logits > own).sum(-1).astype(np.int32)
    run.arrays["ranks.probabilities"] = (1 / np.exp(logits - own).sum(-1)).astype(np.float32)


def _norms(run: Run) -> None:
    """The length of the residual stream, [states, P]."""
    run.arrays["norms"] = np.linalg.norm(run.states, axis=-1).astype(np.float32)


def _surprisal(run: Run) -> None:
    """The surprisal of each token but the first in nats, and how many tokens were more probable: [P - 1]."""
    if len(run.ids) < 2:
        run.arrays["surprisal"], run.arrays["surprisal.ranks"] = np.empty(0, np.float32), np.empty(0, np.int32)
        return
    found = surprisal(run.lens, np.array(run.ids))
    run.arrays["surprisal"] = found.values.astype(np.float32)
    run.arrays["surprisal.ranks"] = found.rank.astype(np.int32)


def _edits(run: Run) -> None:
    """The edits as interventions with all their values, as `--intervene` reads them."""
    run.facts["edits"] = [one.to_dict() for one in run.edits]


def _neurons(run: Run) -> None:
    """The direct effect of each neuron, [L, d_mlp]."""
    _effects(run, neurons=True)


def _chain(run: Run) -> None:
    """How the sampler chain of the request chooses the next token, stage by stage."""
    seed = checked_seed(run.request.seed)
    found = run.lens.explain_sampling(np.array(run.ids), sampler=run.request.sampler, seed=seed)
    # The candidates that matter: the most probable ones of the model, those of the end, and the chosen one.
    ids = [*top_ids(found.logits[0], run.request.top).tolist(), *(one.id for one in found.candidates), found.chosen.id]
    ids = list(dict.fromkeys(ids))
    stages = []
    for stage, logits, left in zip(found.stages, found.logits, found.logits[1:], strict=False):
        before, after = softmax(logits[np.newaxis])[0], softmax(left[np.newaxis])[0]
        candidates = [
            {
                "id": one,
                "logit": float(left[one]) if np.isfinite(left[one]) else None,
                "before": float(before[one]),
                "after": float(after[one]),
            }
            for one in ids
        ]
        stages.append({**stage.to_dict(), "candidates": candidates})
    run.facts["chain"] = {
        "logits": [{"id": one, "logit": float(found.logits[0][one])} for one in ids],
        "stages": stages,
        "choice": found.choice,
        "tokens": found.tokens,
        "token": found.chosen.id,
        "probability": found.chosen.probability,
        "model_probability": found.chosen.model_probability,
        "number": found.number,
        "interval": list(found.interval),
        "seed": seed,
    }
    run.named.update(ids)


def _unembedded(run: Run) -> None:
    """The tokens that directions promote and suppress most.

    The logits of a direction x are `(x - mean(x)) * ln_final.w @ W_U`, without the mean where the final normalisation
    does not centre, and not divided by its scale, so they compare tokens but not directions.
    """
    lens = run.lens
    final = lens.runner.bundle.description.normalizations["ln_final"]
    promoted = []
    for direction in run.request.directions:
        address = Address.parse(direction)
        if address.name in lens.weights:
            vector = address.take(lens.weights[address.name])
        else:
            vector = address.take(run.cache[address.name])
        if vector.shape != (lens.config.d_model,):
            raise InputError(f"{direction} has the shape {list(vector.shape)}, not [{lens.config.d_model}].")
        logits = final.centred(vector.astype(np.float32)) * lens.weights["ln_final.w"] @ lens.weights["W_U"]  # [V]
        most, least = top_ids(logits, _PROMOTED), top_ids(-logits, _PROMOTED)
        promoted.append(
            {
                "direction": direction,
                "most": [{"id": one, "logit": float(logits[one])} for one in most.tolist()],
                "least": [{"id": one, "logit": float(logits[one])} for one in least.tolist()],
            }
        )
        run.named.update([*most.tolist(), *least.tolist()])
    run.facts["promoted"] = promoted


def _gradient(run: Run) -> None:
    """Gradient times input of each token for the logit difference, [P]."""
    metric = logit_difference(run.token, run.against, position=run.position)
    found = gradient_times_input(run.lens, np.array(run.ids), metric)
    run.arrays["gradient"] = next(iter(found.scores.values()))[0].astype(np.float32)


READS: dict[str, Callable[[Run], None]] = {
    "next": _next,
    "guesses": _guesses,
    "effects": _effects,
    "sources": _sources,
    "ranks": _ranks,
    "norms": _norms,
    "surprisal": _surprisal,
    "edits": _edits,
    "neurons": _neurons,
    "chain": _chain,
    "unembedded": _unembedded,
    "gradient": _gradient,
    "costs": costs,
}


def needed(lens: Lens, reads: list[str], directions: list[str]) -> tuple[list[str], list[str]]:
    """The hook points that derived values need, as globs: at all positions, and at the one that predicts."""
    every: list[str] = []
    near: list[str] = []
    if {"guesses", "ranks", "norms"}.intersection(reads):
        every += _states(lens)
    if "effects" in reads or "neurons" in reads:
        near += parts_read(lens, "neurons" in reads)
    if "sources" in reads:
        every.append("*.attn.hook_v")
        near += ["*.hook_pattern", "*.hook_z", "ln_final.hook_scale"]
    if "unembedded" in reads:
        parsed = (Address.parse(one).name for one in directions)
        every += [name for name in parsed if name not in lens.weights]
    return every, near
