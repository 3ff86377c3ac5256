"""From a GPT-2 checkpoint to a verified ONNX bundle; the only part of onnxlens that imports PyTorch.

Install it with `pip install 'onnxlens[export]'`.
"""

from onnxlens.export.bundle import export, export_model

__all__ = ["export", "export_model"]
