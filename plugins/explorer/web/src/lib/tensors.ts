import { EngineError, type Tensor } from "../engine/types";
import type { Index } from "./address";

/** How far apart the entries of each axis are, where they lie one after the other. */
export function contiguous(shape: readonly number[]): number[] {
  const strides = shape.map(() => 1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1]! * shape[axis + 1]!;
  return strides;
}

/** Where the part that indices take lies: its shape, and the place of each of its entries. */
export function partOf(shape: readonly number[], strides: readonly number[], offset: number, indices: readonly Index[]): { shape: number[]; places: Float64Array } {
  const kept: number[] = [];
  let places = Float64Array.of(offset);
  for (const [axis, size] of shape.entries()) {
    const index = indices[axis];
    const [from, to] = index === undefined ? [0, size] : typeof index === "number" ? [index, index + 1] : [index.from ?? 0, Math.min(size, index.to ?? size)];
    if (from >= size || to > size) throw new EngineError(`Place ${Math.max(from, to - 1)} is outside of an axis of ${size} entries.`);
    const more = new Float64Array(places.length * (to - from));
    let filled = 0;
    for (const place of places) for (let step = from; step < to; step++) more[filled++] = place + step * strides[axis]!;
    places = more;
    if (typeof index !== "number") kept.push(to - from);
  }
  return { shape: kept, places };
}

/** The part of a tensor that an address names. */
export function cut({ shape, data }: Tensor, indices: readonly Index[]): Tensor {
  const { shape: kept, places } = partOf(shape, contiguous(shape), 0, indices);
  const at = (place: number) => data[place]!;
  return { shape: kept, data: data instanceof Float32Array ? Float32Array.from(places, at) : Int32Array.from(places, at) };
}
