import type { Answer, Model, RunFacts, Tensor } from "../engine/types";
import { divisorOf, keyHead as keyHeadOf } from "./arithmetic/attention";
import { at } from "./numbers";
import { pooled } from "./pool";

/** A square of numbers, one for each query (row) and key. */
export interface Square {
  size: number;
  values: ArrayLike<number>;
}

/** The names of the queries and keys that a head compares: rotated ones, where positions come in by rotation. */
export function comparedNames(model: Model, layer: number): { q: string; k: string; isRotated: boolean } {
  const attn = `blocks.${layer}.attn`;
  const isRotated = model.hook_points.some((one) => one.name === `${attn}.hook_rot_q`);
  return { q: `${attn}.hook_${isRotated ? "rot_q" : "q"}`, k: `${attn}.hook_${isRotated ? "rot_k" : "k"}`, isRotated };
}

/** The head of keys and values that a head of queries uses, and how many heads share it. */
export function sharedHead(model: Model, head: number): { keyHead: number; sharing: number } {
  const { n_heads, n_key_value_heads } = model.cfg;
  return { keyHead: keyHeadOf({ model }, head), sharing: n_heads / (n_key_value_heads ?? n_heads) };
}

/** The products of all queries and keys, in float64; divided as the model does, if asked for. */
export function productsOf(model: Model, layer: number, q: Tensor, k: Tensor, isScaled: boolean): Square {
  const [size, width] = q.shape as [number, number];
  const divisor = isScaled ? divisorOf({ model }, layer) : 1;
  const values = new Float64Array(size * size);
  for (let query = 0; query < size; query++)
    for (let key = 0; key < size; key++) {
      let total = 0;
      for (let i = 0; i < width; i++) total += q.data[query * width + i]! * k.data[key * width + i]!;
      values[query * size + key] = total / divisor;
    }
  return { size, values };
}

/** A square for so many columns: where it is larger, each box has its largest number by size; minus infinity is none. */
export function pooledSquare({ size, values }: Square, columns: number): Square & { box: number } {
  const box = Math.max(1, Math.ceil(size / columns));
  if (box === 1) return { size, values, box };
  const { places, rows } = pooled(values, size, size, columns, columns);
  return { size: rows, values: Float64Array.from(places, (place) => values[place]!), box };
}

/** The largest number by size; minus infinity does not count. */
export function most({ values }: Square): number {
  let found = 0;
  for (let i = 0; i < values.length; i++) if (values[i] !== -Infinity) found = Math.max(found, Math.abs(values[i]!));
  return found;
}

/** The mean share that tokens give to the first one; the first token itself, which has no other, does not count. */
export function shareOfFirst({ size, values }: Square): number | null {
  if (size < 2) return null;
  let total = 0;
  for (let query = 1; query < size; query++) total += values[query * size]!;
  return total / (size - 1);
}

/**
 * The direct effect of a head through each key of a query; null where effects are not known, since they are those on the
 * logits at the position that predicts.
 */
export function effectsOf(answer: Answer<RunFacts> | null, layer: number, head: number, query: number, size: number): ((key: number) => number) | null {
  if (!answer || answer.facts.position !== query || answer.facts.tokens.length !== size) return null;
  return (key) => at(answer.arrays["sources"]!, layer, head, key);
}
