"""The frame of an HTML file that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["page", "plotly_page"]

# Colours of the reader's own light or dark mode; fonts that every system has.
_STYLE = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5em; }
h1 { font-size: 1.1em; font-weight: 600; }
code { font-family: ui-monospace, monospace; white-space: pre-wrap; }"""

# A drawing of plotly is light. Its buttons are named one by one: those it has by itself send the drawing to a service.
_DRAWING = ":root { color-scheme: light; }\n#drawing { height: 85vh; }"
_SETTINGS = """{
  displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]
}"""


def page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    r"""Returns an HTML file that works offline: a browser that reads it may load nothing.

    Args:
        title: its title, as text.
        body: what is in it, as HTML: whatever came from a model, a file or a person must be escaped (`html.escape`).
        style: CSS besides.
        script: JavaScript that runs when the page is there. Data goes into it as JSON in which `<` is `\u003c`.
    """
    scripts = f"<script>{script}</script>\n" if script else ""
    allowed = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        allowed += "; script-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>
{_STYLE}
{style}
</style>
</head>
<body>
{body}
{scripts}</body>
</html>
"""


def plotly_page(title: str, figure: Figure) -> str:
    """Returns an HTML file with a drawing of plotly, which answers to the pointer and works offline.

    Args:
        title: its title and heading, as text.
        figure: the drawing. Plotly reads HTML in its texts: whatever came from a model, a file or a person must be
            escaped (`html.escape`).
    """
    from plotly.offline import get_plotlyjs

    script = (
        f"{get_plotlyjs()}\nconst drawing = {figure.to_json()};\n"  # in which every `<` is an escape
        f'Plotly.newPlot("drawing", drawing.data, drawing.layout, {_SETTINGS});'
    )
    return page(title, f'<h1>{escape(title)}</h1>\n<div id="drawing"></div>', style=_DRAWING, script=script)
