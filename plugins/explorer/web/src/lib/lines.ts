import type { Tensor } from "../engine/types";
import { at } from "./numbers";

export interface Line {
  layer: number;
  head: number;
  key: number;
  effect: number;
}

/** The direct effects of heads through tokens that matter most: the largest ones, until none is above a share of the largest. */
export function strongest(sources: Tensor, count = 10, least = 0.08): Line[] {
  const [layers, heads, positions] = sources.shape as [number, number, number];
  const lines: Line[] = [];
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < heads; head++)
      for (let key = 0; key < positions; key++) lines.push({ layer, head, key, effect: at(sources, layer, head, key) });
  lines.sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect));
  const bound = least * Math.abs(lines[0]?.effect ?? 0);
  return lines.slice(0, count).filter((line) => Math.abs(line.effect) >= bound && line.effect !== 0);
}
