"""The model families that can be exported, one file each; `family_of` finds them by their `model_type`."""

from __future__ import annotations

from onnxlens.export.families.base import Family
from onnxlens.export.families.registered import families, family_of

__all__ = ["Family", "families", "family_of"]
