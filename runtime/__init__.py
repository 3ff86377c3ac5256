"""From a bundle on disk to logits and activations, with NumPy and ONNX Runtime only.

    from onnxlens.runtime import Runner

    output = Runner("models/mine").run([[1, 2, 3]], names_filter="*.hook_pattern")

Each name is imported when it is first used. `onnxlens.runtime.errors` has every error that onnxlens raises.
"""

from typing import TYPE_CHECKING

from onnxlens.runtime._lazy import lazy_names

if TYPE_CHECKING:
    from onnxlens.runtime._activations.applied import Applied
    from onnxlens.runtime._activations.cache import ActivationCache
    from onnxlens.runtime._activations.factored_matrix import FactoredMatrix
    from onnxlens.runtime._activations.folding import folded_logits
    from onnxlens.runtime._activations.trace import open_trace
    from onnxlens.runtime._bundle.bundle import Bundle
    from onnxlens.runtime._bundle.cfg import TransformerLensConfig
    from onnxlens.runtime._bundle.config import ModelConfig
    from onnxlens.runtime._bundle.hooks import HookPoint
    from onnxlens.runtime._bundle.model_facts import ModelFacts
    from onnxlens.runtime._bundle.named_weights import NamedWeights
    from onnxlens.runtime._interventions.functions import Hook
    from onnxlens.runtime._interventions.intervention_files import read_interventions, write_interventions
    from onnxlens.runtime._interventions.interventions import Intervention
    from onnxlens.runtime._running.generation import generate_ids
    from onnxlens.runtime._running.kv_cache import KVCache
    from onnxlens.runtime._running.plan import PassOptions
    from onnxlens.runtime._running.runner import Output, Runner
    from onnxlens.runtime._running.stopping import Stop
    from onnxlens.runtime._text.tokenizer import Tokenizer
    from onnxlens.runtime.errors import OnnxLensError

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
    "Stop",
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
        "ActivationCache": "onnxlens.runtime._activations.cache",
        "Applied": "onnxlens.runtime._activations.applied",
        "Bundle": "onnxlens.runtime._bundle.bundle",
        "FactoredMatrix": "onnxlens.runtime._activations.factored_matrix",
        "Hook": "onnxlens.runtime._interventions.functions",
        "HookPoint": "onnxlens.runtime._bundle.hooks",
        "Intervention": "onnxlens.runtime._interventions.interventions",
        "KVCache": "onnxlens.runtime._running.kv_cache",
        "ModelConfig": "onnxlens.runtime._bundle.config",
        "ModelFacts": "onnxlens.runtime._bundle.model_facts",
        "NamedWeights": "onnxlens.runtime._bundle.named_weights",
        "OnnxLensError": "onnxlens.runtime.errors",
        "Output": "onnxlens.runtime._running.runner",
        "PassOptions": "onnxlens.runtime._running.plan",
        "Runner": "onnxlens.runtime._running.runner",
        "Stop": "onnxlens.runtime._running.stopping",
        "Tokenizer": "onnxlens.runtime._text.tokenizer",
        "TransformerLensConfig": "onnxlens.runtime._bundle.cfg",
        "folded_logits": "onnxlens.runtime._activations.folding",
        "generate_ids": "onnxlens.runtime._running.generation",
        "open_trace": "onnxlens.runtime._activations.trace",
        "read_interventions": "onnxlens.runtime._interventions.intervention_files",
        "write_interventions": "onnxlens.runtime._interventions.intervention_files",
    },
)
