"""Finds the family of a checkpoint among those that plugins register, including the built-in ones."""

from __future__ import annotations

from importlib import import_module

from onnxlens.export.families.base import Family
from onnxlens.plugins._registry import Registry
from onnxlens.runtime._escape import quoted
from onnxlens.runtime.errors import CheckpointError, PluginError

__all__ = ["families", "family_of", "known_families"]


def families(plugins: Registry | None = None) -> list[str]:
    """The `model_type` of each known family.

    Args:
        plugins: the plugins; None for the built-in and the installed ones.
    """
    return sorted((plugins or Registry()).families)


def known_families(plugins: Registry) -> str:
    """The known families and how to add one: the end of an error about an unknown family."""
    return (
        f"onnxlens knows the families {', '.join(families(plugins))}. Begin another one with 'onnxlens plugins new "
        "NAME --kind family'."
    )


def family_of(model_type: object, origin: str, plugins: Registry | None = None) -> type[Family]:
    """The family of a checkpoint.

    Args:
        model_type: the entry of its config.json.
        origin: the name of that file in an error.
        plugins: the plugins; None for the built-in and the installed ones.

    Raises:
        CheckpointError: no such family is known.
        PluginError: the family's plugin is broken, or the family cannot be imported.
    """
    known = plugins or Registry()
    entry = known.find("family", model_type) if isinstance(model_type, str) else None
    if entry is None:
        raise CheckpointError(f"{origin}: model_type is {quoted(model_type)}, and {known_families(known)}")
    return _imported(entry.name, entry.plugin)


def _imported(model_type: str, plugin: type[Family] | str) -> type[Family]:
    if not isinstance(plugin, str):
        return plugin
    module, _, attribute = plugin.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"The family {model_type!r} cannot be imported from {plugin}: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, Family)):
        raise PluginError(f"The family {model_type!r} is {plugin}, which is not a class that derives from Family.")
    return found
