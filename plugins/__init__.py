"""Samplers, visualizers, and how plugins that add more are found.

Everything that the author of a plugin needs, imported when first used:

    from onnxlens.plugins import Context, Option, Sampler, hookimpl
"""

from typing import TYPE_CHECKING

from onnxlens.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from onnxlens.plugins.drawing.page import page, plotly_page, plotly_text
    from onnxlens.plugins.drawing.rendering import Rendering
    from onnxlens.plugins.hookspecs import hookimpl
    from onnxlens.plugins.options import Option
    from onnxlens.plugins.registry import Registry
    from onnxlens.plugins.sampling.sampler import Chain, Context, Sampler, only, softmax
    from onnxlens.plugins.viewing.visualizer import View, Visualizer
    from onnxlens.runtime.errors import InputError

__all__ = [
    "Chain",
    "Context",
    "InputError",
    "Option",
    "Registry",
    "Rendering",
    "Sampler",
    "View",
    "Visualizer",
    "hookimpl",
    "only",
    "page",
    "plotly_page",
    "plotly_text",
    "softmax",
]

_HOME = {
    "Chain": "onnxlens.plugins.sampling.sampler",
    "Context": "onnxlens.plugins.sampling.sampler",
    "InputError": "onnxlens.runtime.errors",
    "Option": "onnxlens.plugins.options",
    "Registry": "onnxlens.plugins.registry",
    "Rendering": "onnxlens.plugins.drawing.rendering",
    "Sampler": "onnxlens.plugins.sampling.sampler",
    "View": "onnxlens.plugins.viewing.visualizer",
    "Visualizer": "onnxlens.plugins.viewing.visualizer",
    "hookimpl": "onnxlens.plugins.hookspecs",
    "only": "onnxlens.plugins.sampling.sampler",
    "page": "onnxlens.plugins.drawing.page",
    "plotly_page": "onnxlens.plugins.drawing.page",
    "plotly_text": "onnxlens.plugins.drawing.page",
    "softmax": "onnxlens.plugins.sampling.sampler",
}

__getattr__, __dir__ = lazy_names(__name__, _HOME)
