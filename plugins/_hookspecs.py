"""The hooks that a plugin may implement: one function for each kind of plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from onnxlens.export.families.base import Family
    from onnxlens.plugins._sampling.sampler import Sampler
    from onnxlens.plugins._viewing.visualizer import Visualizer

__all__ = [
    "API_VERSION",
    "HOOKS",
    "OLDEST_API_VERSION",
    "PROJECT",
    "hookimpl",
    "register_commands",
    "register_families",
    "register_samplers",
    "register_visualizers",
]

PROJECT = "onnxlens"  # of pluggy, and the group of entry points

# A plugin says ONNXLENS_PLUGIN_API = 1. The first number grows when plugins must change; the oldest one, when support
# for a version ends.
API_VERSION = 1
OLDEST_API_VERSION = 1

_hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@_hookspec
def register_samplers(register: Callable[[str, type[Sampler]], None]) -> None:
    """Calls `register(name, sampler)` for each sampler, a class deriving from `Sampler`."""


@_hookspec
def register_visualizers(register: Callable[[str, type[Visualizer]], None]) -> None:
    """Calls `register(name, visualizer)` for each visualizer, a class deriving from `Visualizer`."""


@_hookspec
def register_commands(register: Callable[[str, click.Command | str], None]) -> None:
    """Calls `register(name, command)` for each command, of click or as "module:attribute", imported when it is run."""


@_hookspec
def register_families(register: Callable[[str, type[Family] | str], None]) -> None:
    """Calls `register(model_type, family)` for each family, a class or "module:class", imported when it is used."""


# The kind that each hook registers.
HOOKS = {
    "register_samplers": "sampler",
    "register_visualizers": "visualizer",
    "register_commands": "command",
    "register_families": "family",
}
