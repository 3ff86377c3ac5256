"""The frame of an HTML file that needs nothing else."""

from __future__ import annotations

import base64
import functools
import gzip
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Part = Union[str, "Figure"]  # of a page: HTML, or a drawing of plotly

__all__ = ["FRAMES", "Part", "page", "parts_page", "plotly_page", "plotly_text", "without_library"]

# Colours of the reader's own light or dark mode; fonts that every system has.
_STYLE = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5em; }
h1 { font-size: 1.1em; font-weight: 600; }
h2 { font-size: 1em; font-weight: 600; margin-top: 2em; }
code { font-family: ui-monospace, monospace; white-space: pre-wrap; }
table { border-collapse: collapse; }
td, th { padding: .15em .8em .15em 0; text-align: left; vertical-align: top; white-space: pre-wrap; }
ol.tokens { list-style: none; padding: 0; line-height: 2.2; }
ol.tokens li { display: inline; }
ol.tokens code { border-radius: 3px; padding: .2em .1em; border: 1px solid #8884; cursor: pointer; }
ol.tokens code.same, td.same { outline: 3px solid #e6a100; }
svg { max-width: 100%; height: auto; }
svg.links text { font: 13px ui-monospace, monospace; fill: currentColor; cursor: default; }
svg.links.some line { display: none; }
svg.links.some line.on { display: inline; }
.framed body { display: flow-root; }"""

# The library is packed, which makes a page less than half as large. In a notebook it is in one output for all, and the
# frames ask for it.
_UNPACKED = """const held = "%s";
const found = held ? Promise.resolve(held) : new Promise((give) => {
  addEventListener("message", ({data}) => { if (data?.onnxlens === "library") give(data.library); });
  parent.postMessage({onnxlens: "needs library"}, "*");
});
found.then((library) => {
const packed = Uint8Array.from(atob(library), (letter) => letter.charCodeAt(0));
return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}).then((code) => {
const script = document.createElement("script");
script.textContent = code;
document.head.append(script);
%s
});"""

# In a frame, such as that of a notebook, the page tells its height.
_FIT = """if (parent !== window) {
  document.documentElement.classList.add("framed");
  const tell = () => {
    const {body, documentElement: {clientHeight}} = document;
    if (body.offsetHeight === 0) return;  // not laid out yet
    const height = body.getBoundingClientRect().bottom + scrollY + parseFloat(getComputedStyle(body).marginBottom);
    parent.postMessage({onnxlens: "height", height: Math.ceil(height) + innerHeight - clientHeight}, "*");
  };
  addEventListener("load", tell);  // browsers put off what observers do in a frame that is out of sight
  new ResizeObserver(tell).observe(document.body);
}"""

# What the notebook does for the frames: makes them as high as their pages, and hands them the library. A frame that
# waits for it in vain is hidden, and what is below it seen.
FRAMES = """if (!window.onnxlensFrames) {
  const waiting = new Map();
  let library = null;
  const show = (frame, on) => { frame.style.display = on ? "" : "none"; };
  const hand = (frame) => frame.contentWindow?.postMessage({onnxlens: "library", library}, "*");
  window.onnxlensFrames = {keep: (found) => {
    library = found;
    for (const [frame, timer] of waiting) { clearTimeout(timer); show(frame, true); hand(frame); }
    waiting.clear();
  }};
  addEventListener("message", ({data, source}) => {
    const frame = [...document.querySelectorAll("iframe.onnxlens")].find((one) => one.contentWindow === source);
    if (!frame) return;
    if (data?.onnxlens === "height" && data.height > 0) {
      Object.assign(frame.parentElement.style, {minHeight: 0, height: `${data.height}px`, overflow: "hidden"});
    } else if (data?.onnxlens === "needs library" && library !== null) {
      hand(frame);
    } else if (data?.onnxlens === "needs library") {
      waiting.set(frame, setTimeout(() => {
        show(frame, false);
        Object.assign(frame.parentElement.style, {height: "", overflow: ""});
      }, 3000));
    }
  });
}"""

# A label under the pointer, or chosen by keyboard, leaves its own lines.
_LINKS = """for (const drawing of document.querySelectorAll("svg.links")) {
  for (const label of drawing.querySelectorAll(".label")) {
    const show = (on) => {
      drawing.classList.toggle("some", on);
      for (const line of drawing.querySelectorAll(`line.${label.dataset.of}`)) line.classList.toggle("on", on);
    };
    for (const start of ["mouseenter", "focus"]) label.addEventListener(start, () => show(true));
    for (const end of ["mouseleave", "blur"]) label.addEventListener(end, () => show(false));
  }
}"""

# A token that is clicked, or chosen by keyboard, is marked wherever it stands: in texts, tables and drawings. A
# drawing or its trace says in `meta` what the places along x and y are called, and the cells, z, each as `plotly_text`.
# What a menu shows, such as a head, is shown by the other drawings that have it in theirs.
_SAME = """const codes = {"&": "&amp;", "<": "&lt;", ">": "&gt;"};
const seen = (label) => label.replaceAll("\u2423", " ");
const said = (element) => element.textContent.replace(/[&<>]/g, (letter) => codes[letter]);
let marked = null;
const markDrawing = (drawing) => {
  const trace = drawing.data?.find((one) => one.visible !== false);
  const known = {...drawing.layout.meta, ...trace?.meta};
  const shapes = [...(drawing.own ?? [])];
  const mark = (x0, x1, y0, y1, whole) => shapes.push({
    type: "rect", x0, x1, y0, y1, xref: whole === "x" ? "x domain" : "x", yref: whole === "y" ? "y domain" : "y",
    line: {color: "#e6a100", width: 2},
  });
  known.x?.forEach((label, at) => { if (seen(label) === marked) mark(at - 0.5, at + 0.5, 0, 1, "y"); });
  known.y?.forEach((label, at) => { if (seen(label) === marked) mark(0, 1, at - 0.5, at + 0.5, "x"); });
  known.z?.forEach((row, y) => row.forEach((label, x) => {
    if (seen(label) === marked) mark(x - 0.5, x + 0.5, y - 0.5, y + 0.5);
  }));
  Plotly.relayout(drawing, {shapes});
};
const markAll = (label) => {
  marked = seen(label) === marked ? null : seen(label);
  for (const one of document.querySelectorAll("ol.tokens code, td")) {
    one.classList.toggle("same", seen(said(one)) === marked);
  }
  for (const drawing of document.querySelectorAll(".drawing")) if (drawing.data) markDrawing(drawing);
};
const answer = (drawing) => {
  drawing.own = drawing.layout.shapes ?? [];
  drawing.on("plotly_click", ({points: [point]}) => {
    const {x, y, z} = {...drawing.layout.meta, ...point.data.meta}, at = point.pointIndex;
    const label = Array.isArray(at) ? (z ? z[at[0]][at[1]] : x?.[at[1]]) : (x ?? y)?.[at];
    if (label !== undefined) markAll(label);
  });
  drawing.on("plotly_restyle", () => { if (marked !== null) markDrawing(drawing); });
  drawing.on("plotly_buttonclicked", ({button: {label}}) => {
    for (const other of document.querySelectorAll(".drawing")) {
      const buttons = other === drawing ? [] : other.layout?.updatemenus?.[0]?.buttons ?? [];
      const active = buttons.findIndex((one) => one.label === label);
      if (active < 0) continue;
      Plotly.restyle(other, ...buttons[active].args);
      Plotly.relayout(other, {"updatemenus[0].active": active});
    }
  });
};
document.addEventListener("click", (event) => {
  const chosen = event.target.closest("ol.tokens code");
  if (chosen) markAll(said(chosen));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("ol.tokens code")) event.target.click();
});"""
_HINT = "<p>A click marks what is there, such as a token, wherever else it appears.</p>"

# A drawing of plotly is light. Its buttons are named one by one: those it has by itself send the drawing to a service.
_DRAWING = ":root { color-scheme: light; }\n.drawing { height: 85vh; }\n.framed .drawing { height: 30em; }"
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
    scripts = f"<script>{_FIT}\n{script}</script>\n" if script else f"<script>{_FIT}</script>\n"
    which = "'unsafe-inline'" if script else f"'sha256-{base64.b64encode(sha256(_FIT.encode()).digest()).decode()}'"
    allowed = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {which}"
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


@functools.cache
def _packed_library() -> str:
    """Plotly's JavaScript, as gzip in base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6, mtime=0)).decode()


def without_library(page: str) -> tuple[str, str]:
    """Returns a page that asks the notebook for plotly's library, and the library; nothing where it holds none."""
    start, end = _UNPACKED.split("%s")[0], '";\n'
    before, held, after = page.partition(start)
    library, quote, rest = after.partition(end)
    return (before + held + quote + rest, library) if held else (page, "")


def plotly_text(text: str) -> str:
    """Returns a text as plotly shows it: plotly reads tags in its texts, and knows the names of few entities.

    `html.escape` is wrong here: plotly shows its `&quot;` as these six characters.

    Args:
        text: any text, such as a token.
    """
    return escape(text, quote=False)


def plotly_page(title: str, figure: Figure) -> str:
    """Returns an HTML file with a drawing of plotly, which answers to the pointer and works offline.

    Args:
        title: its title and heading, as text.
        figure: the drawing. Plotly reads HTML in its texts: whatever came from a model, a file or a person must go
            through `plotly_text`.
    """
    return parts_page(title, [figure])


def parts_page(title: str, parts: Sequence[Part]) -> str:
    """Returns an HTML file with several parts, which works offline.

    Args:
        title: its title and heading, as text.
        parts: HTML, in which whatever came from a model, a file or a person is escaped, and drawings of plotly, see
            `plotly_page`.
    """
    body, scripts = [f"<h1>{escape(title)}</h1>"], []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            body.append(part)
            continue
        name = "drawing" if number == 0 else f"drawing-{number}"
        height = f' style="height:{part.layout.height}px"' if part.layout.height else ""
        body.append(f'<div id="{name}" class="drawing"{height}></div>')
        drawing = part.to_json()  # in which every `<` is an escape
        scripts.append(
            f"{{ const drawing = {drawing};\n"
            f'Plotly.newPlot("{name}", drawing.data, drawing.layout, settings).then(answer); }}'
        )
    if scripts:
        drawings = "\n".join(scripts)
        scripts = [_UNPACKED % (_packed_library(), f"const settings = {_SETTINGS};\n{drawings}")]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts) or any('<ol class="tokens">' in text for text in texts):
        scripts.insert(0, _SAME)
        body.insert(1, _HINT)
    if any('<svg class="links"' in text for text in texts):
        scripts.append(_LINKS)
    return page(title, "\n".join(body), style=_DRAWING if len(texts) < len(parts) else "", script="\n".join(scripts))
