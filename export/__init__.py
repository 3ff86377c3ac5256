"""From a checkpoint to a verified ONNX bundle; the only part of onnxlens that imports PyTorch.

Install it with `pip install 'onnxlens[export]'`. PyTorch is imported when `export` or `export_model` is first used, so
an error about the target comes before that.
"""

from typing import TYPE_CHECKING

from onnxlens.runtime._lazy import lazy_names

if TYPE_CHECKING:
    from onnxlens.export._bundle import export, export_model

__all__ = ["export", "export_model"]

__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "onnxlens.export._bundle"))
