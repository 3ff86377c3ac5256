"""Direct logit attribution: what each part of the model adds to a logit (Elhage et al. 2021; Wang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.analysis._sweeps import Text, one_text, one_token
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._result import Result
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens
    from onnxlens.runtime._activations.cache import ActivationCache

__all__ = ["LogitAttribution", "attribute_logit", "parts_of_logit", "parts_read"]


@dataclass(frozen=True, kw_only=True)
class LogitAttribution(Result):
    """The parts of a logit, or of a difference of two. They add up to it, to rounding.

    Attributes:
        heads: what each attention head adds, [layers, heads] float64.
        mlps: what each MLP adds, [layers] float64.
        embed: what the token embedding adds.
        pos_embed: what the position embedding adds; 0 where the model has none.
        biases: what the biases of attention add, and the bias of the final layer normalisation.
        change: what interventions and functions in a block of `Lens.hooks` add to the residual stream or to the sum of
            heads; else 0.
        neurons: what each neuron adds, [layers, neurons] float64, where that was asked for; the neurons of a block and
            its `b_out` add up to its MLP.
        logit: the logit that the model computed, or the difference.
        token: the token's id.
        against: the id of the token whose logit was subtracted, or None.
        position: the position that predicts.
        tokens: the text's token ids, [P].
    """

    heads: np.ndarray
    mlps: np.ndarray
    embed: float
    pos_embed: float
    biases: float
    neurons: np.ndarray | None
    logit: float
    token: int
    against: int | None
    position: int
    tokens: np.ndarray
    change: float = 0.0

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return float(self.heads.sum() + self.mlps.sum() + self.embed + self.pos_embed + self.biases + self.change)


def attribute_logit(
    lens: Lens,
    text: Text,
    token: int | str | None = None,
    against: int | str | None = None,
    *,
    position: int = -1,
    neurons: bool = False,
) -> LogitAttribution:
    """Takes a logit apart into what heads, MLPs and embeddings write to the residual stream in its direction.

    A part x adds `((x - mean(x)) / scale) @ (ln_final.w * W_U[:, token])`, where the scale is that of the final
    normalisation in this run; without the mean, where that does not centre.

    Args:
        lens: the model.
        text: a text, or its token ids.
        token: the token, by id or text; None for the most probable one.
        against: a token whose logit to subtract; None subtracts nothing.
        position: the position that predicts; negative ones count from the end.
        neurons: take MLPs apart into neurons, too.

    Raises:
        InputError: the text, a token or the position cannot be used; or a block of `Lens.hooks` makes a change after
            which the parts do not add up: after the final layer normalisation or, for neurons, at `hook_mlp_out`.
    """
    ids = one_text(lens, text, "attribute_logit")
    length = ids.shape[1]
    if not is_integer(position) or not -length <= position < length:
        raise InputError(f"position must be a whole number from {-length} to {length - 1}, not {position!r}.")
    logits, cache = lens.run_with_cache(ids, names_filter=parts_read(lens, neurons), pos_slice=position)
    row = logits[0, position].astype(np.float64)  # [V]
    chosen = int(row.argmax()) if token is None else one_token(lens, token)
    other = None if against is None else one_token(lens, against)
    return parts_of_logit(lens, cache, ids[0], row, chosen, other, position % length, neurons=neurons)


def parts_read(lens: Lens, neurons: bool = False) -> list[str]:
    """The hook points that `parts_of_logit` needs."""
    names = ["hook_*embed", "*.hook_z", "*.hook_mlp_out", "ln_final.hook_scale", *(["*.mlp.hook_post"] * neurons)]
    if lens.is_changed:  # the parts of a change are found from its result
        names += ["*.hook_result", f"blocks.{lens.config.n_layers - 1}.hook_resid_post"]
    return names


def parts_of_logit(
    lens: Lens,
    cache: ActivationCache,
    ids: np.ndarray,
    logits: np.ndarray,
    token: int,
    against: int | None,
    position: int,
    *,
    pos_slice: int | None = None,
    neurons: bool = False,
) -> LogitAttribution:
    """Takes a logit apart from what a run read; see `attribute_logit`.

    Args:
        lens: the model.
        cache: of one text, with its batch axis: the hook points of `parts_read`.
        ids: the text's token ids, [P].
        logits: those at the position, [V].
        token: the token's id.
        against: the id of the token whose logit to subtract, or None.
        position: the position that predicts.
        pos_slice: its place among the positions in the cache; None where that has no other.
        neurons: take MLPs apart into neurons, too.

    Raises:
        InputError: a change was made after which the parts do not add up.
    """
    if neurons and (found := sorted(name for name in cache.changed if name.endswith("hook_mlp_out"))):
        raise InputError(f"{found[0]!r} is changed, so neurons do not add up to their MLP; leave neurons out.")
    parts, labels = cache.get_full_resid_decomposition(
        expand_neurons=False, return_labels=True, pos_slice=pos_slice
    )  # [C, 1, 1, D], without the axis of positions where one was taken
    values = cache.logit_attrs(parts, token, against, pos_slice=pos_slice).astype(np.float64).reshape(len(parts))  # [C]
    count = lens.config.n_layers * lens.config.n_heads
    heads, mlps, _ = np.split(values, [count, count + lens.config.n_layers])
    rest = dict(zip(labels, values.tolist(), strict=True))
    bias = float(cache.logit_bias(token, against))
    each = None
    if neurons:
        weights = lens.weights
        direction = weights["W_U"][:, token] - (0 if against is None else weights["W_U"][:, against])
        results = cache.stack_neuron_results(
            apply_ln=True, project_output_onto=direction * weights["ln_final.w"], pos_slice=pos_slice
        )
        each = results.astype(np.float64).reshape(lens.config.n_layers, -1)  # [layers, neurons]
    return LogitAttribution(
        heads=heads.reshape(lens.config.n_layers, lens.config.n_heads),
        mlps=mlps,
        embed=rest["embed"],
        pos_embed=rest.get("pos_embed", 0.0),
        biases=rest["bias"] + bias,
        change=rest.get("change", 0.0),
        neurons=each,
        logit=float(logits[token] - (0 if against is None else logits[against])),
        token=token,
        against=against,
        position=position,
        tokens=ids,
    )
