import { EngineError, type Tensor } from "../engine/types";
import type { Index } from "./address";

/** The part of a tensor that an address names. */
export function cut(tensor: Tensor, indices: readonly Index[]): Tensor {
  const { shape, data } = tensor;
  const kept: number[] = [];
  let places: number[] = [0]; // of the entries taken so far, as offsets
  for (const [axis, size] of shape.entries()) {
    const index = indices[axis];
    const [from, to] = index === undefined ? [0, size] : typeof index === "number" ? [index, index + 1] : [index.from ?? 0, Math.min(size, index.to ?? size)];
    if (from >= size || to > size) throw new EngineError(`Place ${Math.max(from, to - 1)} is outside of an axis of ${size} entries.`);
    places = places.flatMap((place) => Array.from({ length: to - from }, (_, step) => place * size + from + step));
    if (typeof index !== "number") kept.push(to - from);
  }
  const taken = data instanceof Float32Array ? Float32Array.from(places, (place) => data[place]!) : Int32Array.from(places, (place) => data[place]!);
  return { shape: kept, data: taken };
}
