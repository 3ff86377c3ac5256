import type { Model } from "../engine/types";

const QUICK = 1e10; // multiply-adds: about a second

/** Whether so many runs over so many tokens take so little time that a panel need not ask before it starts them. */
export function isQuick(model: Model, runs: number, tokens: number): boolean {
  const numbers = model.weights.reduce((total, one) => total + one.shape.reduce((a, b) => a * b, 1), 0);
  return numbers * runs * tokens <= QUICK;
}
