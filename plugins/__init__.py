"""Samplers, visualizers, and the search for plugins that add more.

Everything that plugin authors need; each name is imported when it is first used:

    from onnxlens.plugins import Context, Option, Sampler, hookimpl
"""

from typing import TYPE_CHECKING

from onnxlens.runtime._lazy import lazy_names

if TYPE_CHECKING:
    from onnxlens.plugins._drawing.page import page, plotly_page, plotly_text
    from onnxlens.plugins._drawing.rendering import Rendering
    from onnxlens.plugins._hookspecs import hookimpl
    from onnxlens.plugins._options import Option
    from onnxlens.plugins._registry import Registry
    from onnxlens.plugins._sampling.sampler import Chain, Context, Sampler, only, softmax
    from onnxlens.plugins._viewing.visualizer import View, Visualizer
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
    "Chain": "onnxlens.plugins._sampling.sampler",
    "Context": "onnxlens.plugins._sampling.sampler",
    "InputError": "onnxlens.runtime.errors",
    "Option": "onnxlens.plugins._options",
    "Registry": "onnxlens.plugins._registry",
    "Rendering": "onnxlens.plugins._drawing.rendering",
    "Sampler": "onnxlens.plugins._sampling.sampler",
    "View": "onnxlens.plugins._viewing.visualizer",
    "Visualizer": "onnxlens.plugins._viewing.visualizer",
    "hookimpl": "onnxlens.plugins._hookspecs",
    "only": "onnxlens.plugins._sampling.sampler",
    "page": "onnxlens.plugins._drawing.page",
    "plotly_page": "onnxlens.plugins._drawing.page",
    "plotly_text": "onnxlens.plugins._drawing.page",
    "softmax": "onnxlens.plugins._sampling.sampler",
}

__getattr__, __dir__ = lazy_names(__name__, _HOME)
