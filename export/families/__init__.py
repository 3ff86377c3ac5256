"""The model families that can be exported, one file each; `family_of` finds them by their `model_type`.

They need PyTorch, so they are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxlens.export.families.base import Family
    from onnxlens.export.families.registered import families, family_of

__all__ = ["Family", "families", "family_of"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from onnxlens.export.families import base, registered

    return getattr(base if name == "Family" else registered, name)


def __dir__() -> list[str]:
    return sorted(__all__)
