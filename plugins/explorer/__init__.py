"""The explorer: a page in the browser that shows what happens inside a model, with an engine that answers it.

The page asks an `Engine`, of which the server (`serve`) is the first implementation.
"""

from typing import TYPE_CHECKING

from onnxlens.runtime._lazy import lazy_names

if TYPE_CHECKING:
    from onnxlens.plugins.explorer._engine import Engine
    from onnxlens.plugins.explorer._requests import Answer
    from onnxlens.plugins.explorer._server import application, free_socket, serve

__all__ = ["Answer", "Engine", "application", "free_socket", "serve"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Answer": "onnxlens.plugins.explorer._requests",
        "Engine": "onnxlens.plugins.explorer._engine",
        "application": "onnxlens.plugins.explorer._server",
        "free_socket": "onnxlens.plugins.explorer._server",
        "serve": "onnxlens.plugins.explorer._server",
    },
)
