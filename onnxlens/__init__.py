"""Run a language model anywhere with ONNX Runtime, and see everything that happens inside it.

    import onnxlens

    lens = onnxlens.load()
    print(lens.predict("Data visualization empowers users to"))

Everything here is imported when it is first used, so `import onnxlens` is fast.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxlens._catalog import find, installed
    from onnxlens._generation import GeneratedToken, Generation
    from onnxlens._gradients import GradientResult
    from onnxlens._lens import Lens, load
    from onnxlens._prediction import Candidate, Prediction
    from onnxlens.runtime._activations.cache import ActivationCache
    from onnxlens.runtime._activations.factored_matrix import FactoredMatrix
    from onnxlens.runtime._activations.trace import open_trace
    from onnxlens.runtime._bundle.bundle import Bundle
    from onnxlens.runtime._interventions.interventions import Intervention
    from onnxlens.runtime._running.runner import Runner
    from onnxlens.runtime.errors import OnnxLensError

# ONNX Runtime's official builds send usage data to Microsoft and keep files in the user's folders and in /tmp for that.
# The variable is read when onnxruntime is imported, which every module of this package does after this line. The hub
# client of Hugging Face has a switch of its own. What the user has set stays.
for _switch in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_switch, "1")

__all__ = [
    "ActivationCache",
    "Bundle",
    "Candidate",
    "FactoredMatrix",
    "GeneratedToken",
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
    "ActivationCache": "onnxlens.runtime._activations.cache",
    "Bundle": "onnxlens.runtime._bundle.bundle",
    "Candidate": "onnxlens._prediction",
    "GeneratedToken": "onnxlens._generation",
    "Generation": "onnxlens._generation",
    "GradientResult": "onnxlens._gradients",
    "Intervention": "onnxlens.runtime._interventions.interventions",
    "Lens": "onnxlens._lens",
    "OnnxLensError": "onnxlens.runtime.errors",
    "Prediction": "onnxlens._prediction",
    "Runner": "onnxlens.runtime._running.runner",
    "FactoredMatrix": "onnxlens.runtime._activations.factored_matrix",
    "find": "onnxlens._catalog",
    "installed": "onnxlens._catalog",
    "load": "onnxlens._lens",
    "open_trace": "onnxlens.runtime._activations.trace",
}

# Modules that are imported when they are first used, so that `import onnxlens` is enough for
# `onnxlens.utils.get_act_name("z", 3)`.
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
