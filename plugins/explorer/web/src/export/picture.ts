/** The properties that a picture keeps of each element. */
const KEPT = [
  "align-items", "background-color", "background-image", "border", "border-collapse", "border-radius", "bottom", "box-sizing", "color", "display", "fill",
  "fill-opacity", "flex", "flex-direction", "flex-wrap", "font-family", "font-size", "font-style", "font-weight", "gap", "grid-area", "grid-template-areas",
  "grid-template-columns", "height", "justify-content", "left", "line-height", "list-style", "margin", "max-height", "max-width", "min-width", "opacity",
  "outline", "overflow", "padding", "paint-order", "position", "right", "stroke", "stroke-dasharray", "stroke-opacity", "stroke-width", "text-align",
  "text-anchor", "text-decoration", "text-overflow", "top", "white-space", "width", "z-index",
];

/** A part of the page as an SVG that stands alone: its elements with the styles that they have now. */
export function svgOf(element: HTMLElement): string {
  const clone = element.cloneNode(true) as HTMLElement;
  const pairs: [Element, Element][] = [[element, clone], ...Array.from(element.querySelectorAll("*"), (one, at): [Element, Element] => [one, clone.querySelectorAll("*")[at]!])];
  for (const [from, to] of pairs) {
    const style = getComputedStyle(from);
    const kept = KEPT.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";");
    (to as HTMLElement | SVGElement).style.cssText = kept; // a style attribute would be against the page's policy
    if (from instanceof HTMLCanvasElement) {
      const picture = document.createElement("img");
      picture.setAttribute("src", from.toDataURL());
      picture.style.cssText = kept;
      to.replaceWith(picture);
    }
  }
  const { width, height } = element.getBoundingClientRect();
  const [wide, high] = [Math.ceil(Math.max(width, element.scrollWidth)), Math.ceil(Math.max(height, element.scrollHeight))];
  const ground = getComputedStyle(document.body).backgroundColor;
  const inside = new XMLSerializer().serializeToString(clone);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${wide}" height="${high}" viewBox="0 0 ${wide} ${high}"><rect width="100%" height="100%" fill="${ground}"/><foreignObject width="100%" height="100%">${inside}</foreignObject></svg>`;
}

/** The same as a PNG, with twice as many pixels. */
export async function pngOf(element: HTMLElement): Promise<Uint8Array<ArrayBuffer>> {
  const svg = svgOf(element);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * image.width, 2 * image.height];
  const context = canvas.getContext("2d")!;
  context.scale(2, 2);
  context.drawImage(image, 0, 0);
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/png"));
  if (!blob) throw new Error("The picture is too large.");
  return new Uint8Array(await blob.arrayBuffer());
}
