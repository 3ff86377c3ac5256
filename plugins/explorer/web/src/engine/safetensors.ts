import type { Answer, Tensor } from "./types";

/** Reads a safetensors file whose metadata has the facts of an answer as JSON. */
export function parse<Facts>(buffer: ArrayBuffer): Answer<Facts> {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const arrays: Record<string, Tensor> = {};
  for (const [name, entry] of Object.entries<{ dtype: string; shape: number[]; data_offsets: [number, number] }>(header)) {
    if (name === "__metadata__") continue;
    const [start, end] = entry.data_offsets;
    const bytes = buffer.slice(8 + length + start, 8 + length + end); // aligned, since it is a copy
    if (entry.dtype === "F32") arrays[name] = { shape: entry.shape, data: new Float32Array(bytes) };
    else if (entry.dtype === "I32") arrays[name] = { shape: entry.shape, data: new Int32Array(bytes) };
    else throw new Error(`The data type ${entry.dtype} of ${name} is not known.`);
  }
  return { facts: JSON.parse(header.__metadata__?.facts ?? "null"), arrays };
}
