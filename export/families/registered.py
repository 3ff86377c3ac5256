"""Finds the family of a checkpoint among those that plugins register; the built-in ones are registered alike."""

from __future__ import annotations

from importlib import import_module

from onnxlens.export.families.base import Family
from onnxlens.plugins.registry import Registry
from onnxlens.runtime.errors import CheckpointError, PluginError
from onnxlens.runtime.escape import quoted

__all__ = ["families", "family_of"]


def families(plugins: Registry | None = None) -> list[str]:
    """The `model_type` of each family that is known.

    Args:
        plugins: what plugins there are; None for the built-in and the installed ones.
    """
    return sorted((plugins or Registry()).families)


def family_of(model_type: object, origin: str, plugins: Registry | None = None) -> type[Family]:
    """The family of a checkpoint.

    Args:
        model_type: what its config.json says.
        origin: what to call that in an error.
        plugins: what plugins there are; None for the built-in and the installed ones.

    Raises:
        CheckpointError: no such family is known.
        PluginError: the plugin that would bring the family is broken, or the family cannot be imported.
    """
    known = plugins or Registry()
    if isinstance(model_type, str) and (model_type in known.families or known.is_broken("family", model_type)):
        entry = known.get("family", model_type)
        return _imported(model_type, entry.plugin)
    raise CheckpointError(
        f"{origin}: model_type is {quoted(model_type)}, and onnxlens knows the families "
        f"{', '.join(families(known))}. Begin another one with 'onnxlens plugins new NAME --kind family'."
    )


def _imported(model_type: str, plugin: type[Family] | str) -> type[Family]:
    if not isinstance(plugin, str):
        return plugin
    module, _, attribute = plugin.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"The family {model_type!r} cannot be imported from {plugin}: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, Family)):
        raise PluginError(f"The family {model_type!r} is {plugin}, which is no class that derives from Family.")
    return found
