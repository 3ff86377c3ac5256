"""Finds the family of a checkpoint among those that plugins register; the built-in ones are registered alike."""

from __future__ import annotations

from importlib import import_module

from onnxlens.export.families.base import Family
from onnxlens.runtime.errors import CheckpointError, PluginError
from onnxlens.runtime.escape import quoted

__all__ = ["families", "family_of"]

_BUILT_IN = {
    "gpt2": "onnxlens.export.families.gpt2:GPT2",
    "llama": "onnxlens.export.families.llama:Llama",
    "mistral": "onnxlens.export.families.llama:Mistral",
}


def families() -> list[str]:
    """The `model_type` of each family that is known."""
    return sorted(_BUILT_IN)


def family_of(model_type: object, origin: str) -> type[Family]:
    """The family of a checkpoint.

    Args:
        model_type: what its config.json says.
        origin: what to call that in an error.

    Raises:
        CheckpointError: no such family is known.
        PluginError: the plugin with the family cannot be imported.
    """
    if not isinstance(model_type, str) or model_type not in _BUILT_IN:
        raise CheckpointError(
            f"{origin}: model_type is {quoted(model_type)}, and onnxlens knows the families "
            f"{', '.join(families())}. Begin another one with 'onnxlens plugins new NAME --kind family'."
        )
    module, _, attribute = _BUILT_IN[model_type].partition(":")
    found = getattr(import_module(module), attribute, None)
    if not (isinstance(found, type) and issubclass(found, Family)):
        raise PluginError(f"The family {model_type!r} is {_BUILT_IN[model_type]}, which is no class of Family.")
    return found
