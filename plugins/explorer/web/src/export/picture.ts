import { EngineError } from "../engine/types";
import { t } from "../lang/index.svelte";

/** What neither a picture nor paper has; `print.css` names the same. */
export const CONTROLS = "form, details, input, textarea, .act, .handle, .compare, .tour, .controls";

/** The properties that a picture keeps of each element. */
const KEPT = [
  "align-content", "align-items", "align-self", "background-color", "background-image", "border-bottom", "border-collapse", "border-left", "border-radius",
  "border-right", "border-spacing", "border-top", "bottom", "box-sizing", "clip-path", "color", "column-gap", "display", "fill", "fill-opacity", "fill-rule", "flex-basis",
  "flex-direction", "flex-grow", "flex-shrink", "flex-wrap", "font-family", "font-size", "font-style", "font-variant-numeric", "font-weight", "grid-area",
  "grid-auto-flow", "grid-column", "grid-row", "grid-template-columns", "height", "justify-content", "justify-items", "left", "letter-spacing", "line-height",
  "list-style-type", "margin-bottom", "margin-left", "margin-right", "margin-top", "max-height", "max-width", "min-height", "min-width", "opacity", "order", "outline",
  "outline-offset", "overflow-wrap", "overflow-x", "overflow-y", "padding-bottom", "padding-left", "padding-right", "padding-top", "paint-order", "position", "right",
  "row-gap", "stroke", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "stroke-opacity", "stroke-width", "table-layout", "text-align", "text-anchor",
  "text-decoration", "text-overflow", "text-transform", "top", "transform", "transform-origin", "vertical-align", "visibility", "white-space", "width", "word-break",
  "writing-mode", "z-index",
];
const MOST_PIXELS = 2 ** 26; // of a PNG
const LONGEST = 16_384; // pixels of a side, which browsers can draw

/** A part of the page as an SVG that stands alone: its elements with the styles that they have now. */
export function svgOf(element: HTMLElement): string {
  const classes = new Map<string, string>(); // by style
  const root = copied(element, classes)!.node as HTMLElement;
  root.classList.add("root");
  const styles = [
    ...[...classes].map(([style, name]) => `.${name}{${style}}`),
    // The root is in the flow of the picture, whatever it is in the page.
    `.root{position:static;margin:0;max-height:none;height:auto;width:${element.getBoundingClientRect().width}px}`,
  ].join("\n");
  const { width, height } = extent(root, styles);
  const ground = [element, document.body].map((one) => getComputedStyle(one).backgroundColor).find((one) => !/^rgba\(.*, 0\)$|^transparent$/.test(one)) ?? "white";
  const inside = new XMLSerializer().serializeToString(root);
  const size = `width="${width}" height="${height}"`;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" ${size} viewBox="0 0 ${width} ${height}"><style>${escaped(styles)}</style><rect ${size} fill="${ground}"/><foreignObject ${size}>${inside}</foreignObject></svg>`;
  // XML has no letters for control characters; Unicode has pictures of them.
  return svg.replace(/[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, (one) => (one < " " ? String.fromCharCode(0x2400 + one.charCodeAt(0)) : "\ufffd"));
}

/** The same as a PNG, with twice as many pixels, or fewer where that is more than a browser draws. */
export async function pngOf(element: HTMLElement): Promise<Uint8Array<ArrayBuffer>> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgOf(element))}`;
  await image.decode();
  const scale = Math.min(2, LONGEST / Math.max(image.width, image.height), Math.sqrt(MOST_PIXELS / (image.width * image.height)));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.floor(scale * image.width), Math.floor(scale * image.height)];
  const context = canvas.getContext("2d")!;
  context.scale(scale, scale);
  context.drawImage(image, 0, 0);
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/png"));
  if (!blob) throw new EngineError(t("export-too-large"));
  return new Uint8Array(await blob.arrayBuffer());
}

/** A copy of an element without controls, with a class for each style; says whether something was left out. Null where nothing is left. */
function copied(from: Element, classes: Map<string, string>): { node: Element; isWhole: boolean } | null {
  const style = getComputedStyle(from);
  if (style.display === "none" || from.matches(CONTROLS)) return null;
  let node = from.cloneNode(false) as Element;
  let isWhole = true;
  if (from instanceof HTMLSelectElement) {
    node = document.createElement("span"); // as text
    node.textContent = from.selectedOptions[0]?.textContent ?? "";
  } else if (from instanceof HTMLCanvasElement) {
    node = document.createElement("img");
    node.setAttribute("src", from.toDataURL());
  } else {
    for (const child of from.childNodes) {
      if (child.nodeType === Node.TEXT_NODE) node.append(child.cloneNode());
      if (!(child instanceof Element)) continue;
      const inner = copied(child, classes);
      if (inner) node.append(inner.node);
      isWhole &&= inner?.isWhole ?? getComputedStyle(child).display === "none";
    }
  }
  const isSelect = from instanceof HTMLSelectElement;
  const isOpen = /auto|scroll/.test(style.overflowX + style.overflowY); // a picture has everything, and cannot scroll
  const written = KEPT.flatMap((name) => {
    const value = style.getPropertyValue(name);
    if (!value || (isSelect && /^(border|background|padding|width|height|min|max)/.test(name)) || (!isWhole && name === "height")) return [];
    return [`${name}:${isOpen && name.startsWith("overflow-") ? "visible" : value}`];
  }).join(";");
  if (!classes.has(written)) classes.set(written, `s${classes.size}`);
  node.removeAttribute("style");
  node.setAttribute("class", classes.get(written)!);
  return { node, isWhole: isWhole && !isSelect };
}

/** The size of a copy with all that it has inside, in whole pixels: it is laid out apart from the styles of the page. */
function extent(root: HTMLElement, styles: string): { width: number; height: number } {
  const host = document.createElement("div");
  Object.assign(host.style, { position: "fixed", left: "-100000px", top: "0", visibility: "hidden" });
  const shadow = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(styles);
  shadow.adoptedStyleSheets = [sheet];
  shadow.append(root);
  document.body.append(host);
  const own = root.getBoundingClientRect();
  let [right, bottom] = [own.right, own.bottom];
  for (const one of root.querySelectorAll("*")) {
    const drawing = one.closest("svg");
    if (drawing && one !== drawing) continue; // clipped by it
    const box = one.getBoundingClientRect();
    if (box.width && box.height) [right, bottom] = [Math.max(right, box.right), Math.max(bottom, box.bottom)];
  }
  host.remove();
  return { width: Math.ceil(right - own.left), height: Math.ceil(bottom - own.top) };
}

const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
