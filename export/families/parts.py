"""The parts of the PyTorch modules of all families.

Every part passes its intermediate values to a tap, under TransformerLens's names. In shapes: B batch, P new positions,
T past and new positions, D d_model, H heads, K heads for keys and values, d d_head, M d_mlp, V vocabulary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxlens.runtime._bundle.config import ModelConfig

__all__ = [
    "ACTIVATIONS",
    "Block",
    "Decoder",
    "KeyValue",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "Rotary",
    "Rotation",
    "Tap",
    "attend",
    "causal_mask",
    "inverse_frequencies",
    "rotate",
]

KeyValue = tuple[Tensor, Tensor]
Tap = Callable[[str, Tensor], Tensor]
Rotation = tuple[Tensor, Tensor]  # cosines and sines, [B, P, 1, d] each

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
}


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016), with the divisor and the normalised value as hook points."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor, tap: Tap, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).mean(-1, keepdim=True)  # [B, P, 1]
        scale = tap(f"{name}.hook_scale", torch.sqrt(variance + self.epsilon))
        normalized = tap(f"{name}.hook_normalized", centred / scale)
        return normalized * self.weight + self.bias


class RMSNorm(nn.Module):
    """Root mean square layer normalisation (Zhang and Sennrich 2019), with the same two hook points."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor, tap: Tap, name: str) -> Tensor:
        mean_square = (x * x).mean(-1, keepdim=True)  # [B, P, 1]
        scale = tap(f"{name}.hook_scale", torch.sqrt(mean_square + self.epsilon))
        return tap(f"{name}.hook_normalized", x / scale) * self.weight


class Linear(nn.Module):
    """x @ weight + bias with the weight as [in, out], the layout in which a graph multiplies."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        out = x @ self.weight
        return out if self.bias is None else out + self.bias


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, past: KeyValue | None, divisor: float, tap: Tap, name: str
) -> tuple[Tensor, KeyValue]:
    """Causal self-attention, in which several heads may share keys and values (Ainslie et al. 2023, "GQA").

    Args:
        q: queries [B, P, H, d].
        k: keys [B, P, K, d]; each of them serves H / K heads in turn.
        v: values [B, P, K, d].
        mask: the mask that is added to the scores, [B, 1, P, T].
        past: keys and values of earlier positions, [B, K, T - P, d] each.
        divisor: of the scores.
        tap: called with each hook point.
        name: the attention's, such as `blocks.0.attn`.

    Returns:
        The heads' outputs side by side, [B, P, H * d]; keys and values of all positions, [B, K, T, d] each.
    """
    batch, new, heads, width = q.shape
    groups = k.shape[2]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, H, P, d], [B, K, P, d] twice
    if past is not None:
        k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)  # [B, K, T, d]
    shared = heads != groups
    if shared:  # the heads of a group become positions of one head, so that keys and values are not copied
        q = q.reshape(batch, groups, heads // groups * new, width)  # [B, K, H / K * P, d]
    scores = q @ k.transpose(2, 3) / divisor
    if shared:
        scores = scores.reshape(batch, heads, new, -1)  # [B, H, P, T]
    scores = tap(f"{name}.hook_attn_scores", scores + mask)
    pattern = tap(f"{name}.hook_pattern", torch.softmax(scores, dim=-1))
    if shared:
        pattern = pattern.reshape(batch, groups, heads // groups * new, -1)  # [B, K, H / K * P, T]
    z = pattern @ v
    if shared:
        z = z.reshape(batch, heads, new, width)  # [B, H, P, d]
    z = tap(f"{name}.hook_z", z.transpose(1, 2))  # [B, P, H, d]
    return z.reshape(batch, new, -1), (k, v)


def causal_mask(attention_mask: Tensor, new: int) -> Tensor:
    """The mask to add to the scores: 0 for the position itself and earlier ones that are not padding, -inf for others.

    A padding position attends only to itself, so its values are finite, and no token depends on them. In ONNX Runtime,
    adding takes a fraction of the time of `Where`.

    Returns:
        float32 [B, 1, P, T].
    """
    total = attention_mask.shape[1]
    key = torch.arange(total, device=attention_mask.device).unsqueeze(0)  # [1, T]
    query = torch.arange(total - new, total, device=attention_mask.device).unsqueeze(1)  # [P, 1]
    real = attention_mask[:, None, None, :] != 0  # [B, 1, 1, T]
    seen = ((key < query) & real) | (key == query)  # [B, 1, P, T]
    return torch.where(seen, 0.0, -math.inf)


def inverse_frequencies(cfg: ModelConfig) -> Tensor:
    """The angles by which rotary embeddings rotate each pair of coordinates per position, [d / 2].

    Su et al. 2021, "RoFormer": base ** (-2 i / d). Chen et al. 2023, "Extending Context Window of Large Language Models
    via Positional Interpolation", divide all of them by a factor. Llama 3.1 divides the slow ones only, with a smooth
    transition: it divides frequencies with fewer than `low_freq_factor` turns within the original context by the
    factor, and leaves those with more than `high_freq_factor` turns unchanged. In float32, as the models were trained.
    """
    assert cfg.rotary_base is not None and cfg.rotary_dim is not None
    exponents = torch.arange(0, cfg.rotary_dim, 2, device="cpu").float() / cfg.rotary_dim
    frequencies: Tensor = 1.0 / (cfg.rotary_base**exponents) / cfg.rotary_scaling_factor  # [d / 2]
    if cfg.use_NTK_by_parts_rope:
        low, high = cfg.NTK_by_parts_low_freq_factor, cfg.NTK_by_parts_high_freq_factor
        turns = cfg.NTK_original_ctx_len * frequencies / (2 * math.pi)  # within the original context
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        frequencies = (1 - kept) * frequencies / cfg.NTK_by_parts_factor + kept * frequencies
    return frequencies


class Rotary(nn.Module):
    """The rotation of each position; its frequencies are stored with the weights, as constants."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        assert cfg.rotary_dim is not None
        self.inv_freq = nn.Parameter(torch.empty(cfg.rotary_dim // 2), requires_grad=False)

    def forward(self, position_ids: Tensor) -> Rotation:
        angles = position_ids[:, :, None, None].float() * self.inv_freq  # [B, P, 1, d / 2]
        angles = torch.cat((angles, angles), dim=-1)  # [B, P, 1, d]
        return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotates coordinates i and i + d / 2 of each head by the position's angle; [B, P, heads, d]."""
    cosines, sines = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat((-second, first), dim=-1) * sines


class Block(nn.Module):
    """A transformer block, which reads the residual stream and adds to it: attention, then MLP.

    Attention is called with its input [B, P, D], the mask, the rotation, past keys and values, the tap and its name; it
    returns its output [B, P, D], and keys and values of all positions. The MLP is called with its input, the tap and
    its name, and returns its output.

    Args:
        layer: its number.
        parts: the normalisation before attention, attention, the normalisation before the MLP, and the MLP, in this
            order, by the prefixes of their parameters.
    """

    def __init__(self, layer: int, **parts: nn.Module) -> None:
        super().__init__()
        self.name = f"blocks.{layer}"
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(
        self, resid: Tensor, mask: Tensor, rotation: Rotation | None, past: KeyValue | None, tap: Tap
    ) -> tuple[Tensor, KeyValue]:
        name = self.name
        ln1, attention, ln2, mlp = self.children()
        resid = tap(f"{name}.hook_resid_pre", resid)
        out, present = attention(ln1(resid, tap, f"{name}.ln1"), mask, rotation, past, tap, f"{name}.attn")
        resid = tap(f"{name}.hook_resid_mid", resid + tap(f"{name}.hook_attn_out", out))
        out = mlp(ln2(resid, tap, f"{name}.ln2"), tap, f"{name}.mlp")
        return tap(f"{name}.hook_resid_post", resid + tap(f"{name}.hook_mlp_out", out)), present


class Decoder(nn.Module, ABC):
    """A model whose forward pass passes every intermediate value to a tap.

    Args:
        cfg: the model's shape and kind.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg

    @abstractmethod
    def embed(self, input_ids: Tensor, position_ids: Tensor, tap: Tap) -> Tensor:
        """The residual stream at the first block's input, [B, P, D]."""

    def rotation(self, position_ids: Tensor) -> Rotation | None:
        """The rotation of queries and keys, or None."""
        return None

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The blocks, in order."""

    @property
    @abstractmethod
    def final_norm(self) -> nn.Module:
        """The normalisation that the unembedding reads."""

    def add_unembedding(self, embedding: nn.Embedding) -> None:
        """Adds the unembedding, `lm_head`: the embedding itself if the two are tied."""
        self.lm_head = nn.Linear(self.cfg.d_model, self.cfg.d_vocab, bias=False)
        if self.cfg.tie_word_embeddings:
            self.lm_head.weight = embedding.weight

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past: list[KeyValue] | None,
        tap: Tap,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Computes logits and the extended cache.

        Args:
            input_ids: [B, P] int64, the new tokens.
            attention_mask: [B, T] int64, 0 where a past or new position is padding.
            position_ids: [B, P] int64.
            past: per layer the keys and values of earlier positions, each [B, K, T - P, d]; None leaves inputs for them
                out of the graph.
            tap: called with the name and value of each hook point, in the order of computation; its result replaces the
                value.

        Returns:
            Logits [B, P, V]; per layer keys and values [B, K, T, d].
        """
        mask = causal_mask(attention_mask, input_ids.shape[1])
        resid = self.embed(input_ids, position_ids, tap)  # [B, P, D]
        rotation = self.rotation(position_ids)
        present = []
        for block, cached in zip(self.blocks, past if past is not None else [None] * len(self.blocks), strict=True):
            resid, extended = block(resid, mask, rotation, cached, tap)
            present.append(extended)
        logits = self.final_norm(resid, tap, "ln_final") @ self.lm_head.weight.T
        return logits, present
