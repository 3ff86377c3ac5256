"""Finds the family of a checkpoint among those that plugins register; the built-in ones are registered alike."""

from __future__ import annotations

from importlib import import_module

from onnxlens.export.families.base import Family
from onnxlens.plugins.registry import Registry
from onnxlens.runtime.errors import CheckpointError, PluginError
from onnxlens.runtime.escape import quoted

__all__ = ["families", "family_of", "known_families"]


def families(plugins: Registry | None = None) -> list[str]:
    """The `model_type` of each family that is known.

    Args:
        plugins: what plugins there are; None for the built-in and the installed ones.
    """
    return sorted((plugins or Registry()).families)


def known_families(plugins: Registry) -> str:
    """Says which families there are, and how to add one: the end of a sentence about one that is not known."""
    return (
        f"onnxlens knows the families {', '.join(families(plugins))}. Begin another one with 'onnxlens plugins new "
        "NAME --kind family'."
    )


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
        raise PluginError(f"The family {model_type!r} is {plugin}, which is no class that derives from Family.")
    return found
