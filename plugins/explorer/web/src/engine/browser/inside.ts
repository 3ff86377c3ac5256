import { take } from "./files";
import type { Site } from "./site";

/** What a page that has a model inside is made of; `_live.py` writes it. */
export interface Inside {
  site: Site;
  worker: Worker;
}

/** The parts of this page; null where it has no model inside. */
export async function inside(): Promise<Inside | null> {
  const elements = [...document.querySelectorAll<HTMLScriptElement>("script[data-file]")];
  if (!elements.length) return null;
  const site = JSON.parse(document.getElementById("site")!.textContent!) as Site;
  const parts = Object.fromEntries(await Promise.all(elements.map(async (one) => [one.dataset["file"]!, await unpacked(one.textContent!)] as const)));
  elements.forEach((one) => one.remove()); // their text is as large as the model
  const { "worker.js": code, "ort.wasm": wasm, ...rest } = parts;
  const files = Object.fromEntries(Object.entries(rest).map(([path, content]) => [new URL(path, document.baseURI).href, content]));
  take(Object.fromEntries(Object.entries(files).filter(([path]) => /\/(model\.json|board-0\.safetensors)$/.test(path)).map(([path, content]) => [path, content.slice(0)])));
  const worker = new Worker(URL.createObjectURL(new Blob([code!], { type: "text/javascript" })));
  worker.postMessage({ id: -1, kind: "files", files, wasm: wasm! }, [wasm!, ...Object.values(files)]);
  return { site, worker };
}

/** Content that was compressed and written in base64. */
async function unpacked(text: string): Promise<ArrayBuffer> {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
