import { EngineError } from "../types";

const KEPT = "onnxlens";

const given = new Map<string, ArrayBuffer>(); // files of a page that has them inside, by their path

/** Takes the files of a page that has them inside: they are not loaded. */
export function take(files: Record<string, ArrayBuffer>): void {
  for (const [path, content] of Object.entries(files)) given.set(path, content);
}

/**
 * Loads a file of the site, and checks that it is whole.
 *
 * @param path where it is, relative to the page
 * @param known its size and SHA-256, in hexadecimal
 * @param progress called with the number of bytes that came
 */
export async function download(path: string, known?: { size: number; sha256: string }, progress: (bytes: number) => void = () => {}): Promise<ArrayBuffer> {
  const inside = given.get(path);
  if (inside) {
    progress(inside.byteLength);
    return inside;
  }
  const kept = known && (await fromStore(path, known.sha256));
  if (kept) {
    progress(known.size);
    return kept;
  }
  let response: Response;
  try {
    response = await fetch(path);
  } catch {
    throw new EngineError(`${name(path)} could not be loaded: there is no connection to the site, or the browser refused it.`);
  }
  if (!response.ok) throw new EngineError(`${name(path)} could not be loaded: the site answered ${response.status}.`);
  if (!known) return response.arrayBuffer();
  // Into memory of its size at once: a model is there once, and not in parts as well.
  const bytes = new Uint8Array(known.size);
  let size = 0;
  try {
    const reader = response.body!.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (size + part.value.length <= known.size) bytes.set(part.value, size);
      size += part.value.length;
      progress(part.value.length);
    }
  } catch {
    throw new EngineError(`${name(path)} was cut off on its way; try again.`);
  }
  if (size !== known.size || (await sha256(bytes)) !== known.sha256)
    throw new EngineError(`${name(path)} is not as the site describes it: ${size} bytes came of ${known.size}. It was cut off on its way, or the site is half updated; try again.`);
  await store(path, known.sha256, bytes);
  return bytes.buffer;
}

/** Loads a JSON file of the site; see `download`. */
export async function downloadJson(...file: Parameters<typeof download>): Promise<any> {
  return JSON.parse(new TextDecoder().decode(await download(...file)));
}

const name = (path: string) => path.split("/").at(-1)!;

/** SHA-256 in hexadecimal; empty where the browser has no such function, which it has on secure origins only. */
async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The browser's store of the site, by content: a model that was updated is another entry. Where storage is blocked or
// full, files are loaded each time.
const key = (path: string, hash: string) => new Request(new URL(`${path}?sha256=${hash}`, location.href));

async function fromStore(path: string, hash: string): Promise<ArrayBuffer | undefined> {
  try {
    return await (await (await caches.open(KEPT)).match(key(path, hash)))?.arrayBuffer();
  } catch {
    return undefined;
  }
}

async function store(path: string, hash: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  try {
    await (await caches.open(KEPT)).put(key(path, hash), new Response(bytes));
  } catch {
    // Not kept, then.
  }
}
