"""What each part of the residual stream does to a logit: direct logit attribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxlens.runtime._activations.slices import Slice
from onnxlens.runtime._activations.stream import (
    check_normalized,
    config_of,
    normalization_at,
    rows_of,
    scale_of,
    weights_of,
)
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens.runtime._activations.cache import ActivationCache

__all__ = ["Tokens", "logit_attrs", "logit_bias", "logit_direction"]

Tokens = str | int | np.ndarray | list[int] | list[list[int]]


def logit_attrs(
    cache: ActivationCache,
    residual_stack: np.ndarray,
    tokens: Tokens,
    incorrect_tokens: Tokens | None = None,
    pos_slice: Slice = None,
    batch_slice: Slice = None,
    has_batch_dim: bool | None = None,
) -> np.ndarray:
    """What each part of the final stream contributes to the logits of given tokens, or to differences of logits.

    A part x contributes `((x - mean(x)) / scale) @ (ln_final.w * W_U[:, token])`, without the mean where the final
    normalisation does not centre. The contributions of all parts and `logit_bias` add up to the logit.
    TransformerLens leaves out `ln_final.w`, and so agrees where it has folded that into `W_U`.

    Args:
        residual_stack: [C, ..., D], such as `decompose_resid()` returns; without `apply_ln`.
        tokens: a token's text or id; or ids: [B] for each row, [P] for each position (where P is not B), or
            [B, P] or [1, P].
        incorrect_tokens: of the same shape, to subtract.
        pos_slice: positions that the stack holds.
        batch_slice: rows to take.
        has_batch_dim: whether the stack has a batch axis; None for as the cache has.

    Returns:
        [C, ...].

    Raises:
        HookPointError: `ln_final.hook_scale` was not read.
        InputError: a token is out of range or text is not one token, shapes do not fit, the cache does not know its
            model's weights, or `ln_final.hook_normalized` was changed, so that it is not a sum of parts.
    """
    weights_of(cache, "logit_attrs")
    layers = config_of(cache, "logit_attrs").n_layers
    check_normalized(cache, layers, False)
    stack = rows_of(cache, residual_stack, batch_slice, has_batch_dim)
    direction = logit_direction(cache, tokens, incorrect_tokens)  # [D], or [B, D], [P, D], [B, P, D]
    batched = cache.has_batch_dim if has_batch_dim is None else has_batch_dim
    if batched and stack.ndim == 4 and direction.ndim == 2 and len(direction) == stack.shape[1]:
        direction = direction[:, np.newaxis]  # [B, 1, D]: one token for all positions of a row
    scale = scale_of(cache, stack, layers, False, pos_slice, batch_slice)
    try:
        attributions: np.ndarray = np.einsum("...d,...d->...", stack, direction)
        attributions = attributions / scale[..., 0]
    except ValueError as error:
        raise InputError(
            f"tokens of shape {list(direction.shape[:-1])} do not fit a stack of shape {list(stack.shape)} and "
            f"scales of shape {list(scale.shape[:-1])}; give one token, one per row, or one per row and position."
        ) from error
    return attributions


def logit_direction(cache: ActivationCache, tokens: Tokens, incorrect_tokens: Tokens | None = None) -> np.ndarray:
    """The direction u of the final stream for which `x @ u / scale` is what a part x contributes to a logit.

    It is `ln_final.w * W_U[:, token]`, without its mean where the final normalisation centres:
    `(x - mean(x)) @ u = x @ (u - mean(u))`, which copies no stack.

    Args:
        tokens: a token's text or id, or ids.
        incorrect_tokens: of the same shape, to subtract.

    Returns:
        [D] for each token, in the shape of `tokens`.

    Raises:
        InputError: a token is out of range or text is not one token, or the cache does not know its model's weights.
    """
    weights = weights_of(cache, "logit_direction")
    direction = _difference(cache, weights["unembed.W_U"].T, tokens, incorrect_tokens) * weights["ln_final.w"]
    layers = config_of(cache, "logit_direction").n_layers
    return normalization_at(cache, layers, False).centred(direction)


def logit_bias(cache: ActivationCache, tokens: Tokens, incorrect_tokens: Tokens | None = None) -> np.ndarray:
    """The constant part of logits, or of their differences: `ln_final.b @ W_U[:, token] + b_U`.

    Args:
        tokens: a token's text or id, or ids.
        incorrect_tokens: of the same shape, to subtract.

    Returns:
        A number for each token, in the shape of `tokens`.

    Raises:
        InputError: a token is out of range or text is not one token, or the cache does not know its model's weights.
    """
    weights = weights_of(cache, "logit_bias")
    direction = _difference(cache, weights["unembed.W_U"].T, tokens, incorrect_tokens)
    bias = _difference(cache, weights["unembed.b_U"][:, np.newaxis], tokens, incorrect_tokens)[..., 0]
    if "ln_final.b" not in weights:
        return bias
    result: np.ndarray = np.asarray(direction @ weights["ln_final.b"] + bias)
    return result


def _difference(
    cache: ActivationCache, rows: np.ndarray, tokens: Tokens, incorrect_tokens: Tokens | None
) -> np.ndarray:
    """Rows of a matrix [V, n] by token, minus those of other tokens."""
    ids = _token_ids(cache, tokens)
    result: np.ndarray = rows[ids]
    if incorrect_tokens is not None:
        others = _token_ids(cache, incorrect_tokens)
        if others.shape != ids.shape:
            raise InputError(
                f"tokens and incorrect_tokens must have one shape, not {list(ids.shape)} and {list(others.shape)}."
            )
        result = result - rows[others]
    return result


def _token_ids(cache: ActivationCache, tokens: Tokens) -> np.ndarray:
    if isinstance(tokens, str):
        assert cache.facts is not None  # as the weights, which the caller has
        return np.asarray(cache.facts.token(tokens))
    size = config_of(cache, "a token's direction").d_vocab
    try:
        ids = np.asarray(tokens)
    except ValueError as error:
        raise InputError("The rows of tokens have different lengths.") from error
    if not np.issubdtype(ids.dtype, np.integer) or ids.ndim > 2:
        raise InputError(f"tokens must be a token's text or id, or ids of shape [B], [P] or [B, P], not {tokens!r}.")
    outside = (ids < 0) | (ids >= size)
    if outside.any():
        raise InputError(f"Token id {ids[outside][0]} is out of range: this model's ids are 0 to {size - 1}.")
    return ids
