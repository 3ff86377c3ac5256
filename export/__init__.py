"""From a checkpoint to a verified ONNX bundle; the only part of onnxlens that imports PyTorch.

Install it with `pip install 'onnxlens[export]'`. PyTorch is imported when `export` or `export_model` is first used, so
that a target that cannot be written is an error before that.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxlens.export.bundle import export, export_model

__all__ = ["export", "export_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from onnxlens.export import bundle

    return getattr(bundle, name)


def __dir__() -> list[str]:
    return sorted(__all__)
