"""Run a language model anywhere with ONNX Runtime, and see everything that happens inside it.

    import onnxlens

    lens = onnxlens.load()
    print(lens.predict("Data visualization empowers users to"))

Everything here is imported when first used, so that `import onnxlens` costs next to nothing.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxlens.catalog import find, installed
    from onnxlens.generation import Generation
    from onnxlens.gradients import GradientResult
    from onnxlens.lens import Lens, load
    from onnxlens.prediction import Prediction
    from onnxlens.runtime.activations.cache import ActivationCache
    from onnxlens.runtime.activations.factored_matrix import FactoredMatrix
    from onnxlens.runtime.activations.trace import open_trace
    from onnxlens.runtime.bundle.bundle import Bundle
    from onnxlens.runtime.errors import OnnxLensError
    from onnxlens.runtime.interventions.interventions import Intervention
    from onnxlens.runtime.running.runner import Runner

# ONNX Runtime's official builds send usage data to Microsoft and keep files in the user's folders and in /tmp for that.
# The variable is read when onnxruntime is imported, which every module of this package does after this line. The hub
# client of Hugging Face has a switch of its own. What the user has set stays.
for _switch in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_switch, "1")

__all__ = [
    "ActivationCache",
    "Bundle",
    "FactoredMatrix",
    "Generation",
    "GradientResult",
    "Intervention",
    "Lens",
    "OnnxLensError",
    "Prediction",
    "Runner",
    "find",
    "installed",
    "load",
    "open_trace",
]

_HOME = {
    "ActivationCache": "onnxlens.runtime.activations.cache",
    "Bundle": "onnxlens.runtime.bundle.bundle",
    "Generation": "onnxlens.generation",
    "GradientResult": "onnxlens.gradients",
    "Intervention": "onnxlens.runtime.interventions.interventions",
    "Lens": "onnxlens.lens",
    "OnnxLensError": "onnxlens.runtime.errors",
    "Prediction": "onnxlens.prediction",
    "Runner": "onnxlens.runtime.running.runner",
    "FactoredMatrix": "onnxlens.runtime.activations.factored_matrix",
    "find": "onnxlens.catalog",
    "installed": "onnxlens.catalog",
    "load": "onnxlens.lens",
    "open_trace": "onnxlens.runtime.activations.trace",
}

# Imported when they are first used, so that `import onnxlens` is enough for `onnxlens.utils.get_act_name("z", 3)`.
_MODULES = ("analysis", "decoding", "metrics", "plugins", "utils")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("onnxlens")
    if name in _MODULES:
        return import_module(f"onnxlens.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'onnxlens' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
