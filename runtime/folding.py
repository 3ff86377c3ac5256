"""Activations and weights as TransformerLens shows them after its weight processing, derived from the raw ones.

The processing (Nanda, "TransformerLens: further comments") changes weights so that the model predicts the same:

- `fold_ln` moves weight and bias of each layer normalisation into the matrices that read it, and centres these;
- `center_writing_weights` takes from everything that writes to the residual stream its mean over d_model, which no
  layer normalisation sees;
- `center_unembed` takes from every logit the mean of all, which no softmax sees;
- `fold_value_biases` moves `b_V @ W_O` into `b_O`, since the weights of an attention pattern add up to one.

What that does to each activation is a formula in the raw one; docs/reading.md has them in one table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxlens.runtime.config import ModelConfig
from onnxlens.runtime.model_facts import ModelFacts
from onnxlens.runtime.named_weights import NamedWeights

__all__ = ["FoldedWeights", "folded_activations", "folded_facts", "folded_logits"]

_WRITTEN = re.compile(r"hook_embed|hook_pos_embed|blocks\.\d+\.hook_(resid_(pre|mid|post)|attn_out|mlp_out)")
_OF_NORM = re.compile(r"(blocks\.\d+\.ln[12]|ln_final)\.[wb]")
_OF_VALUES = re.compile(r"blocks\.(\d+)\.attn\.hook_(v|z|result)")


class FoldedWeights(NamedWeights):
    """The weights after folding and centring, computed at each access, read-only.

    Layer normalisations keep the weight one and the bias zero, where TransformerLens has none.

    Args:
        raw: the model's own weights.
        config: the model's shape.
        fold_value_biases: move the value biases into `b_O`, too.
    """

    def __init__(self, raw: Mapping[str, np.ndarray], config: ModelConfig, *, fold_value_biases: bool = True) -> None:
        super().__init__({}, config)
        self._raw, self._fold_value_biases = raw, fold_value_biases

    def value_bias(self, layer: int) -> np.ndarray:
        """What a block's values have from no input: `b_V + ln1.b @ W_V`, [H, d]."""
        return self._with_bias(f"blocks.{layer}.", "ln1", "attn.W_V", "attn.b_V")

    def _weight(self, name: str) -> np.ndarray:
        raw = self._raw
        if _OF_NORM.fullmatch(name):
            return np.ones_like(raw[name]) if name.endswith(".w") else np.zeros_like(raw[name])
        if name in ("embed.W_E", "pos_embed.W_pos"):
            return _centred(raw[name], -1)
        if name == "unembed.W_U":
            scaled = raw[name] * raw["ln_final.w"][:, np.newaxis]
            return _centred(_centred(scaled, 0), -1)
        if name == "unembed.b_U":
            return _centred(raw[name] + raw["ln_final.b"] @ raw["unembed.W_U"], -1)
        return super()._weight(name)

    def _weight_of_block(self, layer: int, part: str) -> np.ndarray:
        raw, block = self._raw, f"blocks.{layer}."
        if part in ("attn.W_Q", "attn.W_K", "attn.W_V"):
            return _centred(raw[block + part] * raw[block + "ln1.w"][:, np.newaxis], -2)  # [H, D, d]
        if part in ("attn.b_Q", "attn.b_K"):
            return self._with_bias(block, "ln1", part.replace("b_", "W_"), part)
        if part == "attn.b_V":
            bias = self.value_bias(layer)
            return np.zeros_like(bias) if self._fold_value_biases else bias
        if part == "attn.b_O":
            bias = raw[block + part]
            if self._fold_value_biases:
                bias = bias + np.tensordot(
                    self.value_bias(layer), raw[block + "attn.W_O"], 2
                )  # [H, d] [H, d, D] -> [D]
            return _centred(bias, -1)
        if part == "mlp.W_in":
            return _centred(raw[block + part] * raw[block + "ln2.w"][:, np.newaxis], 0)
        if part == "mlp.b_in":
            return self._with_bias(block, "ln2", "mlp.W_in", part)
        return _centred(raw[block + part], -1)  # W_O, W_out and b_out, which write

    def _with_bias(self, block: str, norm: str, matrix: str, bias: str) -> np.ndarray:
        """A bias with what its matrix makes of the layer normalisation's."""
        raw = self._raw
        result: np.ndarray = raw[block + bias] + raw[f"{block}{norm}.b"] @ raw[block + matrix]
        return result


def folded_facts(facts: ModelFacts, *, fold_value_biases: bool) -> ModelFacts:
    """The model after folding and centring; its weights are there."""
    assert facts.weights is not None
    weights = FoldedWeights(facts.weights, facts.config, fold_value_biases=fold_value_biases)
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
    weights = FoldedWeights(facts.weights, facts.config)
    raw_weights = facts.weights

    def view(name: str, value: np.ndarray) -> np.ndarray:
        if _WRITTEN.fullmatch(name):
            return _centred(value, -1)
        found = _OF_VALUES.fullmatch(name)
        if found is None:
            return value
        if fold_value_biases:
            bias = weights.value_bias(int(found[1]))  # [H, d]
            if found[2] == "result":
                w_o = raw_weights[f"blocks.{found[1]}.attn.W_O"]  # [H, d, D]
                bias = (bias[:, np.newaxis] @ w_o)[:, 0]  # [H, 1, d] @ [H, d, D], then [H, D]
            value = value - bias
        return _centred(value, -1) if found[2] == "result" else value

    return {name: view(name, value) for name, value in activations.items()}


def folded_logits(logits: np.ndarray) -> np.ndarray:
    """Logits after `center_unembed`: less their mean over the vocabulary.

    Args:
        logits: [..., V].
    """
    return _centred(logits, -1)


def _centred(value: np.ndarray, axis: int) -> np.ndarray:
    # The mean in float64: what is taken away should not be the largest error of the result.
    mean = value.mean(axis=axis, keepdims=True, dtype=np.float64)
    result: np.ndarray = np.asarray(value - mean.astype(value.dtype))
    return result
