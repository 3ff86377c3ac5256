"""Hook points: the named intermediate values of a GPT-2.

Names, shapes and meanings are TransformerLens's (https://transformerlensorg.github.io/TransformerLens), on the raw
weights: nothing is folded or centred.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnxlens.runtime.config import ModelConfig

__all__ = ["COMPUTED_ON_REQUEST", "HookPoint", "axes_of", "hook_points", "sizes"]

# Too large to be an output of every bundle ([B, P, H, D] for each block); the runner adds it to a graph when asked.
COMPUTED_ON_REQUEST = "hook_result"

_RESIDUAL = ("batch", "pos", "d_model")
_HEADS = ("batch", "pos", "head", "d_head")
_ATTENTION = ("batch", "head", "query_pos", "key_pos")

_Entry = tuple[str, tuple[str, ...], str]  # name, axes, meaning

_LAYER_NORM: tuple[_Entry, ...] = (
    ("hook_scale", ("batch", "pos", "one"), "the divisor sqrt(variance + epsilon)"),
    ("hook_normalized", _RESIDUAL, "(x - mean) / scale, before weight and bias"),
)
_EMBEDDING: tuple[_Entry, ...] = (
    ("hook_embed", _RESIDUAL, "token embedding"),
    ("hook_pos_embed", _RESIDUAL, "position embedding"),
)
_BLOCK: tuple[_Entry, ...] = (
    ("hook_resid_pre", _RESIDUAL, "residual stream at the block's input"),
    *((f"ln1.{name}", axes, f"layer norm before attention: {text}") for name, axes, text in _LAYER_NORM),
    ("attn.hook_q", _HEADS, "queries, after the bias, unscaled"),
    ("attn.hook_k", _HEADS, "keys, after the bias; the new positions only"),
    ("attn.hook_v", _HEADS, "values, after the bias; the new positions only"),
    ("attn.hook_attn_scores", _ATTENTION, "q @ k / sqrt(d_head), -inf where masked"),
    ("attn.hook_pattern", _ATTENTION, "softmax of the scores: who attends to whom"),
    ("attn.hook_z", _HEADS, "pattern @ v"),
    ("attn.hook_result", ("batch", "pos", "head", "d_model"), "z @ W_O of each head, without the bias"),
    ("hook_attn_out", _RESIDUAL, "attention's output with bias, as added to the residual stream"),
    ("hook_resid_mid", _RESIDUAL, "residual stream after attention is added"),
    *((f"ln2.{name}", axes, f"layer norm before the MLP: {text}") for name, axes, text in _LAYER_NORM),
    ("mlp.hook_pre", ("batch", "pos", "d_mlp"), "MLP neurons before the activation function"),
    ("mlp.hook_post", ("batch", "pos", "d_mlp"), "MLP neurons after the activation function"),
    ("hook_mlp_out", _RESIDUAL, "the MLP's output with bias, as added to the residual stream"),
    ("hook_resid_post", _RESIDUAL, "residual stream after the MLP is added"),
)
_FINAL = tuple((f"ln_final.{name}", axes, f"final layer norm: {text}") for name, axes, text in _LAYER_NORM)


@dataclass(frozen=True)
class HookPoint:
    """A named intermediate value.

    Attributes:
        name: TransformerLens's name.
        axes: what each axis counts: `batch`, `pos`, `query_pos` (new positions), `key_pos` (past and new), `head`,
            `d_model`, `d_head`, `d_mlp`, or `one`.
        meaning: what the value is, in a few words.
    """

    name: str
    axes: tuple[str, ...]
    meaning: str

    @property
    def on_request(self) -> bool:
        """Whether the value is no output of the bundle's graph but computed where a request names it."""
        return self.name.endswith(COMPUTED_ON_REQUEST)

    @property
    def position_axis(self) -> int:
        """Which axis counts the positions that are computed; for scores and patterns, those of the queries."""
        return self.axes.index("pos" if "pos" in self.axes else "query_pos")

    def shape(self, config: ModelConfig, batch: int, new: int, past: int = 0) -> tuple[int, ...]:
        """The value's shape in a pass over `new` positions after `past` cached ones."""
        size = sizes(config) | {"batch": batch, "pos": new, "query_pos": new, "key_pos": past + new}
        return tuple(size[axis] for axis in self.axes)


def sizes(config: ModelConfig) -> dict[str, int]:
    """How long each axis is that does not depend on the text."""
    return {
        "head": config.n_head,
        "d_model": config.n_embd,
        "d_head": config.d_head,
        "d_mlp": config.d_mlp,
        "one": 1,
    }


def axes_of(name: str) -> tuple[str, ...] | None:
    """The axes of a hook point, whichever model it is of; None for a name that is not in the table."""
    block = re.fullmatch(r"blocks\.(0|[1-9][0-9]*)\.(.+)", name)
    entries = (*_EMBEDDING, *_FINAL) if block is None else _BLOCK
    return next((axes for entry, axes, _ in entries if entry == (name if block is None else block[2])), None)


def hook_points(config: ModelConfig) -> tuple[HookPoint, ...]:
    """All hook points of a model, in the order in which they are computed."""
    blocks = (
        (f"blocks.{layer}.{name}", axes, meaning) for layer in range(config.n_layer) for name, axes, meaning in _BLOCK
    )
    return tuple(HookPoint(*entry) for entry in (*_EMBEDDING, *blocks, *_FINAL))
