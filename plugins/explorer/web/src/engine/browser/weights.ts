import type { Index } from "../../lib/address";
import { contiguous, taken } from "../../lib/tensors";
import { EngineError, type Tensor } from "../types";
import type { WeightView } from "./site";

interface Stored {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** A strided view of numbers, from which parts are taken without making the whole. */
interface Strided {
  data: Float32Array | null; // where they are stored as they are read
  at: (place: number) => number;
  offset: number;
  shape: number[];
  strides: number[];
}

/** The weights of a model by TransformerLens's names, in a safetensors file that is kept as it is. */
export class Weights {
  #stored: Record<string, Stored>;
  #start: number;
  #kept = new Map<string, Tensor>();

  constructor(
    private readonly file: ArrayBuffer,
    private readonly views: Record<string, WeightView>,
  ) {
    const length = Number(new DataView(file).getBigUint64(0, true));
    this.#stored = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)));
    this.#start = 8 + length;
  }

  has(name: string): boolean {
    return name in this.views;
  }

  /** A weight, or a part of it, in memory of its own. */
  part(name: string, indices: readonly Index[]): Tensor {
    return taken(this.#view(name), indices, (size) => new Float32Array(size));
  }

  /** A whole weight, which is kept. It shares the memory of the file where it can. */
  get(name: string): Tensor {
    const { data, offset, shape, strides } = this.#view(name);
    if (data && String(strides) === String(contiguous(shape))) return { shape, data: data.subarray(offset, offset + shape.reduce((product, size) => product * size, 1)) };
    let found = this.#kept.get(name);
    if (!found) this.#kept.set(name, (found = this.part(name, [])));
    return found;
  }

  /** A vector [n] times a matrix [n, m], which is read where it is stored: [m]. */
  times(vector: ArrayLike<number>, name: string): Float64Array {
    const { at, offset, shape, strides } = this.#view(name);
    const [down, across] = strides as [number, number];
    return Float64Array.from({ length: shape[1]! }, (_, column) => {
      let total = 0;
      for (let row = 0, place = offset + column * across; row < vector.length; row++, place += down) total += vector[row]! * at(place);
      return total;
    });
  }

  #view(name: string): Strided {
    const view = this.views[name]!;
    if (view.tensor === null) return { data: null, at: () => 0, offset: 0, shape: view.shape, strides: view.shape.map(() => 0) };
    const stored = this.#stored[view.tensor]!;
    let shape = [...stored.shape];
    let strides = contiguous(shape);
    let offset = 0;
    if (view.slice) {
      const [axis, start, end] = view.slice;
      offset += start * strides[axis]!;
      shape[axis] = end - start;
    }
    if (view.reshape) [shape, strides] = split(shape, strides, view.reshape);
    if (view.transpose) [shape, strides] = [view.transpose.map((axis) => shape[axis]!), view.transpose.map((axis) => strides[axis]!)];
    return { ...this.#read(stored), offset, shape, strides };
  }

  #read({ dtype, data_offsets: [start, end] }: Stored): Pick<Strided, "data" | "at"> {
    const from = this.#start + start;
    if (dtype === "F32") {
      const data = from % 4 ? new Float32Array(this.file.slice(from, from + end - start)) : new Float32Array(this.file, from, (end - start) / 4);
      return { data, at: (place) => data[place]! };
    }
    if (dtype !== "F16") throw new EngineError(`Weights stored as ${dtype} cannot be read here.`);
    const halves = from % 2 ? new Uint16Array(this.file.slice(from, from + end - start)) : new Uint16Array(this.file, from, (end - start) / 2);
    return { data: null, at: (place) => HALVES[halves[place]!]! };
  }
}

/** All float16 numbers by their bits. */
const HALVES = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
});

/** Splits axes of a strided tensor into several, which is all that the reshapes of weights do. */
function split(shape: readonly number[], strides: readonly number[], wanted: readonly number[]): [number[], number[]] {
  const found: number[] = [];
  let next = 0;
  for (const [axis, size] of shape.entries()) {
    const parts: number[] = [];
    let product = 1;
    while (product < size || (product === size && wanted[next] === 1)) {
      parts.push(wanted[next]!);
      product *= wanted[next++]!;
    }
    if (product !== size) throw new EngineError("A weight of this model is stored in a way that cannot be read here.");
    const inner = contiguous(parts);
    found.push(...inner.map((stride) => stride * strides[axis]!));
  }
  return [[...wanted], found];
}
