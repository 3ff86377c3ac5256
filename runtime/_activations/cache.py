"""Activations that were read: a mapping from hook point to array, with the tokens they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxlens.runtime._activations import attribution, components, residual, stream
from onnxlens.runtime._activations.applied import Applied
from onnxlens.runtime._bundle.hooks import HookPoint
from onnxlens.runtime._bundle.model_facts import ModelFacts, facts_of
from onnxlens.runtime._bundle.shorthand import Key, KeyNotFoundError, full_name
from onnxlens.runtime.errors import InputError, TraceError, suggestion

__all__ = ["ActivationCache", "stitch"]

# The values that a full pass has for keys that an earlier step could not see: the causal mask's.
_UNSEEN = {"hook_attn_scores": -np.inf, "hook_pattern": 0.0}


class ActivationCache(Mapping[str, np.ndarray]):
    """Activations by hook point name, or by TransformerLens's shorthands.

    `cache["blocks.3.attn.hook_pattern"]`, `cache["pattern", 3]` and `cache["pattern", -1]` (of the last block) name an
    activation, and so do `cache["scale", 0, "ln1"]` and `cache["embed"]`. Iterating gives full names.

    Methods that take the residual stream apart return stacks of C components, [C, ..., D], where `...` is B P, without
    the B if the batch axis was removed, and without the P if `pos_slice` is a number. They compute in float32, from
    what was read and the model's own weights, so parts add up to the whole as far as float32 does. Where interventions
    or functions changed the stream on its way, what they added is a part of its own, `change`.

    Args:
        activations: arrays in the shapes of the hook table, batch first.
        tokens: the token ids that were run, [B, P].
        attention_mask: [B, P], 0 where a token is padding; None for no padding.
        model: the bundle's name.
        facts: what is known of the model; methods that need its shape or weights raise an error without it.
        positions: the positions that were read; None for all.
        has_batch_dim: whether the arrays have a batch axis.
        str_tokens: the tokens' texts, where there is one row of them.
        made_with: versions of the packages that computed the activations; None for those that run now.
        applied: what interventions changed where.
        called: the hook points at which functions were called.

    Attributes:
        tokens: [B, P] int64, also where the batch axis was removed from the activations.
        attention_mask: [B, P] int64. Values at padding positions mean nothing.
        model: the bundle's name.
        facts: what is known of the model, or None.
        positions: the positions that were read; None for all.
        has_batch_dim: whether the arrays have a batch axis.
        str_tokens: the tokens' texts, where they are known.
        made_with: versions of the packages that computed what a trace holds; None for what was read here.
        applied: what interventions changed where.
        called: the hook points at which functions were called, which may have changed what is there.
    """

    def __init__(
        self,
        activations: Mapping[str, np.ndarray],
        tokens: np.ndarray,
        attention_mask: np.ndarray | None = None,
        model: str = "",
        *,
        facts: ModelFacts | None = None,
        positions: Sequence[int] | None = None,
        has_batch_dim: bool = True,
        str_tokens: Sequence[str] | None = None,
        made_with: Mapping[str, str] | None = None,
        applied: Sequence[Applied] = (),
        called: Sequence[str] = (),
    ) -> None:
        self._activations = dict(activations)
        self.tokens = tokens
        self.attention_mask = np.ones_like(tokens) if attention_mask is None else attention_mask
        self.model = model or (facts.name if facts is not None else "")
        self.facts = facts
        self.positions = None if positions is None else [int(position) for position in positions]
        self.has_batch_dim = has_batch_dim
        self.str_tokens = None if str_tokens is None else list(str_tokens)
        self.made_with = None if made_with is None else dict(made_with)
        self.applied = tuple(applied)
        self.called = tuple(called)

    # What is computed from activations is a function over them. TransformerLens has them as methods.
    stack_activation = residual.stack_activation
    accumulated_resid = residual.accumulated_resid
    decompose_resid = residual.decompose_resid
    apply_ln_to_stack = residual.apply_ln_to_stack
    stack_head_results = components.stack_head_results
    get_neuron_results = components.get_neuron_results
    stack_neuron_results = components.stack_neuron_results
    get_full_resid_decomposition = components.get_full_resid_decomposition
    logit_attrs = attribution.logit_attrs
    logit_bias = attribution.logit_bias

    def __getitem__(self, key: Key) -> np.ndarray:
        if isinstance(key, str) and key in self._activations:
            return self._activations[key]
        name = self.full_name(key)
        try:
            return self._activations[name]
        except KeyError:
            near = suggestion(name[:200], self._activations)
            raise KeyNotFoundError(
                f"{name!r} was not read; this cache holds {len(self)} hook points.{near} "
                "Name it in names_filter to read it."
            ) from None

    def __contains__(self, key: object) -> bool:
        try:  # a mapping may be asked for anything; what is not a name raises TypeError
            return key in self._activations or self.full_name(key) in self._activations  # type: ignore[arg-type]
        except (KeyNotFoundError, TypeError):
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)

    def __repr__(self) -> str:
        from rich.filesize import decimal

        return f"ActivationCache({len(self)} hook points, {decimal(self.nbytes)}, tokens {self.tokens.shape})"

    def _repr_html_(self) -> str:
        from onnxlens.runtime._activations.views import html

        return html(self)

    @property
    def nbytes(self) -> int:
        """Size of all arrays in bytes."""
        return sum(array.nbytes for array in self._activations.values())

    @property
    def model_hash(self) -> str:
        """What identifies the model's weights and graph, see `Bundle.model_hash`; empty where that is not known."""
        return self.facts.hash if self.facts is not None else ""

    @property
    def changed(self) -> frozenset[str]:
        """The hook points whose values interventions or functions may have changed."""
        return frozenset([*(one.hook for one in self.applied), *self.called])

    @property
    def is_folded(self) -> bool:
        """Whether this is a view that `folded` made."""
        return self.facts is not None and self.facts.folded

    def full_name(self, key: Key) -> str:
        """The name of the hook point that a shorthand stands for, whether it was read or not.

        Raises:
            HookPointError: the shorthand is unknown.
        """
        if self.facts is None:
            return full_name(key)
        return full_name(key, self.facts.config.n_layers, self.facts.model.points)

    def axes(self, key: Key) -> tuple[str, ...] | None:
        """What the axes of an activation count, the batch included; None where that is not known.

        Raises:
            HookPointError: there is no such hook point.
        """
        point = self.facts.model.points.get(self.full_name(key)) if self.facts is not None else None
        return None if point is None else point.axes

    def remove_batch_dim(self) -> ActivationCache:
        """Removes the batch axis of all activations, in place, where there is one row; returns this cache.

        `tokens` and `attention_mask` stay [1, P]. Where the axis is gone already, nothing happens.

        Raises:
            InputError: there are several rows.
        """
        if self.has_batch_dim:
            if len(self.tokens) != 1:
                raise InputError(f"The batch axis can be removed from one row, and this cache has {len(self.tokens)}.")
            self._activations = {name: value[0] for name, value in self._activations.items()}
            self.has_batch_dim = False
        return self

    def check_model(self, model: object) -> None:
        """Checks that these activations come from this model.

        Args:
            model: a `Lens`, `Runner` or `Bundle`.

        Raises:
            TraceError: they come from another model or an unknown one, or are a folded view.
            InputError: `model` is not a model.
        """
        facts = facts_of(model)
        if self.is_folded:
            raise TraceError("These activations are a folded view; the model computes the raw ones. Use the raw cache.")
        if not self.model_hash:
            raise TraceError(f"It is not known which model these activations come from; {facts.name!r} was asked for.")
        if self.model_hash != facts.hash:
            raise TraceError(
                f"These activations come from the model {self.model!r} ({self.model_hash[:12]}), not of {facts.name!r} "
                f"({facts.hash[:12]}): weights or graph differ."
            )

    def with_model(self, model: object) -> ActivationCache:
        """The same activations, with a model's weights to explain them.

        Args:
            model: the `Lens`, `Runner` or `Bundle` that they come from. A cache that does not record its model is
                assumed to come from this one.

        Raises:
            TraceError: they are of another model.
            InputError: `model` is not a model.
        """
        facts = facts_of(model)
        if self.model_hash or self.is_folded:
            self.check_model(model)
        return self._copy(self._activations, facts)

    def folded(self, *, fold_value_biases: bool = True) -> ActivationCache:
        """What TransformerLens would show by default, with layer normalisations folded and weights centred.

        That is `fold_ln`, `center_writing_weights`, `center_unembed` and `fold_value_biases`, derived from what was
        read without running anything; docs/reading.md has the formulas. Methods of the result use the folded weights,
        which are `result.facts.weights`. For logits, see `onnxlens.runtime.folded_logits`.

        Args:
            fold_value_biases: move the value biases into `b_O`, which changes `hook_v`, `hook_z` and `hook_result`.

        Returns:
            A cache of its own; activations that stay the same share their memory with this one.

        Raises:
            InputError: it is folded already, the model's weights are not known, or value biases cannot be moved because
                a pattern was changed whose rows do not add up to one.
        """
        from onnxlens.runtime._activations.folding import folded_activations, folded_facts

        if self.is_folded:
            raise InputError("These activations are folded already.")
        stream.weights_of(self, "folded")
        facts = self.facts
        assert facts is not None  # as its weights are
        if fold_value_biases:
            self._check_patterns()
        activations = folded_activations(self._activations, facts, fold_value_biases=fold_value_biases)
        return self._copy(activations, folded_facts(facts, fold_value_biases=fold_value_biases))

    def to_dataframe(self, key: Key) -> Any:
        """One activation as a pandas DataFrame, where pandas is installed.

        Args:
            key: the hook point, by name or shorthand.

        Returns:
            A row for each number: a column for each axis of the hook table, the tokens' texts beside positions where
            they are known, and `value`.

        Raises:
            HookPointError: there is no such hook point, or it was not read.
            InputError: pandas is not installed.
        """
        from onnxlens.runtime._activations.views import dataframe

        return dataframe(self, key)

    def save(self, path: str | Path, *, str_tokens: Sequence[str] | None = None) -> None:
        """Writes everything to a safetensors file that says what it is; `onnxlens.open_trace` opens it.

        An existing file is replaced, and only once the new one is whole.

        Args:
            path: the file to write.
            str_tokens: the tokens as text, for a reader without the tokenizer; None for those of the cache.

        Raises:
            OutputError: the file cannot be written, or this is a folded view.
        """
        from onnxlens.runtime._activations.trace import save_trace

        save_trace(self, path, str_tokens)

    def _check_patterns(self) -> None:
        """Checks that the rows of patterns add up to one, which they do unless they were changed."""
        real = self.attention_mask if self.positions is None else self.attention_mask[:, self.positions]  # [B, Q]
        for name in sorted(name for name in self.changed if name.endswith("hook_pattern")):
            if name in self:
                totals = self[name].sum(axis=-1)[None if not self.has_batch_dim else slice(None)]  # [B, H, Q]
                if np.allclose(totals.swapaxes(1, 2)[real == 1], 1, rtol=0, atol=1e-4):
                    continue
            unless = "its rows do not add up to one" if name in self else "its rows were not read"
            raise InputError(
                f"{name!r} was changed, and {unless}, so value biases cannot be moved into b_O; give "
                "fold_value_biases=False."
            )

    def _copy(self, activations: Mapping[str, np.ndarray], facts: ModelFacts | None) -> ActivationCache:
        return ActivationCache(
            activations,
            self.tokens,
            self.attention_mask,
            self.model,
            facts=facts,
            positions=self.positions,
            has_batch_dim=self.has_batch_dim,
            str_tokens=self.str_tokens,
            made_with=self.made_with,
            applied=self.applied,
            called=self.called,
        )


def stitch(points: Sequence[HookPoint], steps: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Joins the activations of consecutive passes on one KV cache into those of a single pass over all positions.

    Args:
        points: the hook points that were read.
        steps: the activations of each pass, in order.
    """
    return {point.name: _stitch_one(point, [step[point.name] for step in steps]) for point in points}


def _stitch_one(point: HookPoint, parts: list[np.ndarray]) -> np.ndarray:
    if "key_pos" not in point.axes:
        return np.concatenate(parts, axis=point.axes.index("pos"))
    keys = parts[-1].shape[-1]
    fill = _UNSEEN[point.name.rpartition(".")[2]]
    widened = [np.pad(part, [(0, 0)] * 3 + [(0, keys - part.shape[-1])], constant_values=fill) for part in parts]
    return np.concatenate(widened, axis=point.axes.index("query_pos"))
