"""GPT-2 in PyTorch, with every intermediate value under its name.

The formulas are those of Radford et al. 2019 ("Language Models are Unsupervised Multitask Learners") as Hugging
Face's `GPT2LMHeadModel` computes them; the names are TransformerLens's. Module and parameter names are Hugging
Face's, so a checkpoint's state dict loads as it is.

Letters in shape comments: B batch, P new positions, T past and new positions together, D d_model, H heads,
d d_head, M d_mlp, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxlens.runtime.config import ModelConfig

__all__ = ["GPT2", "KeyValue"]

KeyValue = tuple[Tensor, Tensor]
Tap = Callable[[str, Tensor], Tensor]

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


class Linear(nn.Module):
    """x @ weight + bias with the weight as [in, out], the layout in which GPT-2's checkpoints store it."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Attention(nn.Module):
    """Causal self-attention with a key-value cache."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.n_head, self.d_head = config.n_head, config.d_head
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.divisor = config.attn_divisor(layer)

    def forward(self, x: Tensor, mask: Tensor, past: KeyValue | None, tap: Tap, name: str) -> tuple[Tensor, KeyValue]:
        batch, new, _ = x.shape
        heads = (batch, new, self.n_head, self.d_head)
        q, k, v = self.c_attn(x).chunk(3, dim=-1)  # [B, P, D] each
        q = tap(f"{name}.hook_q", q.reshape(heads)).transpose(1, 2)  # [B, H, P, d]
        k = tap(f"{name}.hook_k", k.reshape(heads)).transpose(1, 2)  # [B, H, P, d]
        v = tap(f"{name}.hook_v", v.reshape(heads)).transpose(1, 2)  # [B, H, P, d]
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)  # [B, H, T, d]

        scores = q @ k.transpose(2, 3) / self.divisor  # [B, H, P, T]
        scores = tap(f"{name}.hook_attn_scores", scores + mask)
        pattern = tap(f"{name}.hook_pattern", torch.softmax(scores, dim=-1))
        z = tap(f"{name}.hook_z", (pattern @ v).transpose(1, 2))  # [B, P, H, d]
        return self.c_proj(z.reshape(batch, new, -1)), (k, v)


class MLP(nn.Module):
    """Two linear layers with an activation function between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, config.d_mlp)
        self.c_proj = Linear(config.d_mlp, config.n_embd)
        self.activation = ACTIVATIONS[config.activation_function]

    def forward(self, x: Tensor, tap: Tap, name: str) -> Tensor:
        pre = tap(f"{name}.hook_pre", self.c_fc(x))  # [B, P, M]
        post = tap(f"{name}.hook_post", self.activation(pre))
        out: Tensor = self.c_proj(post)
        return out


class Block(nn.Module):
    """One transformer block: attention, then MLP, each read from and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.name = f"blocks.{layer}"
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, resid: Tensor, mask: Tensor, past: KeyValue | None, tap: Tap) -> tuple[Tensor, KeyValue]:
        name = self.name
        resid = tap(f"{name}.hook_resid_pre", resid)
        out, present = self.attn(self.ln_1(resid, tap, f"{name}.ln1"), mask, past, tap, f"{name}.attn")
        resid = tap(f"{name}.hook_resid_mid", resid + tap(f"{name}.hook_attn_out", out))
        out = self.mlp(self.ln_2(resid, tap, f"{name}.ln2"), tap, f"{name}.mlp")
        return tap(f"{name}.hook_resid_post", resid + tap(f"{name}.hook_mlp_out", out)), present


class GPT2(nn.Module):
    """GPT-2 whose forward pass hands every intermediate value to a tap.

    Args:
        config: the model's shape and switches.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.wte.weight

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
            past: per layer the keys and values of earlier positions, each [B, H, T - P, d]; None where there are none
                and none can be, which leaves the graph without their place.
            tap: called with the name and value of each hook point, in the order of computation; what it returns
                takes the value's place.

        Returns:
            Logits [B, P, V]; per layer keys and values [B, H, T, d].
        """
        mask = causal_mask(attention_mask, input_ids.shape[1])
        resid = tap("hook_embed", self.wte(input_ids)) + tap("hook_pos_embed", self.wpe(position_ids))  # [B, P, D]
        present = []
        for block, cached in zip(self.h, past if past is not None else [None] * len(self.h), strict=True):
            resid, extended = block(resid, mask, cached, tap)
            present.append(extended)
        final = self.ln_f(resid, tap, "ln_final")
        return final @ self.lm_head.weight.T, present


def causal_mask(attention_mask: Tensor, new: int) -> Tensor:
    """What is added to the scores: 0 for itself and earlier positions that are not padding, -inf for all others.

    A padding position sees only itself, so its values stay finite and nothing real depends on them. Adding takes ONNX
    Runtime a fraction of the time of choosing with `Where`.

    Returns:
        float32 [B, 1, P, T].
    """
    total = attention_mask.shape[1]
    key = torch.arange(total, device=attention_mask.device).unsqueeze(0)  # [1, T]
    query = torch.arange(total - new, total, device=attention_mask.device).unsqueeze(1)  # [P, 1]
    real = attention_mask[:, None, None, :] != 0  # [B, 1, 1, T]
    seen = ((key < query) & real) | (key == query)  # [B, 1, P, T]
    return torch.where(seen, 0.0, -math.inf)
