"""The residual stream as it grows from block to block, and the blocks' outputs that it is the sum of.

Every block reads the stream and adds to it (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"),
so the stream at any place is a sum, and whatever is linear in it is a sum, too. Names, arguments, order and labels are
TransformerLens's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxlens.runtime._activations.slices import Slice, sliced
from onnxlens.runtime._activations.stream import (
    blocks_before,
    changes_before,
    check_normalized,
    config_of,
    normalization_at,
    parts_before,
    rows_of,
    scale_of,
    stream_at,
    weights_of,
    with_change,
)
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens.runtime._activations.cache import ActivationCache

__all__ = ["accumulated_resid", "apply_ln_to_stack", "decompose_resid", "stack_activation"]


def stack_activation(
    cache: ActivationCache, activation_name: str, layer: int | None = -1, sublayer_type: str | None = None
) -> np.ndarray:
    """Stacks one activation of several blocks.

    Args:
        activation_name: its shorthand, such as `pattern`.
        layer: the blocks before this one; -1 or None for all.
        sublayer_type: its place in a block, such as `ln1`, where there are several.

    Returns:
        [blocks, ...], the rest as in the hook table.

    Raises:
        HookPointError: there is no such activation, or it was not read.
        InputError: `layer` is out of range, or the cache does not know its model.
    """
    count = blocks_before(cache, layer, "stack_activation")
    if count == 0:
        raise InputError("There is no block before block 0; stack_activation needs a layer of at least 1.")
    return np.stack([cache[activation_name, n, sublayer_type] for n in range(count)])


def accumulated_resid(
    cache: ActivationCache,
    layer: int | None = None,
    incl_mid: bool = False,
    apply_ln: bool = False,
    pos_slice: Slice = None,
    mlp_input: bool = False,
    return_labels: bool = False,
) -> Any:
    """Stacks the residual stream as it is after every block.

    With `apply_ln` and all blocks, a stack times `W_U` plus `b_U` is the logit lens (nostalgebraist 2020).

    Args:
        layer: up to the input of this block; the number of blocks, -1 or None for all of the stream.
        incl_mid: between attention and MLP, too.
        apply_ln: apply the layer normalisation that reads the stream at `layer`. That is the final one for all of
            the stream, which is then applied to each state with the state's own mean and variance, weight and
            bias; for a block, see `apply_ln_to_stack`.
        pos_slice: positions to take.
        mlp_input: up to the input of the block's MLP.
        return_labels: return the labels, too: `0_pre`, `0_mid`, `final_post`.

    Returns:
        [C, ..., D], or that and C labels.

    Raises:
        HookPointError: a state of the stream was not read.
        InputError: an argument is out of range, or the cache does not know its model.
    """
    layer = blocks_before(cache, layer, "accumulated_resid", mlp_input=mlp_input)
    labels, states = [], []
    for n in range(layer + 1):
        final = n == config_of(cache, "accumulated_resid").n_layers
        labels.append("final_post" if final else f"{n}_pre")
        states.append(stream_at(cache, n))
        if not final and ((incl_mid and n < layer) or (mlp_input and n == layer)):
            labels.append(f"{n}_mid")
            states.append(cache["resid_mid", n])
    stack = np.stack([sliced(state, pos_slice, -2) for state in states])
    if apply_ln:
        recompute = layer == config_of(cache, "accumulated_resid").n_layers
        stack = apply_ln_to_stack(cache, stack, layer, mlp_input, pos_slice, recompute_ln=recompute)
    return (stack, labels) if return_labels else stack


def decompose_resid(
    cache: ActivationCache,
    layer: int | None = None,
    mlp_input: bool = False,
    mode: Literal["all", "mlp", "attn"] = "all",
    apply_ln: bool = False,
    pos_slice: Slice = None,
    incl_embeds: bool = True,
    return_labels: bool = False,
) -> Any:
    """Takes the stream apart into embeddings and the outputs of attention and MLP of every block.

    With everything included, the parts add up to the stream that `layer` reads. Where the stream itself was changed
    before, the difference is the last part, `change`.

    Args:
        layer: the block whose input is meant; the number of blocks, -1 or None for the final stream.
        mlp_input: the input of the block's MLP is meant, which has the block's attention in it.
        mode: `all`, or `attn` or `mlp` only.
        apply_ln: see `apply_ln_to_stack`.
        pos_slice: positions to take.
        incl_embeds: with token and position embedding.
        return_labels: return the labels, too: `embed`, `pos_embed`, `0_attn_out`, `0_mlp_out`, `change`.

    Returns:
        [C, ..., D], or that and C labels.

    Raises:
        HookPointError: a part was not read, or the stream was changed and not read.
        InputError: an argument is out of range, nothing is left, or the cache does not know its model.
    """
    if mode not in ("all", "mlp", "attn"):
        raise InputError(f"mode must be 'all', 'mlp' or 'attn', not {mode!r}.")
    layer = blocks_before(cache, layer, "decompose_resid", mlp_input=mlp_input)
    names = parts_before(cache, layer, mlp_input, "decompose_resid")
    kinds = {"all": ("attn_out", "mlp_out"), "attn": ("attn_out",), "mlp": ("mlp_out",)}[mode]
    kept = [n for n in names if n.endswith(kinds) or (incl_embeds and not n.startswith("blocks."))]
    labels, parts = [_label(name) for name in kept], [cache[name] for name in kept]
    if not parts:
        raise InputError(f"decompose_resid has nothing to stack: no embeddings, and no {mode!r} before block {layer}.")
    stack = np.stack([sliced(part, pos_slice, -2) for part in parts])
    if mode == "all" and incl_embeds:
        stack = with_change(cache, stack, labels, changes_before(cache, layer, mlp_input), layer, mlp_input, pos_slice)
    if apply_ln:
        stack = apply_ln_to_stack(cache, stack, layer, mlp_input, pos_slice)
    return (stack, labels) if return_labels else stack


def apply_ln_to_stack(
    cache: ActivationCache,
    residual_stack: np.ndarray,
    layer: int | None = None,
    mlp_input: bool = False,
    pos_slice: Slice = None,
    batch_slice: Slice = None,
    has_batch_dim: bool | None = None,
    recompute_ln: bool = False,
) -> np.ndarray:
    """Centres parts of the stream and divides them by the scale that the whole stream had.

    A normalisation divides by a number that depends on the whole stream, so the contribution of a part is its share at
    the scale that was read: `(x - mean(x)) / hook_scale`, or `x / hook_scale` where the model has RMS normalisations,
    which do not centre. The parts of a stream then add up to `hook_normalized`. Weight and bias of the normalisation
    are not applied; `logit_attrs` has them.

    Args:
        residual_stack: [C, ..., D].
        layer: the block that reads; the number of blocks, -1 or None for the unembedding.
        mlp_input: the block's MLP reads.
        pos_slice: positions that the stack holds.
        batch_slice: rows to take.
        has_batch_dim: whether the stack has a batch axis; None for as the cache has.
        recompute_ln: for the unembedding, in place of the above, apply the whole of the final layer normalisation
            to each part as if it were the stream.

    Returns:
        [C, ..., D].

    Raises:
        HookPointError: the scale was not read.
        InputError: an argument is out of range, the stack holds other positions, the cache does not know its model, or
            `hook_normalized` was changed there, so that it is not a sum of parts.
    """
    layer = blocks_before(cache, layer, "apply_ln_to_stack", mlp_input=mlp_input)
    residual_stack = rows_of(cache, residual_stack, batch_slice, has_batch_dim)
    norm = normalization_at(cache, layer, mlp_input)
    centred = norm.centred(residual_stack)
    if recompute_ln and layer == config_of(cache, "apply_ln_to_stack").n_layers:
        weights = weights_of(cache, "apply_ln_to_stack with recompute_ln")
        mean_square = np.square(centred).mean(axis=-1, keepdims=True)
        centred = centred / np.sqrt(mean_square + np.float32(norm.eps))
        normal: np.ndarray = centred * weights["ln_final.w"]
        return normal + weights["ln_final.b"] if "ln_final.b" in weights else normal
    check_normalized(cache, layer, mlp_input)
    result: np.ndarray = centred / scale_of(cache, residual_stack, layer, mlp_input, pos_slice, batch_slice)
    return result


def _label(name: str) -> str:
    """TransformerLens's label of a part of the stream, such as `embed` and `0_attn_out`."""
    path, _, last = name.rpartition(".")
    short = last.removeprefix("hook_")
    return f"{path.split('.')[1]}_{short}" if path else short
