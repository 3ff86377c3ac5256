import { EngineError, type Tensor } from "../engine/types";
import type { Index } from "./address";

/** How far apart the entries of each axis are, where they lie one after the other. */
export function contiguous(shape: readonly number[]): number[] {
  const strides = shape.map(() => 1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1]! * shape[axis + 1]!;
  return strides;
}

/**
 * Takes the part of a strided tensor that indices name: its shape, and its numbers, which go into what `made` returns.
 *
 * @param at the number at a place
 * @param made makes the array of so many numbers
 */
export function taken<Numbers extends Float32Array | Int32Array>(
  { shape, strides, offset, at }: { shape: readonly number[]; strides: readonly number[]; offset: number; at: (place: number) => number },
  indices: readonly Index[],
  made: (size: number) => Numbers,
): { shape: number[]; data: Numbers } {
  const ranges = shape.map((size, axis) => {
    const index = indices[axis];
    const [from, to] = index === undefined ? [0, size] : typeof index === "number" ? [index, index + 1] : [index.from ?? 0, Math.min(size, index.to ?? size)];
    if (from >= size || to > size) throw new EngineError(`Place ${Math.max(from, to - 1)} is outside of an axis of ${size} entries.`);
    return { from, to, stride: strides[axis]! };
  });
  const data = made(ranges.reduce((product, { from, to }) => product * (to - from), 1));
  let filled = 0;
  const fill = (axis: number, place: number): void => {
    if (axis === ranges.length) {
      data[filled++] = at(place);
      return;
    }
    const { from, to, stride } = ranges[axis]!;
    if (axis === ranges.length - 1) for (let one = from; one < to; one++) data[filled++] = at(place + one * stride);
    else for (let one = from; one < to; one++) fill(axis + 1, place + one * stride);
  };
  fill(0, offset);
  return { shape: ranges.filter((_, axis) => typeof indices[axis] !== "number").map(({ from, to }) => to - from), data };
}

/** The part of a tensor that an address names; all of it shares its memory. */
export function cut({ shape, data }: Tensor, indices: readonly Index[]): Tensor {
  if (!indices.length) return { shape, data };
  const made = (size: number) => (data instanceof Float32Array ? new Float32Array(size) : new Int32Array(size));
  return taken({ shape, strides: contiguous(shape), offset: 0, at: (place) => data[place]! }, indices, made);
}
