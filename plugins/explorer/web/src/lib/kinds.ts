import type { Tensor } from "../engine/types";
import { at } from "./numbers";

/** How a head attends, by the sweep `head_scores`. */
export interface HeadScores {
  previous: number; // shares of attention on random tokens that repeat
  duplicate: number;
  induction: number;
  distance: number; // in tokens, on this text
  entropy: number; // in nats, on this text
}

export type KindOfHead = "previous" | "duplicate" | "induction";
export const KINDS: readonly KindOfHead[] = ["previous", "duplicate", "induction"];

/** From this share on, a head is called one of a kind. */
export const LEAST = 0.4;

/** The scores of one head. */
export function scoresOf(arrays: Record<string, Tensor>, layer: number, head: number): HeadScores {
  const read = (name: string) => at(arrays[name]!, layer, head);
  return {
    previous: read("previous_token"),
    duplicate: read("duplicate_token"),
    induction: read("induction"),
    distance: read("distance"),
    entropy: read("entropy"),
  };
}

/** The known kinds that a head is of, the clearest first. */
export function kindsOf(scores: HeadScores): KindOfHead[] {
  return KINDS.filter((kind) => scores[kind] >= LEAST).sort((a, b) => scores[b] - scores[a]);
}

/** Whether a token's attention to an earlier one is what a head of a kind does. */
export function fitsKind(kind: KindOfHead, ids: readonly number[], query: number, key: number): boolean {
  if (kind === "previous") return key === query - 1;
  if (kind === "duplicate") return key < query && ids[key] === ids[query];
  return key > 0 && key <= query && ids[key - 1] === ids[query];
}
