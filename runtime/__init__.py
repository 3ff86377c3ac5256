"""From a bundle on disk to logits and activations, with NumPy and ONNX Runtime only.

    from onnxlens.runtime import Runner

    output = Runner("models/mine").run([[1, 2, 3]], names_filter="*.hook_pattern")

Each name is imported when it is first used. `onnxlens.runtime.errors` has every error that onnxlens raises.
"""

from typing import TYPE_CHECKING

from onnxlens.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from onnxlens.runtime.activations.applied import Applied
    from onnxlens.runtime.activations.cache import ActivationCache
    from onnxlens.runtime.activations.factored_matrix import FactoredMatrix
    from onnxlens.runtime.activations.folding import folded_logits
    from onnxlens.runtime.activations.trace import open_trace
    from onnxlens.runtime.bundle.bundle import Bundle
    from onnxlens.runtime.bundle.cfg import TransformerLensConfig
    from onnxlens.runtime.bundle.config import ModelConfig
    from onnxlens.runtime.bundle.hooks import HookPoint
    from onnxlens.runtime.bundle.model_facts import ModelFacts
    from onnxlens.runtime.bundle.named_weights import NamedWeights
    from onnxlens.runtime.errors import OnnxLensError
    from onnxlens.runtime.interventions.functions import Hook
    from onnxlens.runtime.interventions.intervention_files import read_interventions, write_interventions
    from onnxlens.runtime.interventions.interventions import Intervention
    from onnxlens.runtime.running.generation import generate_ids
    from onnxlens.runtime.running.kv_cache import KVCache
    from onnxlens.runtime.running.plan import PassOptions
    from onnxlens.runtime.running.runner import Output, Runner
    from onnxlens.runtime.text.tokenizer import Tokenizer

__all__ = [
    "ActivationCache",
    "Applied",
    "Bundle",
    "FactoredMatrix",
    "Hook",
    "HookPoint",
    "Intervention",
    "KVCache",
    "ModelConfig",
    "ModelFacts",
    "NamedWeights",
    "OnnxLensError",
    "Output",
    "PassOptions",
    "Runner",
    "Tokenizer",
    "TransformerLensConfig",
    "folded_logits",
    "generate_ids",
    "open_trace",
    "read_interventions",
    "write_interventions",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ActivationCache": "onnxlens.runtime.activations.cache",
        "Applied": "onnxlens.runtime.activations.applied",
        "Bundle": "onnxlens.runtime.bundle.bundle",
        "FactoredMatrix": "onnxlens.runtime.activations.factored_matrix",
        "Hook": "onnxlens.runtime.interventions.functions",
        "HookPoint": "onnxlens.runtime.bundle.hooks",
        "Intervention": "onnxlens.runtime.interventions.interventions",
        "KVCache": "onnxlens.runtime.running.kv_cache",
        "ModelConfig": "onnxlens.runtime.bundle.config",
        "ModelFacts": "onnxlens.runtime.bundle.model_facts",
        "NamedWeights": "onnxlens.runtime.bundle.named_weights",
        "OnnxLensError": "onnxlens.runtime.errors",
        "Output": "onnxlens.runtime.running.runner",
        "PassOptions": "onnxlens.runtime.running.plan",
        "Runner": "onnxlens.runtime.running.runner",
        "Tokenizer": "onnxlens.runtime.text.tokenizer",
        "TransformerLensConfig": "onnxlens.runtime.bundle.cfg",
        "folded_logits": "onnxlens.runtime.activations.folding",
        "generate_ids": "onnxlens.runtime.running.generation",
        "open_trace": "onnxlens.runtime.activations.trace",
        "read_interventions": "onnxlens.runtime.interventions.intervention_files",
        "write_interventions": "onnxlens.runtime.interventions.intervention_files",
    },
)
