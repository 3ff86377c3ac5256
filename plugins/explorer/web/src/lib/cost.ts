import type { Model } from "../engine/types";

const QUICK = 1e10; // multiply-adds: about a second

/** Whether so many runs over so many tokens take so little time that a panel need not ask before it starts them. */
export function isQuick(model: Model, runs: number, tokens: number): boolean {
  return parametersOf(model) * runs * tokens <= QUICK;
}

/** How many numbers the weights of a model have; those that several share count for each. */
export function parametersOf(model: Pick<Model, "weights">): number {
  return model.weights.reduce((total, one) => total + one.shape.reduce((a, b) => a * b, 1), 0);
}
