import { zipSync } from "fflate";
import type { Tensor } from "../engine/types";

const isFloat = (tensor: Tensor) => tensor.data instanceof Float32Array;
const bytesOf = (tensor: Tensor) => new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);

/** A tensor as a .npy file, version 1.0 (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). */
export function npy(tensor: Tensor): Uint8Array<ArrayBuffer> {
  const shape = tensor.shape.length === 1 ? `(${tensor.shape[0]},)` : `(${tensor.shape.join(", ")})`;
  const header = `{'descr': '${isFloat(tensor) ? "<f4" : "<i4"}', 'fortran_order': False, 'shape': ${shape}, }`;
  const padded = header.padEnd(Math.ceil((10 + header.length + 1) / 64) * 64 - 11) + "\n"; // the data begin at a multiple of 64
  const found = new Uint8Array(10 + padded.length + tensor.data.byteLength);
  found.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, padded.length & 255, padded.length >> 8]);
  found.set(new TextEncoder().encode(padded), 10);
  found.set(bytesOf(tensor), 10 + padded.length);
  return found;
}

/** Tensors by name as an .npz file, which `numpy.load` reads. */
export function npz(tensors: Record<string, Tensor>): Uint8Array<ArrayBuffer> {
  const files = Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [`${name}.npy`, npy(tensor)]));
  return new Uint8Array(zipSync(files, { level: 0, mtime: "1980-01-01" }));
}

/** Tensors by name as a safetensors file (https://huggingface.co/docs/safetensors). */
export function safetensors(tensors: Record<string, Tensor>): Uint8Array<ArrayBuffer> {
  let start = 0;
  const entries = Object.entries(tensors).map(([name, tensor]) => {
    const offsets = [start, (start += tensor.data.byteLength)];
    return [name, { dtype: isFloat(tensor) ? "F32" : "I32", shape: tensor.shape, data_offsets: offsets }];
  });
  const written = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const length = Math.ceil(written.length / 8) * 8;
  const found = new Uint8Array(8 + length + start).fill(32, 8, 8 + length); // spaces, so that the data are aligned
  new DataView(found.buffer).setBigUint64(0, BigInt(length), true);
  found.set(written, 8);
  let place = 8 + length;
  for (const tensor of Object.values(tensors)) {
    found.set(bytesOf(tensor), place);
    place += tensor.data.byteLength;
  }
  return found;
}

/** A tensor as text: a line for each entry, with its place along each axis, counted from where the axis begins. */
export function csv(tensor: Tensor, axes: readonly string[], starts: readonly number[] = []): string {
  const lines = [[...axes, "value"].join(",")];
  const place = tensor.shape.map(() => 0);
  for (const value of tensor.data) {
    lines.push([...place.map((one, axis) => one + (starts[axis] ?? 0)), value].join(","));
    for (let axis = place.length - 1; axis >= 0 && ++place[axis]! === tensor.shape[axis]; axis--) place[axis] = 0;
  }
  return lines.join("\n") + "\n";
}
