"""From a bundle on disk to logits and activations, with NumPy and ONNX Runtime only.

    from onnxlens.runtime import Runner

    output = Runner("models/mine").run([[1, 2, 3]], names_filter="*.hook_pattern")

Each name is imported when it is first used. `onnxlens.runtime.errors` has every error that onnxlens raises.
"""

from typing import TYPE_CHECKING

from onnxlens.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from onnxlens.runtime.activations.cache import ActivationCache
    from onnxlens.runtime.activations.factored_matrix import FactoredMatrix
    from onnxlens.runtime.activations.trace import open_trace
    from onnxlens.runtime.bundle.bundle import Bundle
    from onnxlens.runtime.bundle.config import ModelConfig
    from onnxlens.runtime.bundle.hooks import HookPoint
    from onnxlens.runtime.errors import OnnxLensError
    from onnxlens.runtime.interventions.interventions import Intervention
    from onnxlens.runtime.running.generation import generate_ids
    from onnxlens.runtime.running.kv_cache import KVCache
    from onnxlens.runtime.running.plan import PassOptions
    from onnxlens.runtime.running.runner import Output, Runner
    from onnxlens.runtime.text.tokenizer import Tokenizer

__all__ = [
    "ActivationCache",
    "Bundle",
    "FactoredMatrix",
    "HookPoint",
    "Intervention",
    "KVCache",
    "ModelConfig",
    "OnnxLensError",
    "Output",
    "PassOptions",
    "Runner",
    "Tokenizer",
    "generate_ids",
    "open_trace",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ActivationCache": "onnxlens.runtime.activations.cache",
        "Bundle": "onnxlens.runtime.bundle.bundle",
        "FactoredMatrix": "onnxlens.runtime.activations.factored_matrix",
        "HookPoint": "onnxlens.runtime.bundle.hooks",
        "Intervention": "onnxlens.runtime.interventions.interventions",
        "KVCache": "onnxlens.runtime.running.kv_cache",
        "ModelConfig": "onnxlens.runtime.bundle.config",
        "OnnxLensError": "onnxlens.runtime.errors",
        "Output": "onnxlens.runtime.running.runner",
        "PassOptions": "onnxlens.runtime.running.plan",
        "Runner": "onnxlens.runtime.running.runner",
        "Tokenizer": "onnxlens.runtime.text.tokenizer",
        "generate_ids": "onnxlens.runtime.running.generation",
        "open_trace": "onnxlens.runtime.activations.trace",
    },
)
