"""The residual stream in a cache: what reads it where, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxlens.runtime._activations.slices import Slice, sliced
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.description import ModelDescription, Normalization
from onnxlens.runtime._bundle.shorthand import KeyNotFoundError
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens.runtime._activations.cache import ActivationCache

__all__ = [
    "blocks_before", "changes_before", "check_normalized", "config_of", "model_of", "normalization_at",
    "parts_before", "rows_of", "scale_of", "stream_at", "weights_of", "with_change",
]  # fmt: skip


def weights_of(cache: ActivationCache, what: str) -> Mapping[str, np.ndarray]:
    """The weights of the model, which `what` needs.

    Raises:
        InputError: the cache does not have them.
    """
    if cache.facts is None or cache.facts.weights is None:
        raise InputError(
            f"{what} needs the model's weights, which this cache does not have; attach them with "
            "cache.with_model(lens)."
        )
    return cache.facts.weights


def config_of(cache: ActivationCache, what: str) -> ModelConfig:
    """The shape and kind of the model, which `what` needs.

    Raises:
        InputError: the cache does not know its model.
    """
    if cache.facts is None:
        raise InputError(
            f"{what} needs to know the model, which this cache does not; attach it with cache.with_model(lens)."
        )
    return cache.facts.config


def model_of(cache: ActivationCache, what: str) -> ModelDescription:
    """The description of the model, which `what` needs; errors as in `config_of`."""
    config_of(cache, what)
    assert cache.facts is not None  # else `config_of` raised
    return cache.facts.model


def normalization_at(cache: ActivationCache, layer: int, mlp_input: bool) -> Normalization:
    """The normalisation that reads the stream at a place."""
    return model_of(cache, "a normalisation").normalizations[_norm(cache, layer, mlp_input)]


def _names_before(cache: ActivationCache, layer: int, mlp_input: bool, what: str) -> set[str]:
    """The hook points that are computed before the stream is read at a place."""
    model = model_of(cache, what)
    names = list(model.points)
    return set(names[: names.index(model.normalizations[_norm(cache, layer, mlp_input)].reads)])


def parts_before(cache: ActivationCache, layer: int, mlp_input: bool, what: str) -> list[str]:
    """The hook points of what is in the stream that is read at a place, in order."""
    computed = _names_before(cache, layer, mlp_input, what)
    return [name for name in model_of(cache, what).residual_stream.parts if name in computed]


def blocks_before(cache: ActivationCache, layer: int | None, what: str, *, mlp_input: bool = False) -> int:
    """How many blocks come before a place in the stream.

    Args:
        cache: the activations.
        layer: the block whose input is meant; the number of blocks, -1 or None for the final stream.
        what: what needs to know the model.
        mlp_input: the input of the block's MLP is meant.

    Raises:
        InputError: there is no such place, or the cache does not know its model.
    """
    blocks = config_of(cache, what).n_layers
    if layer is None or layer == -1:
        layer = blocks
    if not is_integer(layer) or not 0 <= layer <= blocks:
        raise InputError(f"layer must be 0 to {blocks}, or -1 or None for the final stream, not {layer!r}.")
    if mlp_input and layer == blocks:
        raise InputError(f"mlp_input is about a block's MLP; give a layer of 0 to {blocks - 1} with it.")
    return int(layer)


def stream_at(cache: ActivationCache, layer: int, mlp_input: bool = False) -> np.ndarray:
    """What a block, its MLP, or the final normalisation reads."""
    if mlp_input:
        return cache[normalization_at(cache, layer, mlp_input).reads]
    # One value under two names; either may have been read.
    names = [f"blocks.{layer}.hook_resid_pre"] if layer < config_of(cache, "the residual stream").n_layers else []
    if layer and not cache.changed.intersection(names):  # two values, where one of them was changed
        names.append(f"blocks.{layer - 1}.hook_resid_post")
    return cache[next((name for name in names if name in cache), names[0])]


def changes_before(
    cache: ActivationCache, layer: int, mlp_input: bool, *, heads: bool = False, neurons: bool = False
) -> list[str]:
    """The changed hook points that make the stream differ from the sum of its parts.

    Args:
        cache: the activations.
        layer: the block whose input is meant.
        mlp_input: the input of the block's MLP is meant.
        heads: attention is taken apart into heads.
        neurons: MLPs are taken apart into neurons.
    """
    model = model_of(cache, "the residual stream")
    sums = [
        f"blocks.{layer}.hook_resid_pre",
        normalization_at(cache, layer, mlp_input).reads,
        *model.residual_stream.states,
    ]
    sums += [name for name in model.residual_stream.parts if name.endswith("attn_out")] if heads else []
    sums += [name for name in model.residual_stream.parts if name.endswith("mlp_out")] if neurons else []
    reached = {*_names_before(cache, layer, mlp_input, "the residual stream"), *sums[:2]}
    return [name for name in model.points if name in sums and name in reached and name in cache.changed]


def with_change(
    cache: ActivationCache,
    stack: np.ndarray,
    labels: list[str],
    changes: Sequence[str],
    layer: int,
    mlp_input: bool,
    pos_slice: Slice,
    matrix: np.ndarray | None = None,
) -> np.ndarray:
    """Parts of the stream and the difference that changes made, with its label; projected if the parts are."""
    if not changes:
        return stack
    try:
        stream = sliced(stream_at(cache, layer, mlp_input), pos_slice, -2)
    except KeyNotFoundError as error:
        raise KeyNotFoundError(
            f"{changes[0]!r} was changed, so the stream differs from the sum of its parts, by how much is unknown: "
            f"{error}"
        ) from None
    rest = (stream if matrix is None else stream @ matrix) - stack.sum(axis=0)
    labels.append("change")
    return np.concatenate([stack, rest[np.newaxis]])


def check_normalized(cache: ActivationCache, layer: int, mlp_input: bool) -> None:
    """Checks that the output of a normalisation was not changed."""
    name = f"{_norm(cache, layer, mlp_input)}.hook_normalized"
    if name in cache.changed:
        raise InputError(
            f"{name!r} was changed, so it is not a sum of parts of the stream, and no part has a share in it."
        )


def _norm(cache: ActivationCache, layer: int, mlp_input: bool) -> str:
    """The name of the normalisation that reads the stream at a place."""
    final = layer == config_of(cache, "a normalisation").n_layers
    return "ln_final" if final else f"blocks.{layer}.ln{2 if mlp_input else 1}"


def scale_of(
    cache: ActivationCache, stack: np.ndarray, layer: int, mlp_input: bool, pos_slice: Slice, batch_slice: Slice
) -> np.ndarray:
    """The scale that divides the parts of the stream in a stack, [..., P, 1]."""
    scale = sliced(cache[f"{_norm(cache, layer, mlp_input)}.hook_scale"], pos_slice, -2)
    if cache.has_batch_dim:
        scale = sliced(scale, batch_slice, 0, "batch_slice")
    held, normalised = stack.shape[1:-1], scale.shape[:-1]
    if normalised not in (held, (1, *held)) and held != (1, *normalised):  # one row may have its axis or not
        raise InputError(
            f"A stack of shape {list(stack.shape)} does not fit scales of shape {list(scale.shape)}; give the "
            "pos_slice with which the stack was made."
        )
    return scale


def rows_of(cache: ActivationCache, stack: np.ndarray, batch_slice: Slice, has_batch_dim: bool | None) -> np.ndarray:
    """Rows of a stack [C, ..., D], where it has a batch axis.

    Raises:
        InputError: it is not a stack, or there are no such rows.
    """
    stack = np.asarray(stack)
    width = config_of(cache, "a stack").d_model
    if stack.ndim < 2 or stack.shape[-1] != width:
        raise InputError(f"A stack has the shape [components, ..., {width}], not {list(stack.shape)}.")
    batched = cache.has_batch_dim if has_batch_dim is None else has_batch_dim
    return sliced(stack, batch_slice, 1, "batch_slice") if batched else stack
