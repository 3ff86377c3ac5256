import type { Tensor } from "../engine/types";
import { at } from "./numbers";

/** The direct effect of a head through a group of tokens, such as one token or the tokens of a folded row. */
export interface Line {
  layer: number;
  head: number;
  group: number;
  effect: number;
}

/**
 * The direct effects of heads through groups of tokens that matter most: the largest ones, until none is above a share of
 * the largest. `groups` has the first and the last position of each group; together they cover all tokens.
 */
export function strongest(sources: Tensor, groups: readonly (readonly [number, number])[], count = 10, least = 0.08): Line[] {
  const [layers, heads] = sources.shape as [number, number, number];
  const lines: Line[] = [];
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < heads; head++)
      for (const [group, [from, to]] of groups.entries()) {
        let effect = 0;
        for (let key = from; key <= to; key++) effect += at(sources, layer, head, key);
        if (effect !== 0) lines.push({ layer, head, group, effect });
      }
  lines.sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect));
  const bound = least * Math.abs(lines[0]?.effect ?? 0);
  return lines.slice(0, count).filter((line) => Math.abs(line.effect) >= bound);
}

/** The positions through which the effects are largest. */
export function mainSources(sources: Tensor, count: number): number[] {
  const [layers, heads, positions] = sources.shape as [number, number, number];
  const largest = new Float64Array(positions);
  for (let row = 0; row < layers * heads; row++)
    for (let key = 0; key < positions; key++) largest[key] = Math.max(largest[key]!, Math.abs(sources.data[row * positions + key]!));
  return [...largest.keys()].sort((a, b) => largest[b]! - largest[a]!).slice(0, count);
}
