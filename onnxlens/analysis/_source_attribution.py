"""Direct logit attribution by source token: what each head moves from each token to a logit (Elhage et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.analysis._sweeps import Text, one_text, one_token
from onnxlens.runtime._activations.attribution import logit_direction
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime._result import Result
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens
    from onnxlens.runtime._activations.cache import ActivationCache

__all__ = ["SourceAttribution", "attribute_sources", "effects_by_source"]


@dataclass(frozen=True, kw_only=True)
class SourceAttribution(Result):
    """The direct effect of each head on a logit, or on a difference of two, by the token that it reads.

    Attributes:
        values: the effect of each head through each key position, [layers, heads, P] float64; their sum over positions
            is `LogitAttribution.heads`. A head whose output is replaced, in a block of `Lens.hooks`, reads no token:
            its values are 0.
        token: the token's id.
        against: the id of the token whose logit was subtracted, or None.
        position: the position that predicts, which is the query.
        tokens: the text's token ids, [P].
        axes: of `values`.
    """

    values: np.ndarray
    token: int
    against: int | None
    position: int
    tokens: np.ndarray
    axes: tuple[str, ...] = ("layer", "head", "key_pos")


def attribute_sources(
    lens: Lens,
    text: Text,
    token: int | str | None = None,
    against: int | str | None = None,
    *,
    position: int = -1,
) -> SourceAttribution:
    """Takes the direct effect of each head on a logit apart by source token.

    Head h at query q moves `A[q, k] * (v_k @ W_O[h])` from token k to the residual stream, whose effect on the logit is
    its product with `(u - mean(u)) / scale`, where u is `ln_final.w * W_U[:, token]` and the scale is that of the final
    normalisation; without the mean, if that does not centre.

    Args:
        lens: the model.
        text: a text, or its token ids.
        token: the token, by id or text; None for the most probable one.
        against: a token whose logit to subtract; None subtracts nothing.
        position: the position that predicts; negative ones count from the end.

    Raises:
        InputError: the text, a token or the position cannot be used.
    """
    ids = one_text(lens, text, "attribute_sources")
    length = ids.shape[1]
    if not is_integer(position) or not -length <= position < length:
        raise InputError(f"position must be a whole number from {-length} to {length - 1}, not {position!r}.")
    position %= length
    # Two passes: patterns of one query take little memory, but values are needed at all positions.
    logits, cache = lens.run_with_cache(
        ids,
        names_filter=["*.hook_pattern", "*.hook_z", "ln_final.hook_scale"],
        pos_slice=position,
        remove_batch_dim=True,
    )
    _, values = lens.run_with_cache(ids, names_filter="*.attn.hook_v", remove_batch_dim=True)
    chosen = int(logits[0, position].argmax()) if token is None else one_token(lens, token)
    other = None if against is None else one_token(lens, against)
    found = effects_by_source(lens, cache, values, chosen, other)
    return SourceAttribution(values=found, token=chosen, against=other, position=position, tokens=ids[0])


def effects_by_source(
    lens: Lens, cache: ActivationCache, values: ActivationCache, token: int, against: int | None, position: int = 0
) -> np.ndarray:
    """Computes the direct effect of each head through each token from what a run read.

    Args:
        lens: the model, and what changes its runs.
        cache: of one text without its batch axis: `hook_pattern`, `hook_z` and `ln_final.hook_scale`.
        values: the `hook_v` of all positions.
        token: the token's id.
        against: the id of the token whose logit to subtract, or None.
        position: the query, as `cache` counts its positions.

    Returns:
        [layers, heads, P] float64.
    """
    config, weights = lens.config, lens.weights
    direction = logit_direction(cache, token, against).astype(np.float64)  # [D]
    direction /= cache["ln_final.hook_scale"][position].astype(np.float64).item()
    length = len(values["v", 0])
    found = np.empty((config.n_layers, config.n_heads, length))
    for layer in range(config.n_layers):
        read = weights[f"blocks.{layer}.attn.W_O"] @ direction  # [H, d]
        carried = values["v", layer].astype(np.float64)  # [P, K, d]
        carried = np.repeat(carried, config.n_heads // carried.shape[1], axis=1)  # [P, H, d]
        weight = cache["pattern", layer][:, position].astype(np.float64)  # [H, P]
        found[layer] = weight * np.einsum("phd,hd->hp", carried, read)
        if lens.is_changed:
            gathered = np.einsum("hp,phd->hd", weight, carried)
            found[layer] *= _share(cache["z", layer][position].astype(np.float64), gathered)[:, np.newaxis]
    return found


def _share(outputs: np.ndarray, gathered: np.ndarray) -> np.ndarray:
    """By how much each head's output, [H, d], is a multiple of what it gathered; 0 if it is not a multiple of it."""
    square = (gathered**2).sum(-1)
    share = (outputs * gathered).sum(-1) / np.where(square > 0, square, 1)
    error = np.linalg.norm(outputs - share[:, np.newaxis] * gathered, axis=-1)
    scale = np.linalg.norm(outputs, axis=-1) + np.sqrt(square)
    return np.where(error <= 1e-4 * scale, share, 0.0)
