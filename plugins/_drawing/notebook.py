"""Renderings in notebooks: a page in a frame, above a picture for viewers that show no frames."""

from __future__ import annotations

import base64
import sys
from html import escape
from typing import TYPE_CHECKING, Any

from onnxlens.plugins._drawing.page import FRAMES, without_library
from onnxlens.runtime.errors import MissingLibraryError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from onnxlens.plugins._drawing.rendering import Rendering

__all__ = ["as_html", "mimebundle"]

# If a viewer removes the frame, as sites that display notebooks do, the picture below it becomes visible.
_BOX = '<div style="position:relative;min-height:30em">{below}{frame}</div>'
_IMAGE = '<img alt="{title}" style="max-width:100%" src="data:image/png;base64,{data}">'
_FRAME = (
    '<iframe class="onnxlens" sandbox="allow-scripts" srcdoc="{page}" style="position:absolute;top:0;left:0;width:100%;'
    'height:100%;border:0;color-scheme:light dark;background:Canvas"></iframe>'
)


def mimebundle(
    rendering: Rendering, include: Collection[str] | None = None, exclude: Collection[str] | None = None
) -> dict[str, str]:
    """A rendering by media type: the text, a picture and the page, as far as it has them.

    Args:
        rendering: the rendering.
        include: the media types to return; None for all.
        exclude: media types to leave out.

    Raises:
        PluginError: a method of the rendering returned a wrong type.
    """
    shell = _shell()
    only_text = shell is not None and not hasattr(shell, "kernel")  # IPython in a terminal

    def is_wanted(kind: str) -> bool:
        if only_text and kind != "text/plain":
            return False
        return (not include or kind in include) and kind not in (exclude or ())

    bundle = {}
    if is_wanted("text/plain"):
        bundle["text/plain"] = str(rendering)
    png = _png(rendering) if is_wanted("image/png") or is_wanted("text/html") else None
    if png is not None and is_wanted("image/png"):
        bundle["image/png"] = png
    if is_wanted("text/html"):
        bundle["text/html"] = _html(rendering, png, lambda: shell is None or _CELLS.need_library(shell))
    return bundle


def as_html(rendering: Rendering) -> str:
    """The HTML alone, which depends on no other output of the notebook.

    Raises:
        PluginError: a method of the rendering returned a wrong type.
    """
    return _html(rendering, _png(rendering), lambda: True)


def _html(rendering: Rendering, png: str | None, need_library: Callable[[], bool]) -> str:
    title = escape(str(getattr(rendering, "title", type(rendering).__name__)))
    below = f"<pre>{escape(str(rendering))}</pre>" if png is None else _IMAGE.format(title=title, data=png)
    try:
        page = rendering.encoded("html").decode() if "html" in rendering.formats else None
    except MissingLibraryError:
        page = None
    if page is None:
        return below
    page, library = without_library(page)
    keep = f'<script>onnxlensFrames.keep("{library}");</script>' if library and need_library() else ""
    box = _BOX.format(below=below, frame=_FRAME.format(page=escape(page)))
    return f"<script>{FRAMES}</script>{box}{keep}"


def _png(rendering: Rendering) -> str | None:
    """The picture in base64, or None if it has none."""
    if "png" not in rendering.formats:
        return None
    try:
        return base64.b64encode(rendering.encoded("png")).decode()
    except MissingLibraryError:
        return None


def _shell() -> Any:
    """IPython's shell, if the program runs in one."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


class _Cells:
    """Remembers which cell of the notebook holds plotly's library, so that only one does."""

    def __init__(self) -> None:
        self._holder: object = None
        self._run: object = None

    def need_library(self, shell: Any) -> bool:
        """Whether the next output must hold the library; records that it does.

        A cell that runs again loses its outputs, so it gets the library again.
        """
        if "google.colab" in sys.modules:  # which isolates each output from all others
            return True
        cell, run = _cell(shell), shell.execution_count
        is_first = self._holder is None or (cell == self._holder and run != self._run)
        if is_first:
            self._holder, self._run = cell, run
        return is_first


_CELLS = _Cells()


def _cell(shell: Any) -> object:
    """The id of the running cell, if the front end provides it, or else its text."""
    parent = getattr(shell, "parent_header", None) or {}
    return parent.get("metadata", {}).get("cellId") or shell.user_ns.get("_ih", [""])[-1]
