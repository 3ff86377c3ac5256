"""The built-in visualizers, as the plugin that they are."""

from __future__ import annotations

from collections.abc import Callable

from onnxlens.plugins.hookspecs import hookimpl
from onnxlens.plugins.visualizers.attention import Attention
from onnxlens.plugins.visualizers.base import Visualizer
from onnxlens.plugins.visualizers.tokens import Tokens

__all__ = ["register_visualizers"]

ONNXLENS_PLUGIN_API = 1


@hookimpl
def register_visualizers(register: Callable[[str, type[Visualizer]], None]) -> None:
    """Registers them."""
    register("attention", Attention)
    register("tokens", Tokens)
