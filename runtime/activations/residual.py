"""The residual stream as it grows from block to block, and the blocks' outputs that it is the sum of.

Every block reads the stream and adds to it (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"),
so the stream at any place is a sum, and whatever is linear in it is a sum, too. Names, arguments, order and labels are
TransformerLens's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from onnxlens.runtime.activations.slices import Slice, sliced
from onnxlens.runtime.bundle.config import ModelConfig
from onnxlens.runtime.bundle.description import ModelDescription, Normalization
from onnxlens.runtime.bundle.model_facts import ModelFacts
from onnxlens.runtime.bundle.shorthand import Key, KeyNotFoundError
from onnxlens.runtime.errors import InputError
from onnxlens.runtime.whole import is_whole

__all__ = ["ResidualStream"]


class ResidualStream(Mapping[str, np.ndarray]):
    """Activations with which the residual stream can be taken apart; for the shapes see `ActivationCache`."""

    facts: ModelFacts | None
    has_batch_dim: bool

    @abstractmethod
    def __getitem__(self, key: Key) -> np.ndarray: ...

    @property
    @abstractmethod
    def changed(self) -> frozenset[str]:
        """The hook points whose values may not be what the model makes of those before them."""

    def stack_activation(
        self, activation_name: str, layer: int | None = -1, sublayer_type: str | None = None
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
        count = self._up_to(layer, "stack_activation")
        if count == 0:
            raise InputError("There is no block before block 0; stack_activation needs a layer of at least 1.")
        return np.stack([self[activation_name, n, sublayer_type] for n in range(count)])

    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: Slice = None,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Any:
        """Stacks the residual stream as it grows, for a look at it after every block.

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
        layer = self._up_to(layer, "accumulated_resid", mlp_input=mlp_input)
        labels, states = [], []
        for n in range(layer + 1):
            final = n == self._config("accumulated_resid").n_layers
            labels.append("final_post" if final else f"{n}_pre")
            states.append(self._stream(n))
            if not final and ((incl_mid and n < layer) or (mlp_input and n == layer)):
                labels.append(f"{n}_mid")
                states.append(self["resid_mid", n])
        stack = np.stack([sliced(state, pos_slice, -2) for state in states])
        if apply_ln:
            recompute = layer == self._config("accumulated_resid").n_layers
            stack = self.apply_ln_to_stack(stack, layer, mlp_input, pos_slice, recompute_ln=recompute)
        return (stack, labels) if return_labels else stack

    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: Literal["all", "mlp", "attn"] = "all",
        apply_ln: bool = False,
        pos_slice: Slice = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Any:
        """Takes the stream apart into embeddings and the outputs of attention and MLP of every block.

        With everything included, the parts add up to the stream that `layer` reads. Where the stream itself was
        changed before, what that added is the last part, `change`.

        Args:
            layer: what this block reads; the number of blocks, -1 or None for all of the stream.
            mlp_input: what the block's MLP reads, which has the block's attention in it.
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
        layer = self._up_to(layer, "decompose_resid", mlp_input=mlp_input)
        names = self._parts(layer, mlp_input, "decompose_resid")
        kinds = {"all": ("attn_out", "mlp_out"), "attn": ("attn_out",), "mlp": ("mlp_out",)}[mode]
        kept = [n for n in names if n.endswith(kinds) or (incl_embeds and not n.startswith("blocks."))]
        labels, parts = [_label(name) for name in kept], [self[name] for name in kept]
        if not parts:
            raise InputError(
                f"decompose_resid has nothing to stack: no embeddings, and no {mode!r} before block {layer}."
            )
        stack = np.stack([sliced(part, pos_slice, -2) for part in parts])
        if mode == "all" and incl_embeds:
            stack = self._with_change(stack, labels, self._changes(layer, mlp_input), layer, mlp_input, pos_slice)
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layer, mlp_input, pos_slice)
        return (stack, labels) if return_labels else stack

    def apply_ln_to_stack(
        self,
        residual_stack: np.ndarray,
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: Slice = None,
        batch_slice: Slice = None,
        has_batch_dim: bool | None = None,
        recompute_ln: bool = False,
    ) -> np.ndarray:
        """Centres parts of the stream and divides them by the scale that the whole stream had.

        A normalisation divides by a number that depends on the whole stream, so what a part contributes is its
        share at the scale that was read: `(x - mean(x)) / hook_scale`, or `x / hook_scale` where the model has RMS
        normalisations, which do not centre. The parts of a stream then add up to `hook_normalized`. Weight and bias of
        the normalisation are not applied; `logit_attrs` has them.

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
            InputError: an argument is out of range, the stack holds other positions, the cache does not know its model,
                or `hook_normalized` was changed there, so that it is no sum of parts.
        """
        layer = self._up_to(layer, "apply_ln_to_stack", mlp_input=mlp_input)
        residual_stack = self._rows(residual_stack, batch_slice, has_batch_dim)
        norm = self._normalization(layer, mlp_input)
        centred = norm.centred(residual_stack)
        if recompute_ln and layer == self._config("apply_ln_to_stack").n_layers:
            weights = self._weights("apply_ln_to_stack with recompute_ln")
            mean_square = np.square(centred).mean(axis=-1, keepdims=True)
            centred = centred / np.sqrt(mean_square + np.float32(norm.eps))
            normal: np.ndarray = centred * weights["ln_final.w"]
            return normal + weights["ln_final.b"] if "ln_final.b" in weights else normal
        self._check_normalized(layer, mlp_input)
        result: np.ndarray = centred / self._scale(residual_stack, layer, mlp_input, pos_slice, batch_slice)
        return result

    def _weights(self, what: str) -> Mapping[str, np.ndarray]:
        if self.facts is None or self.facts.weights is None:
            raise InputError(
                f"{what} needs the model's weights, which this cache does not have; attach them with "
                "cache.with_model(lens)."
            )
        return self.facts.weights

    def _config(self, what: str) -> ModelConfig:
        if self.facts is None:
            raise InputError(
                f"{what} needs to know the model, which this cache does not; attach it with cache.with_model(lens)."
            )
        return self.facts.config

    def _model(self, what: str) -> ModelDescription:
        self._config(what)
        assert self.facts is not None  # else `_config` raised
        return self.facts.model

    def _normalization(self, layer: int, mlp_input: bool) -> Normalization:
        """The normalisation that reads the stream at a place."""
        return self._model("a normalisation").normalizations[self._norm(layer, mlp_input)]

    def _before(self, layer: int, mlp_input: bool, what: str) -> set[str]:
        """The hook points that are computed before the stream is read at a place."""
        model = self._model(what)
        names = list(model.points)
        return set(names[: names.index(model.normalizations[self._norm(layer, mlp_input)].reads)])

    def _parts(self, layer: int, mlp_input: bool, what: str) -> list[str]:
        """The hook points of what is in the stream that is read at a place, in order."""
        before = self._before(layer, mlp_input, what)
        return [name for name in self._model(what).residual_stream.parts if name in before]

    def _up_to(self, layer: int | None, what: str, *, mlp_input: bool = False) -> int:
        blocks = self._config(what).n_layers
        if layer is None or layer == -1:
            layer = blocks
        if not is_whole(layer) or not 0 <= layer <= blocks:
            raise InputError(f"layer must be 0 to {blocks}, or -1 or None for all of the stream, not {layer!r}.")
        if mlp_input and layer == blocks:
            raise InputError(f"mlp_input is about a block's MLP; give a layer of 0 to {blocks - 1} with it.")
        return int(layer)

    def _stream(self, layer: int, mlp_input: bool = False) -> np.ndarray:
        """What a block, its MLP, or the final normalisation reads."""
        if mlp_input:
            return self[self._normalization(layer, mlp_input).reads]
        # One value under two names; either may have been read.
        names = [f"blocks.{layer}.hook_resid_pre"] if layer < self._config("the residual stream").n_layers else []
        if layer and not self.changed.intersection(names):  # two values, where one of them was changed
            names.append(f"blocks.{layer - 1}.hook_resid_post")
        return self[next((name for name in names if name in self), names[0])]

    def _changes(self, layer: int, mlp_input: bool, *, heads: bool = False, neurons: bool = False) -> list[str]:
        """The changed hook points for which the stream is not the sum of its parts.

        Args:
            layer: what this block reads.
            mlp_input: what its MLP reads.
            heads: attention is taken apart into heads.
            neurons: MLPs are taken apart into neurons.
        """
        model = self._model("the residual stream")
        sums = [
            f"blocks.{layer}.hook_resid_pre",
            self._normalization(layer, mlp_input).reads,
            *model.residual_stream.states,
        ]
        sums += [name for name in model.residual_stream.parts if name.endswith("attn_out")] if heads else []
        sums += [name for name in model.residual_stream.parts if name.endswith("mlp_out")] if neurons else []
        reached = {*self._before(layer, mlp_input, "the residual stream"), *sums[:2]}
        return [name for name in model.points if name in sums and name in reached and name in self.changed]

    def _with_change(
        self,
        stack: np.ndarray,
        labels: list[str],
        changes: Sequence[str],
        layer: int,
        mlp_input: bool,
        pos_slice: Slice,
        matrix: np.ndarray | None = None,
    ) -> np.ndarray:
        """Parts of the stream with what changes of it added, which gets its label; projected, if the parts are."""
        if not changes:
            return stack
        try:
            stream = sliced(self._stream(layer, mlp_input), pos_slice, -2)
        except KeyNotFoundError as error:
            raise KeyNotFoundError(
                f"{changes[0]!r} was changed, so that the stream is more than the sum of its parts, and how much more "
                f"cannot be told: {error}"
            ) from None
        rest = (stream if matrix is None else stream @ matrix) - stack.sum(axis=0)
        labels.append("change")
        return np.concatenate([stack, rest[np.newaxis]])

    def _check_normalized(self, layer: int, mlp_input: bool) -> None:
        """Checks that what a layer normalisation hands on was not changed."""
        name = f"{self._norm(layer, mlp_input)}.hook_normalized"
        if name in self.changed:
            raise InputError(
                f"{name!r} was changed, so what is read there is no sum of parts of the stream, and no part has a "
                "share in it."
            )

    def _norm(self, layer: int, mlp_input: bool) -> str:
        """The name of the normalisation that reads the stream at a place."""
        final = layer == self._config("a normalisation").n_layers
        return "ln_final" if final else f"blocks.{layer}.ln{2 if mlp_input else 1}"

    def _scale(
        self, stack: np.ndarray, layer: int, mlp_input: bool, pos_slice: Slice, batch_slice: Slice
    ) -> np.ndarray:
        """What divides the parts of the stream in a stack, [..., P, 1]."""
        scale = sliced(self[f"{self._norm(layer, mlp_input)}.hook_scale"], pos_slice, -2)
        if self.has_batch_dim:
            scale = sliced(scale, batch_slice, 0, "batch_slice")
        held, normalised = stack.shape[1:-1], scale.shape[:-1]
        if normalised not in (held, (1, *held)) and held != (1, *normalised):  # one row may have its axis or not
            raise InputError(
                f"A stack of shape {list(stack.shape)} does not fit scales of shape {list(scale.shape)}; give the "
                "pos_slice with which the stack was made."
            )
        return scale

    def _rows(self, stack: np.ndarray, batch_slice: Slice, has_batch_dim: bool | None) -> np.ndarray:
        stack = np.asarray(stack)
        width = self._config("a stack").d_model
        if stack.ndim < 2 or stack.shape[-1] != width:
            raise InputError(f"A stack has the shape [components, ..., {width}], not {list(stack.shape)}.")
        batched = self.has_batch_dim if has_batch_dim is None else has_batch_dim
        return sliced(stack, batch_slice, 1, "batch_slice") if batched else stack


def _label(name: str) -> str:
    """TransformerLens's label of a part of the stream, such as `embed` and `0_attn_out`."""
    path, _, last = name.rpartition(".")
    short = last.removeprefix("hook_")
    return f"{path.split('.')[1]}_{short}" if path else short
