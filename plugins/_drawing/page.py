"""Self-contained HTML files."""

from __future__ import annotations

import base64
import functools
import gzip
from collections.abc import Sequence
from hashlib import sha256
from html import escape, unescape
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Part = Union[str, "Figure"]  # of a page: HTML, or a drawing of plotly

__all__ = ["FRAMES", "Part", "page", "parts_page", "plotly_page", "plotly_text", "without_library"]

# The reader's light or dark mode, and fonts that every system has.
_STYLE = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5em; }
h1 { font-size: 1.1em; font-weight: 600; }
h2 { font-size: 1em; font-weight: 600; margin-top: 2em; }
h1, h2, p, footer, code { overflow-wrap: anywhere; }
footer { margin-top: 2em; font-size: .85em; opacity: .8; }
select { font: inherit; max-width: 100%; }
:focus-visible { outline: 3px solid #e6a100; outline-offset: 2px; }
.wide { overflow-x: auto; }
.read { display: block; min-height: 1.5em; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: ui-monospace, monospace; white-space: pre-wrap; }
table { border-collapse: collapse; }
td, th { padding: .15em .8em .15em 0; text-align: left; vertical-align: top; white-space: pre-wrap; }
ol.tokens { list-style: none; padding: 0; line-height: 2.2; }
ol.tokens li { display: inline; }
ol.tokens code { border-radius: 3px; padding: .2em .1em; border: 1px solid #8884; cursor: pointer; }
ol.tokens code.same, td.same { outline: 3px solid #e6a100; }
svg { max-width: 100%; height: auto; }
svg.links text { font: 13px ui-monospace, monospace; fill: currentColor; cursor: default; }
.wide > svg { min-width: 56em; }
.wide > svg.links { min-width: 36em; }
svg.links line { stroke: #6a51a3; }
svg.links.some line { display: none; }
svg.links.some line.on { display: inline; }
.framed body { display: flow-root; }
@media (max-width: 30em) { body { margin: .75em; } }
@media screen and (prefers-color-scheme: dark) { svg.links line { stroke: #c3b4f0; } }
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .hint, .choice, .read, .modebar { display: none !important; }
  .wide { overflow: visible; break-inside: avoid; }
  h2 { break-after: avoid; }
}"""

# The library is compressed, which makes a page less than half as large. In a notebook, one output holds it for all, and
# the frames ask for it.
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

# In a frame, such as that of a notebook, the page reports its height.
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

# The notebook's part: it makes frames as high as their pages and sends them the library. A frame that does not get the
# library is hidden, so that the picture below it is visible.
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

# A label under the pointer, or with the keyboard focus, hides the lines of other labels.
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

# A token that is clicked, or chosen by keyboard, is highlighted everywhere: in texts, tables and drawings. The `meta`
# of a drawing or trace has the labels along x and y, and those of the cells, z, each as `plotly_text`. A choice in a
# menu, such as a head, also changes the other drawings that have it in theirs.
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
const markPoint = (drawing, trace, at) => {
  const {x, y, z} = {...drawing.layout.meta, ...trace.meta};
  const label = Array.isArray(at) ? (z ? z[at[0]][at[1]] : x?.[at[1]]) : (x ?? y)?.[at];
  if (label !== undefined) markAll(label);
};
const answer = (drawing) => {
  drawing.own = drawing.layout.shapes ?? [];
  drawing.on("plotly_click", ({points: [point]}) => markPoint(drawing, point.data, point.pointIndex));
  drawing.on("plotly_restyle", () => { if (marked !== null) markDrawing(drawing); });
  drawing.addEventListener("keydown", (event) => step(drawing, event));
  paint(drawing);
};
const choose = (name) => {
  for (const menu of document.querySelectorAll(".choice select")) {
    const at = [...menu.options].findIndex((one) => one.text === name);
    const drawing = document.getElementById(menu.dataset.of);
    if (at < 0 || !drawing.data) continue;
    menu.selectedIndex = at;
    Plotly.restyle(drawing, "visible", drawing.data.map((_, place) => place === at));
  }
};
document.addEventListener("change", ({target}) => {
  if (target.matches(".choice select")) choose(target.selectedOptions[0].text);
});
document.addEventListener("click", (event) => {
  const chosen = event.target.closest("ol.tokens code");
  if (chosen) markAll(said(chosen));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("ol.tokens code")) event.target.click();
});
document.addEventListener("focusin", ({target}) => {
  if (target.matches("ol.tokens code")) target.closest("ol").nextElementSibling.textContent = target.title;
});"""
_HINT = (
    '<p class="hint">Click a token to highlight every occurrence. In a drawing that has the '
    "focus, arrow keys read one number after the other, and Enter marks.</p>"
)

# By keyboard: arrows move between the cells of a map and the points of other drawings, and show and announce each hover
# text.
_STEP = """const keys = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
const step = (drawing, event) => {
  const number = drawing.data.findIndex((one) => one.visible !== false), trace = drawing.data[number];
  const isMap = trace?.type === "heatmap", held = drawing.at?.trace === number ? drawing.at.point : null;
  if (event.key === "Enter" && held !== null) markPoint(drawing, trace, held);
  if (event.key === "Escape") Plotly.Fx.unhover(drawing);
  const way = keys[event.key];
  if (!way || !trace) return;
  event.preventDefault();
  const inside = (at, count) => Math.max(0, Math.min(count - 1, at));
  let point;
  if (isMap) {
    const [row, column] = held ?? [trace.y.length - 1 - way[0], trace.x.length - 1 - way[1]];
    point = [inside(row + way[0], trace.y.length), inside(column + way[1], trace.x.length)];
  } else {
    point = inside((held ?? -1) + way[0] + way[1], trace.y.length);
  }
  drawing.at = {trace: number, point};
  const traces = drawing.data.flatMap((one, place) => one.visible === false ? [] : [place]);
  const points = traces.map((curveNumber) => ({curveNumber, pointNumber: point}));
  Plotly.Fx.hover(drawing, isMap ? {xval: point[1], yval: point[0]} : points);
  clearTimeout(drawing.reading);
  drawing.reading = setTimeout(() => readAloud(drawing), 100);  // plotly draws a hover within 50 ms of the one before
};
const readAloud = (drawing) => {
  const labels = [...drawing.querySelectorAll(".hoverlayer .hovertext")].map((label) =>
    [...label.querySelectorAll("text")].map((text) => text.dataset.unformatted ?? text.textContent).join(" "));
  const plain = document.createElement("template");
  plain.innerHTML = labels.join("; ").replaceAll("<br>", " ").replace(/<[^<>]*>/g, "");
  drawing.closest(".wide").nextElementSibling.textContent = plain.content.textContent || "no number";
};"""

# The colours of a drawing follow the page's mode; its width follows the paper.
_PAINT = """const night = matchMedia("screen and (prefers-color-scheme: dark)"), paper = matchMedia("print");
const paint = (drawing) => {
  const [text, line, nothing] = night.matches ? ["#e8e8e8", "#666666", "#444444"] : ["#222222", "#d0d0d0", "#dddddd"];
  const changes = {
    paper_bgcolor: "rgba(0,0,0,0)", "font.color": text, "legend.bgcolor": "rgba(0,0,0,0)",
    plot_bgcolor: drawing.data.some((one) => one.type === "heatmap") ? nothing : "rgba(0,0,0,0)",
  };
  for (const axis of ["xaxis", "yaxis"]) {
    for (const part of ["gridcolor", "zerolinecolor", "linecolor"]) changes[`${axis}.${part}`] = line;
  }
  return Plotly.relayout(drawing, {...changes, ...(paper.matches ? {width: 680} : {width: null, autosize: true})});
};
const paintAll = () => {
  for (const drawing of document.querySelectorAll(".drawing")) if (drawing.data) paint(drawing);
};
for (const medium of [night, paper]) medium.addEventListener("change", paintAll);"""

# Plotly's buttons are named one by one: its default ones can send the drawing to a service.
_DRAWING = """.drawing { height: 85vh; min-width: 30em; }
.framed .drawing { height: 30em; }
@media print { .drawing { min-width: 0 !important; } }"""
_SETTINGS = """{
  displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]
}"""


def page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    r"""Returns an HTML file that works offline: its policy forbids the browser to load anything.

    Args:
        title: its title, as text.
        body: the content as HTML; escape everything that came from a model, a file or a person (`html.escape`).
        style: additional CSS.
        script: JavaScript that runs when the page has loaded. Data goes into it as JSON in which `<` is `\u003c`.
    """
    scripts = f"<script>{_FIT}\n{script}</script>\n" if script else f"<script>{_FIT}</script>\n"
    which = "'unsafe-inline'" if script else f"'sha256-{base64.b64encode(sha256(_FIT.encode()).digest()).decode()}'"
    allowed = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {which}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
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
    """Plotly's JavaScript, compressed with gzip, in base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6, mtime=0)).decode()


def without_library(page: str) -> tuple[str, str]:
    """Returns a page that asks the notebook for plotly's library, and the library; None if the page has no library."""
    start, end = _UNPACKED.split("%s")[0], '";\n'
    before, held, after = page.partition(start)
    library, quote, rest = after.partition(end)
    return (before + held + quote + rest, library) if held else (page, "")


def plotly_text(text: str) -> str:
    """Escapes a text for plotly, which reads tags in its texts and knows few named entities.

    `html.escape` is wrong here: plotly shows its `&quot;` as these six characters.

    Args:
        text: any text, such as a token.
    """
    return escape(text, quote=False)


def plotly_page(title: str, figure: Figure) -> str:
    """Returns an HTML file with an interactive plotly figure, which works offline.

    Args:
        title: its title and heading, as text.
        figure: the drawing. Plotly reads HTML in its texts: everything from a model, a file or a person must go through
            `plotly_text`.
    """
    return parts_page(title, [figure])


def parts_page(title: str, parts: Sequence[Part]) -> str:
    """Returns an HTML file with several parts, which works offline.

    Args:
        title: its title and heading, as text.
        parts: HTML, in which everything from a model, a file or a person is escaped, and plotly figures, see
            `plotly_page`.
    """
    body, scripts = [f"<h1>{escape(title)}</h1>"], []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            is_wide = "<table" in part or "<svg" in part
            body.append(f'<div class="wide" tabindex="0">{part}</div>' if is_wide else part)
            continue
        name = "drawing" if number == 0 else f"drawing-{number}"
        choice = _choice(name, part)
        body.append(
            f'{choice}<div class="wide"><div id="{name}" class="drawing" tabindex="0" role="group" aria-label="drawing"'
            f'{_size(part)}></div></div><output class="read" aria-live="polite"></output>'
        )
        drawing = _json(part, with_menus=not choice)
        scripts.append(
            f"{{ const drawing = {drawing};\n"
            f'Plotly.newPlot("{name}", drawing.data, drawing.layout, settings).then(answer); }}'
        )
    if scripts:
        drawings = "\n".join(scripts)
        scripts = [_UNPACKED % (_packed_library(), f"const settings = {_SETTINGS};\n{drawings}")]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts) or any('<ol class="tokens">' in text for text in texts):
        scripts.insert(0, "\n".join([_SAME, _STEP, _PAINT]))
        body.insert(1, _HINT)
    if any('<svg class="links"' in text for text in texts):
        scripts.append(_LINKS)
    return page(title, "\n".join(body), style=_DRAWING if len(texts) < len(parts) else "", script="\n".join(scripts))


def _choice(name: str, drawing: Figure) -> str:
    """A menu in HTML, usable by keyboard and touch, instead of the menu of a figure."""
    buttons = [button for menu in drawing.layout.updatemenus for button in menu.buttons]
    if not buttons or any(button.method != "restyle" or button.args[0] != "visible" for button in buttons):
        return ""
    options = "".join(
        f"<option{' selected' if trace.visible is not False else ''}>{escape(unescape(button.label))}</option>"
        for button, trace in zip(buttons, drawing.data, strict=False)
    )
    meta = drawing.layout.meta
    why = escape(meta.get("why") or "") if isinstance(meta, dict) else ""
    return f'<p class="choice"><label>Shown: <select data-of="{name}">{options}</select></label> {why}</p>'


def _json(drawing: Figure, *, with_menus: bool) -> str:
    """A figure as JSON, in which every `<` is escaped."""
    menus = drawing.layout.updatemenus
    if not with_menus:
        drawing.layout.updatemenus = ()
    try:
        text: str = drawing.to_json()
    finally:
        drawing.layout.updatemenus = menus
    return text


def _size(drawing: Figure) -> str:
    """The least size of a drawing, as an attribute; `_DRAWING` has the least size of all."""
    meta = drawing.layout.meta
    least = meta.get("least") if isinstance(meta, dict) else None
    style = [f"min-width:max({least[0]}px,30em)", f"min-height:{least[1]}px"] if least else []
    style += [f"height:{drawing.layout.height}px"] if drawing.layout.height else []
    return f' style="{";".join(style)}"' if style else ""
