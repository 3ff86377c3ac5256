import { largest } from "./arithmetic/largest";

/** The Euclidean length of a vector. */
export function lengthOf(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i]! * values[i]!;
  return Math.sqrt(total);
}

/** The places of the entries that are largest by size, the largest first. */
export function largestBySize(values: ArrayLike<number>, count: number): number[] {
  const sizes = new Float64Array(values.length);
  for (let i = 0; i < values.length; i++) sizes[i] = Math.abs(values[i]!);
  return largest(sizes, count);
}

/** The mean and the variance (of the whole, not of a sample) of a vector. */
export function moments(values: ArrayLike<number>): { mean: number; variance: number; meanSquare: number } {
  let [sum, squares] = [0, 0];
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  const mean = sum / values.length;
  let meanSquare = 0;
  for (let i = 0; i < values.length; i++) {
    squares += (values[i]! - mean) ** 2;
    meanSquare += values[i]! ** 2 / values.length;
  }
  return { mean, variance: squares / values.length, meanSquare };
}
