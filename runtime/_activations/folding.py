"""Activations and weights as TransformerLens shows them after its weight processing, derived from the raw ones.

The processing (Nanda, "TransformerLens: further comments") changes weights so that the model predicts the same:

- `fold_ln` moves weight and bias of each normalisation into the matrices that read it, and centres these;
- `center_writing_weights` subtracts from everything that writes to the residual stream its mean over d_model, which
  layer normalisation removes anyway. RMS normalisation does not, so nothing is centred in models that have it, nor in
  `fold_ln`;
- `center_unembed` subtracts the mean of all logits from each logit, which leaves the softmax unchanged;
- `fold_value_biases` moves `b_V @ W_O` into `b_O`, since the weights of an attention pattern add up to one.

Each activation after it is a formula in the raw one; docs/reading.md has them in one table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._bundle.model_facts import ModelFacts
from onnxlens.runtime._bundle.named_weights import WeightsByName, in_block

__all__ = ["FoldedWeights", "folded_activations", "folded_facts", "folded_logits"]

_OF_VALUES = re.compile(r"blocks\.(\d+)\.attn\.hook_(v|z|result)")


class FoldedWeights(WeightsByName):
    """The weights after folding and centring, computed at each access, read-only.

    Normalisations keep the weight one and the bias zero, where TransformerLens has none.

    Args:
        raw: the model's own weights.
        model: its description.
        fold_value_biases: move the value biases into `b_O`, too.
    """

    def __init__(
        self, raw: Mapping[str, np.ndarray], model: ModelDescription, *, fold_value_biases: bool = True
    ) -> None:
        super().__init__(raw, model.cfg.n_layers)
        self._raw, self._model, self._fold_value_biases = raw, model, fold_value_biases

    def value_bias(self, layer: int) -> np.ndarray:
        """The constant part of a block's values: `b_V + ln1.b @ W_V`, [K, d] for K heads for keys and values."""
        attention = f"blocks.{layer}.attn"
        return self._with_bias(f"blocks.{layer}.ln1", f"{attention}.W_V", f"{attention}.b_V")

    def _weight(self, name: str) -> np.ndarray:
        raw = self._raw
        if name.rpartition(".")[0] in self._model.normalizations:
            return np.ones_like(raw[name]) if name.endswith(".w") else np.zeros_like(raw[name])
        if name in ("embed.W_E", "pos_embed.W_pos"):
            return self._written(raw[name])
        if name == "unembed.W_U":
            return _centred(self._read(name, "ln_final", 0), -1)
        if name == "unembed.b_U":
            return _centred(self._with_bias("ln_final", "unembed.W_U", name), -1)
        found = in_block(name)
        return self._raw[name] if found is None else self._weight_of_block(*found)

    def _weight_of_block(self, layer: int, part: str) -> np.ndarray:
        raw, block = self._raw, f"blocks.{layer}."
        if part in ("attn.W_Q", "attn.W_K", "attn.W_V"):
            return self._read(block + part, f"{block}ln1", -2)  # [H, D, d]
        if part in ("attn.b_Q", "attn.b_K"):
            return self._with_bias(f"{block}ln1", block + part.replace("b_", "W_"), block + part)
        if part == "attn.b_V":
            bias = self.value_bias(layer)
            return np.zeros_like(bias) if self._fold_value_biases else bias
        if part == "attn.b_O":
            bias = raw[block + part]
            if self._fold_value_biases:
                values = _for_each_head(self.value_bias(layer), self._model)  # [H, d]
                bias = bias + np.tensordot(values, raw[block + "attn.W_O"], 2)  # [H, d] [H, d, D] -> [D]
            return self._written(bias)
        if part in ("mlp.W_in", "mlp.W_gate"):
            return self._read(block + part, f"{block}ln2", 0)
        if part in ("mlp.b_in", "mlp.b_gate"):
            return self._with_bias(f"{block}ln2", block + part.replace("b_", "W_"), block + part)
        return self._written(raw[block + part])  # W_O, W_out and b_out, which write

    def _read(self, matrix: str, norm: str, axis: int) -> np.ndarray:
        """A matrix with the weight of the normalisation that it reads; centred, where that centres."""
        scaled = self._raw[matrix] * self._raw[f"{norm}.w"][:, np.newaxis]
        return _centred(scaled, axis) if self._model.normalizations[norm].kind == "LN" else scaled

    def _with_bias(self, norm: str, matrix: str, bias: str) -> np.ndarray:
        """A bias plus its matrix times the normalisation's bias, where that has one."""
        raw = self._raw
        if f"{norm}.b" not in raw:
            return raw[bias]
        result: np.ndarray = raw[bias] + raw[f"{norm}.b"] @ raw[matrix]
        return result

    def _written(self, value: np.ndarray) -> np.ndarray:
        """A matrix or bias that writes to the stream, centred where no normalisation depends on the mean."""
        return _centred(value, -1) if _is_centred(self._model) else value


def folded_facts(facts: ModelFacts, *, fold_value_biases: bool) -> ModelFacts:
    """The model after folding and centring; its weights are there."""
    assert facts.weights is not None
    weights = FoldedWeights(facts.weights, facts.model, fold_value_biases=fold_value_biases)
    source = None if facts.source is None else _Source(facts.source, fold_value_biases)
    return replace(facts, weights=weights, folded=True, source=source)


@dataclass(frozen=True)
class _Source:
    """Makes folded facts in another process."""

    raw: Callable[[], ModelFacts]
    fold_value_biases: bool

    def __call__(self) -> ModelFacts:
        return folded_facts(self.raw(), fold_value_biases=self.fold_value_biases)


def folded_activations(
    activations: Mapping[str, np.ndarray], facts: ModelFacts, *, fold_value_biases: bool
) -> dict[str, np.ndarray]:
    """Activations after folding and centring.

    Args:
        activations: raw ones, with or without batch; those that stay the same are not copied.
        facts: of the raw model, with its weights.
        fold_value_biases: move the value biases into `b_O`, too.
    """
    assert facts.weights is not None
    weights = FoldedWeights(facts.weights, facts.model)
    raw_weights, model = facts.weights, facts.model
    written = {*model.residual_stream.parts, *model.residual_stream.states} if _is_centred(model) else set()

    def view(name: str, value: np.ndarray) -> np.ndarray:
        if name in written:
            return _centred(value, -1)
        found = _OF_VALUES.fullmatch(name)
        if found is None:
            return value
        if fold_value_biases:
            bias = weights.value_bias(int(found[1]))  # [K, d]
            if found[2] != "v":
                bias = _for_each_head(bias, model)  # [H, d]
            if found[2] == "result":
                w_o = raw_weights[f"blocks.{found[1]}.attn.W_O"]  # [H, d, D]
                bias = (bias[:, np.newaxis] @ w_o)[:, 0]  # [H, 1, d] @ [H, d, D], then [H, D]
            value = value - bias
        return _centred(value, -1) if found[2] == "result" and _is_centred(model) else value

    return {name: view(name, value) for name, value in activations.items()}


def folded_logits(logits: np.ndarray) -> np.ndarray:
    """Logits after `center_unembed`: minus their mean over the vocabulary.

    Args:
        logits: [..., V].
    """
    return _centred(logits, -1)


def _is_centred(model: ModelDescription) -> bool:
    """Whether all normalisations centre the stream, so that its mean has no effect."""
    return all(norm.kind == "LN" for norm in model.normalizations.values())


def _for_each_head(values: np.ndarray, model: ModelDescription) -> np.ndarray:
    """Values of the heads for keys and values, [K, d], for each head that uses them, [H, d]."""
    return np.repeat(values, model.cfg.n_heads // len(values), axis=0)


def _centred(value: np.ndarray, axis: int) -> np.ndarray:
    # The mean in float64, so that subtracting it is not the largest error of the result.
    mean = value.mean(axis=axis, keepdims=True, dtype=np.float64)
    result: np.ndarray = np.asarray(value - mean.astype(value.dtype))
    return result
