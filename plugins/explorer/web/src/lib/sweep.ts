import type { Engine, Model, SweepFacts, SweepRequest } from "../engine/types";

/** A sweep as far as it has come: effects [rows, columns], NaN where they are not measured yet. */
export interface Sweep {
  facts: SweepFacts | null; // null until the first part has come
  effects: Float32Array;
  rows: number;
  columns: number;
  measured: number; // rows
}

const TOGETHER = 1024; // tokens of all runs of a part: the engine runs about so many in one pass

/** The blocks of a sweep in parts, so that its progress can be seen, and it can be cancelled in between. */
export function parts(blocks: number, runsPerBlock: number, tokens: number): number[][] {
  const together = Math.max(1, Math.floor(TOGETHER / Math.max(1, runsPerBlock * tokens)));
  const found: number[][] = [];
  for (let start = 0; start < blocks; start += together) {
    found.push(Array.from({ length: Math.min(together, blocks - start) }, (_, place) => start + place));
  }
  return found;
}

/** How many values a sweep of a kind has for each block. */
export function columnsOf(kind: SweepRequest["kind"], model: Model, tokens: number): number {
  if (kind.endsWith("heads")) return model.cfg.n_heads;
  return kind === "ablate_mlps" ? 1 : tokens;
}

/**
 * Measures a sweep part by part, and calls `show` after each.
 *
 * Throws what the engine throws; after the signal was given, nothing is shown.
 */
export async function sweepInParts(
  engine: Pick<Engine, "sweep">,
  request: SweepRequest,
  model: Model,
  tokens: number,
  show: (sweep: Sweep) => void,
  signal: AbortSignal,
): Promise<void> {
  const rows = model.cfg.n_layers;
  const columns = columnsOf(request.kind, model, tokens);
  const effects = new Float32Array(rows * columns).fill(NaN);
  let facts: SweepFacts | null = null;
  let measured = 0;
  for (const layers of parts(rows, columns, tokens)) {
    if (signal.aborted) return;
    const answer = await engine.sweep(layers.length === rows ? request : { ...request, layers }, signal);
    if (signal.aborted) return;
    effects.set(answer.arrays["effects"]!.data, layers[0]! * columns);
    facts ??= answer.facts;
    measured += layers.length;
    show({ facts, effects: effects.slice(), rows, columns, measured });
  }
}
