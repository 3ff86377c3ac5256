"""The frame of an HTML file that needs nothing else."""

from __future__ import annotations

from html import escape

__all__ = ["page"]

# Colours of the reader's own light or dark mode; fonts that every system has.
_STYLE = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5em; }
h1 { font-size: 1.1em; font-weight: 600; }
code { font-family: ui-monospace, monospace; white-space: pre-wrap; }"""


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
