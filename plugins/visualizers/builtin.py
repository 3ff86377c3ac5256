"""The built-in visualizers, as a plugin."""

from __future__ import annotations

from collections.abc import Callable

from onnxlens.plugins._hookspecs import hookimpl
from onnxlens.plugins._viewing.visualizer import Visualizer
from onnxlens.plugins.visualizers.ablation import Ablation
from onnxlens.plugins.visualizers.attention import Attention
from onnxlens.plugins.visualizers.attribution import Attribution
from onnxlens.plugins.visualizers.compare import Compare
from onnxlens.plugins.visualizers.embedding import Embedding
from onnxlens.plugins.visualizers.flow import Flow
from onnxlens.plugins.visualizers.generation import Generation
from onnxlens.plugins.visualizers.layernorm import LayerNorm
from onnxlens.plugins.visualizers.logit_lens import LogitLens
from onnxlens.plugins.visualizers.mlp import MLP
from onnxlens.plugins.visualizers.patching import Patching
from onnxlens.plugins.visualizers.predictions import Predictions
from onnxlens.plugins.visualizers.qkv import QKV
from onnxlens.plugins.visualizers.residual import Residual
from onnxlens.plugins.visualizers.rollout import Rollout
from onnxlens.plugins.visualizers.sampling import Sampling
from onnxlens.plugins.visualizers.surprisal import Surprisal
from onnxlens.plugins.visualizers.tokens import Tokens

__all__ = ["VISUALIZERS", "register_visualizers"]

ONNXLENS_PLUGIN_API = 1

VISUALIZERS: dict[str, type[Visualizer]] = {
    "tokens": Tokens,
    "embedding": Embedding,
    "qkv": QKV,
    "attention": Attention,
    "rollout": Rollout,
    "layernorm": LayerNorm,
    "mlp": MLP,
    "residual": Residual,
    "logit_lens": LogitLens,
    "attribution": Attribution,
    "predictions": Predictions,
    "sampling": Sampling,
    "surprisal": Surprisal,
    "ablation": Ablation,
    "patching": Patching,
    "flow": Flow,
    "compare": Compare,
    "generation": Generation,
}


@hookimpl
def register_visualizers(register: Callable[[str, type[Visualizer]], None]) -> None:
    """Registers them."""
    for name, visualizer in VISUALIZERS.items():
        register(name, visualizer)
