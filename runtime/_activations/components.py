"""The residual stream by head and by neuron.

A head adds `z @ W_O` to the stream, a neuron its activation times its row of `W_out` (Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits"). Names, arguments, order and labels are TransformerLens's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlens.runtime._activations.residual import apply_ln_to_stack
from onnxlens.runtime._activations.slices import Slice, sliced
from onnxlens.runtime._activations.stream import (
    blocks_before,
    changes_before,
    config_of,
    model_of,
    normalization_at,
    scale_of,
    stream_at,
    weights_of,
    with_change,
)
from onnxlens.runtime._bundle.shorthand import KeyNotFoundError
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens.runtime._activations.cache import ActivationCache

__all__ = [
    "get_full_resid_decomposition", "get_neuron_results", "stack_head_results", "stack_neuron_results",
]  # fmt: skip


def stack_head_results(
    cache: ActivationCache,
    layer: int | None = -1,
    return_labels: bool = False,
    incl_remainder: bool = False,
    pos_slice: Slice = None,
    apply_ln: bool = False,
) -> Any:
    """Stacks what each attention head adds to the stream.

    It is `hook_result` where that was read, else `hook_z` times `W_O`. The heads of a block and its `b_O` add up
    to the block's `hook_attn_out`, unless that was changed: it comes after the heads.

    Args:
        layer: the heads of the blocks before this one; -1 or None for all.
        return_labels: return the labels, too: `L0H0`, `remainder`.
        incl_remainder: end with the rest of the stream that `layer` reads.
        pos_slice: positions to take.
        apply_ln: see `apply_ln_to_stack`.

    Returns:
        [C, ..., D], or that and C labels.

    Raises:
        HookPointError: neither `hook_result` nor `hook_z` of a block was read, or `hook_result` was changed and not
            read.
        InputError: an argument is out of range, or the cache does not know its model's weights.
    """
    layer = blocks_before(cache, layer, "stack_head_results")
    heads = range(config_of(cache, "stack_head_results").n_heads)
    labels = [f"L{n}H{head}" for n in range(layer) for head in heads]
    each = [_heads(cache, n, pos_slice, None) for n in range(layer)]
    stack = _joined(cache, each, layer, False, pos_slice, incl_remainder, labels, None)
    if apply_ln:
        stack = apply_ln_to_stack(cache, stack, layer, False, pos_slice)
    return (stack, labels) if return_labels else stack


def get_neuron_results(
    cache: ActivationCache,
    layer: int,
    neuron_slice: Slice = None,
    pos_slice: Slice = None,
    project_output_onto: np.ndarray | None = None,
) -> np.ndarray:
    """What each neuron of a block adds to the stream: its activation times its row of `W_out`.

    Args:
        layer: the block.
        neuron_slice: neurons to take.
        pos_slice: positions to take.
        project_output_onto: [D] or [D, n]: return the products with these directions in place of the vectors, which
            takes D times less memory.

    Returns:
        [..., neurons, D]; projected [..., neurons, n], or [..., neurons] onto one direction. A number as
        `neuron_slice` drops that axis.

    Raises:
        HookPointError: the block's `mlp.hook_post` was not read, or there is no such block.
        InputError: an argument is out of range, or the cache does not know its model's weights.
    """
    weights, config = weights_of(cache, "get_neuron_results"), config_of(cache, "get_neuron_results")
    directions = _directions(project_output_onto, config.d_model)
    post = sliced(sliced(cache["post", layer], pos_slice, -2), neuron_slice, -1, "neuron_slice")
    layer = layer + config.n_layers * (layer < 0)
    rows = sliced(weights[f"blocks.{layer}.mlp.W_out"], neuron_slice, 0, "neuron_slice")  # [neurons, D]
    if directions is not None:
        rows = rows @ directions  # [neurons, n]
    result: np.ndarray = post[..., np.newaxis] * rows  # [..., neurons, D or n]
    return result[..., 0] if _is_one(project_output_onto) else result


def stack_neuron_results(
    cache: ActivationCache,
    layer: int | None = -1,
    pos_slice: Slice = None,
    neuron_slice: Slice = None,
    return_labels: bool = False,
    incl_remainder: bool = False,
    apply_ln: bool = False,
    project_output_onto: np.ndarray | None = None,
    mlp_input: bool = False,
) -> Any:
    """Stacks what each neuron adds to the stream; large unless projected.

    Args:
        layer: the neurons of the blocks before this one; -1 or None for all.
        pos_slice: positions to take.
        neuron_slice: neurons to take in each block.
        return_labels: return the labels, too: `L0N0`, `remainder`.
        incl_remainder: end with the rest of the stream that `layer` reads.
        apply_ln: see `apply_ln_to_stack`.
        project_output_onto: [D] or [D, n]: return the products with these directions in place of the vectors.
        mlp_input: `layer` reads with its MLP, which concerns the remainder and the layer normalisation.

    Returns:
        [C, ..., D], projected [C, ..., n] or [C, ...]; or that and C labels.

    Raises:
        HookPointError: a block's `mlp.hook_post` was not read.
        InputError: an argument is out of range, or the cache does not know its model's weights.
    """
    layer = blocks_before(cache, layer, "stack_neuron_results", mlp_input=mlp_input)
    matrix = _matrix(cache, project_output_onto, apply_ln)
    chosen = neuron_slice if not isinstance(neuron_slice, int | np.integer) else [int(neuron_slice)]
    numbers = sliced(np.arange(config_of(cache, "stack_neuron_results").d_mlp), chosen, 0, "neuron_slice")
    labels = [f"L{n}N{neuron}" for n in range(layer) for neuron in numbers]
    each = [_neurons(cache, n, numbers, pos_slice, matrix) for n in range(layer)]
    stack = _joined(cache, each, layer, mlp_input, pos_slice, incl_remainder, labels, matrix)
    stack = _finished(cache, stack, apply_ln, project_output_onto, layer, mlp_input, pos_slice)
    return (stack, labels) if return_labels else stack


def get_full_resid_decomposition(
    cache: ActivationCache,
    layer: int | None = None,
    mlp_input: bool = False,
    expand_neurons: bool = True,
    apply_ln: bool = False,
    pos_slice: Slice = None,
    return_labels: bool = False,
    project_output_onto: np.ndarray | None = None,
) -> Any:
    """Takes the stream apart into its smallest parts, which add up to the stream that `layer` reads.

    These are, in order: every head; every neuron, or every MLP; the embeddings; and the biases of attention (and of the
    MLPs, where their neurons are expanded) as one. Where an intervention or function changed the stream or a sum of
    these parts, the difference is the last part, `change`.

    Args:
        layer: the block whose input is meant; the number of blocks, -1 or None for the final stream.
        mlp_input: the input of the block's MLP is meant.
        expand_neurons: by neuron, which is large unless projected, or by MLP.
        apply_ln: see `apply_ln_to_stack`.
        pos_slice: positions to take.
        return_labels: return the labels, too: `L0H0`, `L0N0` or `0_mlp_out`, `embed`, `pos_embed`, `bias`,
            `change`.
        project_output_onto: [D] or [D, n]: return the products with these directions in place of the vectors.

    Returns:
        [C, ..., D], projected [C, ..., n] or [C, ...]; or that and C labels.

    Raises:
        HookPointError: a part was not read, or something was changed and its result was not read.
        InputError: an argument is out of range, or the cache does not know its model's weights.
    """
    layer = blocks_before(cache, layer, "get_full_resid_decomposition", mlp_input=mlp_input)
    config = config_of(cache, "get_full_resid_decomposition")
    weights = weights_of(cache, "get_full_resid_decomposition")
    matrix = _matrix(cache, project_output_onto, apply_ln)

    def vector(value: np.ndarray) -> np.ndarray:
        return value if matrix is None else value @ matrix

    heads = range(layer + mlp_input)
    labels = [f"L{n}H{head}" for n in heads for head in range(config.n_heads)]
    parts = [_heads(cache, n, pos_slice, matrix) for n in heads]
    bias = np.zeros(config.d_model, np.float32)
    for n in heads:
        bias += weights[f"blocks.{n}.attn.b_O"]
    for n in range(layer):
        if expand_neurons:
            numbers = np.arange(config.d_mlp)
            labels += [f"L{n}N{neuron}" for neuron in numbers]
            parts.append(_neurons(cache, n, numbers, pos_slice, matrix))
            bias += weights[f"blocks.{n}.mlp.b_out"]
        else:
            labels.append(f"{n}_mlp_out")
            parts.append(vector(sliced(cache["mlp_out", n], pos_slice, -2))[np.newaxis])
    names = [name for name in model_of(cache, "a stack").residual_stream.parts if not name.startswith("blocks.")]
    embeddings = [vector(sliced(cache[name], pos_slice, -2)) for name in names]
    parts += [embedding[np.newaxis] for embedding in embeddings]
    parts.append(np.broadcast_to(vector(bias), embeddings[0].shape)[np.newaxis])
    labels += [*(name.removeprefix("hook_") for name in names), "bias"]
    stack = np.concatenate(parts)
    changes = changes_before(cache, layer, mlp_input, heads=True, neurons=expand_neurons)
    stack = with_change(cache, stack, labels, changes, layer, mlp_input, pos_slice, matrix)
    stack = _finished(cache, stack, apply_ln, project_output_onto, layer, mlp_input, pos_slice)
    return (stack, labels) if return_labels else stack


def _heads(cache: ActivationCache, layer: int, pos_slice: Slice, matrix: np.ndarray | None) -> np.ndarray:
    """What the heads of a block add, [H, ..., D] or projected."""
    if f"blocks.{layer}.attn.hook_result" in cache:
        result = np.moveaxis(sliced(cache["result", layer], pos_slice, -3), -2, 0)  # [H, ..., D]
        return result if matrix is None else np.matmul(result, matrix)
    if f"blocks.{layer}.attn.hook_result" in cache.changed:
        raise KeyNotFoundError(
            f"'blocks.{layer}.attn.hook_result' was changed and not read, so the outputs of the heads of block "
            f"{layer} are unknown; name it in names_filter."
        )
    if f"blocks.{layer}.attn.hook_z" not in cache:
        raise KeyNotFoundError(
            f"The heads of block {layer} need 'blocks.{layer}.attn.hook_z' (or the larger hook_result), and "
            "neither was read; name it in names_filter."
        )
    w_o = weights_of(cache, "the result of a head")[f"blocks.{layer}.attn.W_O"]  # [H, d, D]
    z = np.moveaxis(sliced(cache["z", layer], pos_slice, -3), -2, 0)  # [H, ..., d]
    flat = z.reshape(len(z), -1, z.shape[-1]) @ (w_o if matrix is None else w_o @ matrix)  # [H, positions, D]
    heads: np.ndarray = flat.reshape(*z.shape[:-1], -1)  # [H, ..., D]
    return heads


def _neurons(
    cache: ActivationCache, layer: int, numbers: np.ndarray, pos_slice: Slice, matrix: np.ndarray | None
) -> np.ndarray:
    """What neurons of a block add, [neurons, ..., D] or projected."""
    post = np.moveaxis(sliced(cache["post", layer], pos_slice, -2)[..., numbers], -1, 0)  # [neurons, ...]
    rows = weights_of(cache, "the result of a neuron")[f"blocks.{layer}.mlp.W_out"][numbers]  # [neurons, D]
    rows = rows if matrix is None else rows @ matrix
    rows = rows.reshape(len(rows), *(1,) * (post.ndim - 1), -1)  # [neurons, 1, ..., D]
    result: np.ndarray = post[..., np.newaxis] * rows
    return result


def _joined(
    cache: ActivationCache,
    each: list[np.ndarray],
    layer: int,
    mlp_input: bool,
    pos_slice: Slice,
    incl_remainder: bool,
    labels: list[str],
    matrix: np.ndarray | None,
) -> np.ndarray:
    """The parts of all blocks in one stack, with the remainder if asked for, which gets its label."""
    if not each and not incl_remainder:
        raise InputError("There is no block before block 0; give a layer of at least 1.")
    if incl_remainder:
        stream = sliced(stream_at(cache, layer, mlp_input), pos_slice, -2)
        rest = stream if matrix is None else stream @ matrix
        for part in each:
            rest = rest - part.sum(axis=0)
        each = [*each, rest[np.newaxis]]
        labels.append("remainder")
    return np.concatenate(each)


def _matrix(cache: ActivationCache, project_output_onto: np.ndarray | None, apply_ln: bool) -> np.ndarray | None:
    """The directions [D, n] to project onto; centred in place of the parts, if those are to be centred."""
    matrix = _directions(project_output_onto, config_of(cache, "a stack").d_model)
    if matrix is None or not apply_ln:
        return matrix
    return normalization_at(cache, config_of(cache, "a stack").n_layers, False).centred(matrix.T).T


def _finished(
    cache: ActivationCache,
    stack: np.ndarray,
    apply_ln: bool,
    project_output_onto: np.ndarray | None,
    layer: int,
    mlp_input: bool,
    pos_slice: Slice,
) -> np.ndarray:
    if project_output_onto is None:
        return apply_ln_to_stack(cache, stack, layer, mlp_input, pos_slice) if apply_ln else stack
    if apply_ln:
        stack = stack / scale_of(cache, stack, layer, mlp_input, pos_slice, None)
    return stack[..., 0] if _is_one(project_output_onto) else stack


def _is_one(project_output_onto: np.ndarray | None) -> bool:
    return project_output_onto is not None and np.ndim(project_output_onto) == 1


def _directions(project_output_onto: np.ndarray | None, width: int) -> np.ndarray | None:
    """Directions as the columns of a float32 matrix [D, n]."""
    if project_output_onto is None:
        return None
    matrix = np.asarray(project_output_onto)
    if matrix.ndim not in (1, 2) or matrix.shape[0] != width or not np.issubdtype(matrix.dtype, np.number):
        raise InputError(
            f"project_output_onto must be numbers of shape [{width}] or [{width}, n], not {list(matrix.shape)}."
        )
    return matrix.reshape(width, -1).astype(np.float32, copy=False)
