"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

Learned positions, layer normalisation before each half of a block, queries, keys and values in one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from onnxlens.export.families.base import Family, check_division, check_entries
from onnxlens.export.families.parts import (
    ACTIVATIONS,
    Block,
    Decoder,
    KeyValue,
    LayerNorm,
    Linear,
    Rotation,
    Tap,
    attend,
)
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.weight_view import WeightView

__all__ = ["GPT2"]

_BUFFERS = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # causal masks in old checkpoints


class GPT2(Family):
    """GPT-2, and models with the same configuration."""

    MODEL_TYPE = "gpt2"
    CONFIG, REFERENCE = GPT2Config, GPT2LMHeadModel
    LAYERS, TOKENIZER_CLASS = "n_layer", "GPT2TokenizerFast"
    PREFIX, EMBEDDING = "transformer.", "wte.weight"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "n_layer": 12,
        "n_head": 12,
        "n_embd": 768,
        "n_positions": 1024,
        "vocab_size": 50257,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
    }

    def check(self, entries: Mapping[str, Any], origin: str) -> None:
        inner = ("n_inner",) if entries["n_inner"] is not None else ()
        check_entries(
            entries,
            origin,
            counts=("n_layer", "n_head", "n_embd", "n_positions", "vocab_size", *inner),
            switches=("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings"),
            epsilon="layer_norm_epsilon",
            activation="activation_function",
            activations=ACTIVATIONS,
        )
        check_division(entries, origin, "n_embd", "n_head")

    def config(self, entries: Mapping[str, Any]) -> ModelConfig:
        heads, width, inner = entries["n_head"], entries["n_embd"], entries["n_inner"]
        return ModelConfig(
            n_layers=entries["n_layer"],
            n_heads=heads,
            d_model=width,
            d_head=width // heads,
            d_mlp=4 * width if inner is None else inner,
            d_vocab=entries["vocab_size"],
            n_ctx=entries["n_positions"],
            act_fn=entries["activation_function"],
            eps=entries["layer_norm_epsilon"],
            use_attn_scale=entries["scale_attn_weights"],
            scale_attn_by_inverse_layer_idx=entries["scale_attn_by_inverse_layer_idx"],
            tie_word_embeddings=entries["tie_word_embeddings"],
            bos_token_id=entries["bos_token_id"],
        )

    def is_buffer(self, name: str) -> bool:
        return _BUFFERS.fullmatch(name) is not None

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        cfg = self.cfg
        width, inner = cfg.d_model, cfg.d_mlp
        block: dict[str, tuple[int, ...]] = {
            "ln_1.weight": (width,),
            "ln_1.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width),
            "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width),
            "attn.c_proj.bias": (width,),
            "ln_2.weight": (width,),
            "ln_2.bias": (width,),
            "mlp.c_fc.weight": (width, inner),
            "mlp.c_fc.bias": (inner,),
            "mlp.c_proj.weight": (inner, width),
            "mlp.c_proj.bias": (width,),
        }
        return {
            "wte.weight": (cfg.d_vocab, width),
            "wpe.weight": (cfg.n_ctx, width),
            **{f"h.{n}.{name}": shape for n in range(cfg.n_layers) for name, shape in block.items()},
            "ln_f.weight": (width,),
            "ln_f.bias": (width,),
            **({} if self.tied else {self.UNEMBEDDING: (cfg.d_vocab, width)}),
        }

    def weights(self) -> dict[str, WeightView]:
        cfg = self.cfg
        model, heads, width = cfg.d_model, cfg.n_heads, cfg.d_head
        views = {
            "embed.W_E": WeightView("wte.weight", ("d_vocab", "d_model")),
            "pos_embed.W_pos": WeightView("wpe.weight", ("n_ctx", "d_model")),
        }
        for layer in range(cfg.n_layers):
            name, stored = f"blocks.{layer}", f"h.{layer}"
            views |= _norm(f"{name}.ln1", f"{stored}.ln_1")
            # Queries, keys and values lie side by side in one matrix, the heads of each in its columns.
            for place, letter in enumerate("QKV"):
                views[f"{name}.attn.W_{letter}"] = WeightView(
                    f"{stored}.attn.c_attn.weight",
                    ("head", "d_model", "d_head"),
                    slice=(1, place * model, (place + 1) * model),
                    reshape=(model, heads, width),
                    transpose=(1, 0, 2),
                )
            views[f"{name}.attn.W_O"] = WeightView(
                f"{stored}.attn.c_proj.weight", ("head", "d_head", "d_model"), reshape=(heads, width, model)
            )
            for place, letter in enumerate("QKV"):
                views[f"{name}.attn.b_{letter}"] = WeightView(
                    f"{stored}.attn.c_attn.bias",
                    ("head", "d_head"),
                    slice=(0, place * model, (place + 1) * model),
                    reshape=(heads, width),
                )
            views[f"{name}.attn.b_O"] = WeightView(f"{stored}.attn.c_proj.bias", ("d_model",))
            views |= _norm(f"{name}.ln2", f"{stored}.ln_2")
            views |= {
                f"{name}.mlp.W_in": WeightView(f"{stored}.mlp.c_fc.weight", ("d_model", "d_mlp")),
                f"{name}.mlp.b_in": WeightView(f"{stored}.mlp.c_fc.bias", ("d_mlp",)),
                f"{name}.mlp.W_out": WeightView(f"{stored}.mlp.c_proj.weight", ("d_mlp", "d_model")),
                f"{name}.mlp.b_out": WeightView(f"{stored}.mlp.c_proj.bias", ("d_model",)),
            }
        return {
            **views,
            **_norm("ln_final", "ln_f"),
            "unembed.W_U": WeightView(self.head, ("d_model", "d_vocab"), transpose=(1, 0)),
            "unembed.b_U": WeightView(None, ("d_vocab",)),
        }

    def module(self) -> Decoder:
        return _Module(self.cfg)


def _norm(name: str, stored: str) -> dict[str, WeightView]:
    return {
        f"{name}.w": WeightView(f"{stored}.weight", ("d_model",)),
        f"{name}.b": WeightView(f"{stored}.bias", ("d_model",)),
    }


class _Attention(nn.Module):
    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.n_heads, self.d_head, self.divisor = cfg.n_heads, cfg.d_head, cfg.attn_divisor(layer)
        self.c_attn = Linear(cfg.d_model, 3 * cfg.d_model)
        self.c_proj = Linear(cfg.d_model, cfg.d_model)

    def forward(
        self, x: Tensor, mask: Tensor, rotation: Rotation | None, past: KeyValue | None, tap: Tap, name: str
    ) -> tuple[Tensor, KeyValue]:
        batch, new, _ = x.shape
        heads = (batch, new, self.n_heads, self.d_head)
        q, k, v = self.c_attn(x).chunk(3, dim=-1)  # [B, P, D] each
        q = tap(f"{name}.hook_q", q.reshape(heads))
        k = tap(f"{name}.hook_k", k.reshape(heads))
        v = tap(f"{name}.hook_v", v.reshape(heads))
        z, present = attend(q, k, v, mask, past, self.divisor, tap, name)  # [B, P, H * d]
        return self.c_proj(z), present


class _MLP(nn.Module):
    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.c_fc = Linear(cfg.d_model, cfg.d_mlp)
        self.c_proj = Linear(cfg.d_mlp, cfg.d_model)
        self.activation = ACTIVATIONS[cfg.act_fn]

    def forward(self, x: Tensor, tap: Tap, name: str) -> Tensor:
        pre = tap(f"{name}.hook_pre", self.c_fc(x))  # [B, P, M]
        post = tap(f"{name}.hook_post", self.activation(pre))
        out: Tensor = self.c_proj(post)
        return out


class _Module(Decoder):
    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg)
        self.wte = nn.Embedding(cfg.d_vocab, cfg.d_model)
        self.wpe = nn.Embedding(cfg.n_ctx, cfg.d_model)
        self.h = nn.ModuleList(
            Block(
                layer,
                ln_1=LayerNorm(cfg.d_model, cfg.eps),
                attn=_Attention(cfg, layer),
                ln_2=LayerNorm(cfg.d_model, cfg.eps),
                mlp=_MLP(cfg),
            )
            for layer in range(cfg.n_layers)
        )
        self.ln_f = LayerNorm(cfg.d_model, cfg.eps)
        self.add_unembedding(self.wte)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.h

    @property
    def final_norm(self) -> nn.Module:
        return self.ln_f

    def embed(self, input_ids: Tensor, position_ids: Tensor, tap: Tap) -> Tensor:
        return tap("hook_embed", self.wte(input_ids)) + tap("hook_pos_embed", self.wpe(position_ids))
