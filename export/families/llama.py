"""Llama (Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models") and models configured like it.

Rotary positions, RMS normalisation, keys and values shared by groups of heads, a gated MLP. SmolLM2, TinyLlama and
Mistral without a sliding window differ by their configuration alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from onnxlens.export.families.base import Family, check_division, check_entries
from onnxlens.export.families.hook_table import key_axis
from onnxlens.export.families.parts import (
    ACTIVATIONS,
    Block,
    Decoder,
    KeyValue,
    Linear,
    RMSNorm,
    Rotary,
    Rotation,
    Tap,
    attend,
    inverse_frequencies,
    rotate,
)
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.weight_view import WeightView
from onnxlens.runtime.errors import CheckpointError

__all__ = ["Llama", "Mistral"]

_ROPE_TYPES = ("default", "linear", "llama3")
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


class Llama(Family):
    """Llama, and models with the same configuration."""

    MODEL_TYPE = "llama"
    CONFIG: ClassVar[type[PretrainedConfig]] = LlamaConfig
    REFERENCE: ClassVar[type[PreTrainedModel]] = LlamaForCausalLM
    PREFIX, EMBEDDING = "model.", "embed_tokens.weight"
    OTHER_NAMES = ("rope_theta", "rope_scaling")  # the name of 'rope_parameters' before transformers 5
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "hidden_size": 4096,
        "head_dim": None,
        "intermediate_size": 11008,
        "max_position_embeddings": 2048,
        "vocab_size": 32000,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }

    def check(self, entries: Mapping[str, Any], origin: str) -> None:
        optional = tuple(name for name in ("num_key_value_heads", "head_dim") if entries[name] is not None)
        check_entries(
            entries,
            origin,
            counts=(
                *("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size"),
                *("max_position_embeddings", "vocab_size"),
                *optional,
            ),
            switches=("attention_bias", "mlp_bias", "tie_word_embeddings"),
            epsilon="rms_norm_eps",
            activation="hidden_act",
            activations=ACTIVATIONS,
        )
        if entries["head_dim"] is None:
            check_division(entries, origin, "hidden_size", "num_attention_heads")
        if entries["num_key_value_heads"] is not None:
            check_division(entries, origin, "num_attention_heads", "num_key_value_heads")
        if _head_width(entries) % 2:
            raise CheckpointError(
                f"{origin}: a head has {_head_width(entries)} coordinates ('head_dim'), but a rotation needs an even "
                "number of them."
            )
        _check_rope(entries["rope_parameters"], origin)

    def config(self, entries: Mapping[str, Any]) -> ModelConfig:
        rope = entries["rope_parameters"] or {}
        kind, width = rope.get("rope_type", "default"), _head_width(entries)
        scaling: dict[str, Any] = {}
        if kind == "linear":
            scaling = {"rotary_scaling_factor": float(rope["factor"])}
        elif kind == "llama3":
            scaling = {
                "use_NTK_by_parts_rope": True,
                "NTK_by_parts_factor": float(rope["factor"]),
                "NTK_by_parts_low_freq_factor": float(rope["low_freq_factor"]),
                "NTK_by_parts_high_freq_factor": float(rope["high_freq_factor"]),
                "NTK_original_ctx_len": rope["original_max_position_embeddings"],
            }
        return ModelConfig(
            n_layers=entries["num_hidden_layers"],
            n_heads=entries["num_attention_heads"],
            n_key_value_heads=entries["num_key_value_heads"] or entries["num_attention_heads"],
            d_model=entries["hidden_size"],
            d_head=width,
            d_mlp=entries["intermediate_size"],
            d_vocab=entries["vocab_size"],
            n_ctx=entries["max_position_embeddings"],
            act_fn=entries["hidden_act"],
            eps=entries["rms_norm_eps"],
            tie_word_embeddings=entries["tie_word_embeddings"],
            normalization_type="RMS",
            positional_embedding_type="rotary",
            gated_mlp=True,
            rotary_dim=width,
            rotary_base=float(rope.get("rope_theta", 10_000.0)),
            default_prepend_bos=False,
            bos_token_id=entries["bos_token_id"],
            **scaling,
        )

    def is_buffer(self, name: str) -> bool:
        return name.endswith("rotary_emb.inv_freq")  # in old checkpoints

    def constants(self) -> dict[str, Tensor]:
        return {"rotary_emb.inv_freq": inverse_frequencies(self.cfg)}

    def stored(self, name: str, tensor: Tensor) -> Tensor:
        """Projections are stored as [in, out], in which a graph multiplies; checkpoints have [out, in]."""
        return tensor.T if name.startswith("layers.") and tensor.ndim == 2 else tensor

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        cfg, entries = self.cfg, self.entries
        width, inner = cfg.d_model, cfg.d_mlp
        queries, keys = cfg.n_heads * cfg.d_head, cfg.key_value_heads * cfg.d_head
        projections = {
            "self_attn.q_proj": (width, queries),
            "self_attn.k_proj": (width, keys),
            "self_attn.v_proj": (width, keys),
            "self_attn.o_proj": (queries, width),
            "mlp.gate_proj": (width, inner),
            "mlp.up_proj": (width, inner),
            "mlp.down_proj": (inner, width),
        }
        block: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (width,)}
        for name, shape in projections.items():
            block[f"{name}.weight"] = shape
            if entries.get("attention_bias" if name.startswith("self_attn") else "mlp_bias"):
                block[f"{name}.bias"] = shape[1:]
        block["post_attention_layernorm.weight"] = (width,)
        return {
            "embed_tokens.weight": (cfg.d_vocab, width),
            **{f"layers.{n}.{name}": shape for n in range(cfg.n_layers) for name, shape in block.items()},
            "norm.weight": (width,),
            **({} if self.tied else {self.UNEMBEDDING: (cfg.d_vocab, width)}),
        }

    def weights(self) -> dict[str, WeightView]:
        cfg = self.cfg
        known = self.parameter_shapes()

        def bias(tensor: str, *axes: str, reshape: tuple[int, ...] | None = None) -> WeightView:
            return WeightView(tensor if tensor in known else None, axes, reshape=reshape if tensor in known else None)

        heads = {"Q": ("q_proj", "head", cfg.n_heads)}
        keys = (key_axis(cfg), cfg.key_value_heads)
        heads |= {"K": ("k_proj", *keys), "V": ("v_proj", *keys)}
        views = {"embed.W_E": WeightView("embed_tokens.weight", ("d_vocab", "d_model"))}
        for layer in range(cfg.n_layers):
            name, attn, mlp = f"blocks.{layer}", f"layers.{layer}.self_attn", f"layers.{layer}.mlp"
            views[f"{name}.ln1.w"] = WeightView(f"layers.{layer}.input_layernorm.weight", ("d_model",))
            for letter, (projection, axis, count) in heads.items():
                views[f"{name}.attn.W_{letter}"] = WeightView(
                    f"{attn}.{projection}.weight",
                    (axis, "d_model", "d_head"),
                    reshape=(cfg.d_model, count, cfg.d_head),
                    transpose=(1, 0, 2),
                )
            views[f"{name}.attn.W_O"] = WeightView(
                f"{attn}.o_proj.weight",
                ("head", "d_head", "d_model"),
                reshape=(cfg.n_heads, cfg.d_head, cfg.d_model),
            )
            for letter, (projection, axis, count) in heads.items():
                views[f"{name}.attn.b_{letter}"] = bias(
                    f"{attn}.{projection}.bias", axis, "d_head", reshape=(count, cfg.d_head)
                )
            views |= {
                f"{name}.attn.b_O": bias(f"{attn}.o_proj.bias", "d_model"),
                f"{name}.ln2.w": WeightView(f"layers.{layer}.post_attention_layernorm.weight", ("d_model",)),
                f"{name}.mlp.W_gate": WeightView(f"{mlp}.gate_proj.weight", ("d_model", "d_mlp")),
                f"{name}.mlp.b_gate": bias(f"{mlp}.gate_proj.bias", "d_mlp"),
                f"{name}.mlp.W_in": WeightView(f"{mlp}.up_proj.weight", ("d_model", "d_mlp")),
                f"{name}.mlp.b_in": bias(f"{mlp}.up_proj.bias", "d_mlp"),
                f"{name}.mlp.W_out": WeightView(f"{mlp}.down_proj.weight", ("d_mlp", "d_model")),
                f"{name}.mlp.b_out": bias(f"{mlp}.down_proj.bias", "d_model"),
            }
        return {
            **views,
            "ln_final.w": WeightView("norm.weight", ("d_model",)),
            "unembed.W_U": WeightView(self.head, ("d_model", "d_vocab"), transpose=(1, 0)),
            "unembed.b_U": WeightView(None, ("d_vocab",)),
        }

    def module(self) -> Decoder:
        return _Module(
            self.cfg,
            attention_bias=self.entries.get("attention_bias", False),
            mlp_bias=self.entries.get("mlp_bias", False),
        )


class Mistral(Llama):
    """Mistral (Jiang et al. 2023, "Mistral 7B") without its sliding window: a Llama with other defaults."""

    MODEL_TYPE = "mistral"
    CONFIG, REFERENCE = MistralConfig, MistralForCausalLM
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **{name: value for name, value in Llama.DEFAULTS.items() if name not in ("attention_bias", "mlp_bias")},
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "max_position_embeddings": 131_072,
        "sliding_window": None,
    }

    def check(self, entries: Mapping[str, Any], origin: str) -> None:
        super().check({**entries, "attention_bias": False, "mlp_bias": False}, origin)
        if entries["sliding_window"] is not None:
            raise CheckpointError(
                f"{origin}: 'sliding_window' is {entries['sliding_window']!r:.100}; models with sliding-window "
                "attention cannot be exported."
            )


def _head_width(entries: Mapping[str, Any]) -> int:
    width: int = entries["head_dim"] or entries["hidden_size"] // entries["num_attention_heads"]
    return width


def _check_rope(rope: Any, origin: str) -> None:
    if rope is None:
        return
    if not isinstance(rope, dict):
        raise CheckpointError(f"{origin}: 'rope_parameters' must be an object, not {rope!r:.100}.")
    kind = rope.get("rope_type", "default")
    if kind not in _ROPE_TYPES:
        raise CheckpointError(
            f"{origin}: the rotation of positions ('rope_type') is {kind!r:.100}, and onnxlens computes "
            f"{', '.join(map(repr, _ROPE_TYPES))} only."
        )
    needed = {"default": (), "linear": ("factor",), "llama3": _LLAMA3}[kind]
    for name in ("rope_theta", *needed):
        value: Any = rope.get(name, 10_000.0 if name == "rope_theta" else None)
        if type(value) not in (int, float) or not 0 < value < 1e30:
            raise CheckpointError(f"{origin}: {name!r} of the rotation must be a number above 0, not {value!r:.100}.")
    if kind == "llama3" and not rope["low_freq_factor"] < rope["high_freq_factor"]:
        raise CheckpointError(
            f"{origin}: 'low_freq_factor' {rope['low_freq_factor']} of the rotation must be below 'high_freq_factor' "
            f"{rope['high_freq_factor']}."
        )
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(
            f"{origin}: 'partial_rotary_factor' is {rope['partial_rotary_factor']!r:.100}; models that rotate only a "
            "part of each head cannot be exported."
        )


class _Attention(nn.Module):
    def __init__(self, cfg: ModelConfig, layer: int, *, bias: bool) -> None:
        super().__init__()
        self.n_heads, self.n_keys, self.d_head = cfg.n_heads, cfg.key_value_heads, cfg.d_head
        self.divisor = cfg.attn_divisor(layer)
        self.q_proj = Linear(cfg.d_model, self.n_heads * self.d_head, bias=bias)
        self.k_proj = Linear(cfg.d_model, self.n_keys * self.d_head, bias=bias)
        self.v_proj = Linear(cfg.d_model, self.n_keys * self.d_head, bias=bias)
        self.o_proj = Linear(self.n_heads * self.d_head, cfg.d_model, bias=bias)

    def forward(
        self, x: Tensor, mask: Tensor, rotation: Rotation, past: KeyValue | None, tap: Tap, name: str
    ) -> tuple[Tensor, KeyValue]:
        batch, new, _ = x.shape
        q = tap(f"{name}.hook_q", self.q_proj(x).reshape(batch, new, self.n_heads, self.d_head))
        k = tap(f"{name}.hook_k", self.k_proj(x).reshape(batch, new, self.n_keys, self.d_head))
        v = tap(f"{name}.hook_v", self.v_proj(x).reshape(batch, new, self.n_keys, self.d_head))
        q = tap(f"{name}.hook_rot_q", rotate(q, rotation))
        k = tap(f"{name}.hook_rot_k", rotate(k, rotation))
        z, present = attend(q, k, v, mask, past, self.divisor, tap, name)  # [B, P, H * d]
        return self.o_proj(z), present


class _MLP(nn.Module):
    def __init__(self, cfg: ModelConfig, *, bias: bool) -> None:
        super().__init__()
        self.gate_proj = Linear(cfg.d_model, cfg.d_mlp, bias=bias)
        self.up_proj = Linear(cfg.d_model, cfg.d_mlp, bias=bias)
        self.down_proj = Linear(cfg.d_mlp, cfg.d_model, bias=bias)
        self.activation = ACTIVATIONS[cfg.act_fn]

    def forward(self, x: Tensor, tap: Tap, name: str) -> Tensor:
        pre = tap(f"{name}.hook_pre", self.gate_proj(x))  # [B, P, M]
        linear = tap(f"{name}.hook_pre_linear", self.up_proj(x))
        post = tap(f"{name}.hook_post", self.activation(pre) * linear)
        out: Tensor = self.down_proj(post)
        return out


class _Module(Decoder):
    def __init__(self, cfg: ModelConfig, *, attention_bias: bool, mlp_bias: bool) -> None:
        super().__init__(cfg)
        self.rotary_emb = Rotary(cfg)
        self.embed_tokens = nn.Embedding(cfg.d_vocab, cfg.d_model)
        self.layers = nn.ModuleList(
            Block(
                layer,
                input_layernorm=RMSNorm(cfg.d_model, cfg.eps),
                self_attn=_Attention(cfg, layer, bias=attention_bias),
                post_attention_layernorm=RMSNorm(cfg.d_model, cfg.eps),
                mlp=_MLP(cfg, bias=mlp_bias),
            )
            for layer in range(cfg.n_layers)
        )
        self.norm = RMSNorm(cfg.d_model, cfg.eps)
        self.add_unembedding(self.embed_tokens)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.layers

    @property
    def final_norm(self) -> nn.Module:
        return self.norm

    def embed(self, input_ids: Tensor, position_ids: Tensor, tap: Tap) -> Tensor:
        return tap("hook_embed", self.embed_tokens(input_ids))

    def rotation(self, position_ids: Tensor) -> Rotation:
        found: Rotation = self.rotary_emb(position_ids)
        return found
