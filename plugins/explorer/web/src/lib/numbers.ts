import type { Tensor } from "../engine/types";

/** The number at a place of a tensor. */
export function at(tensor: Tensor, ...index: number[]): number {
  let place = 0;
  for (let axis = 0; axis < tensor.shape.length; axis++) place = place * tensor.shape[axis]! + (index[axis] ?? 0);
  return tensor.data[place]!;
}

/** A number with its sign, for effects in logits. */
export function signed(value: number, digits = 2): string {
  const shown = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(shown) !== 0 ? "−" : "+") + shown;
}

/** A number with so many decimals, and a real minus. */
export function fixed(value: number, digits = 2): string {
  return value < 0 ? signed(value, digits) : value.toFixed(digits);
}

/** A probability as a percentage: at least two digits of it; tiny ones in scientific notation. */
export function percent(value: number): string {
  const share = 100 * value;
  if (share >= 10) return `${share.toFixed(1)} %`;
  if (share >= 0.1) return `${share.toFixed(2)} %`;
  if (share >= 1e-4) return `${share.toPrecision(2)} %`;
  return share === 0 ? "0 %" : `${share.toExponential(1)} %`;
}

/** Probabilities of all tokens at a temperature, in float64. Temperature 0 gives everything to the largest logit. */
export function softmax(logits: ArrayLike<number>, temperature: number): Float64Array {
  const found = new Float64Array(logits.length);
  let largest = -Infinity;
  for (let i = 0; i < logits.length; i++) if (logits[i]! > largest) largest = logits[i]!;
  if (temperature === 0) {
    found[Array.prototype.indexOf.call(logits, largest)] = 1;
    return found;
  }
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += found[i] = Math.exp((logits[i]! - largest) / temperature);
  for (let i = 0; i < found.length; i++) found[i]! /= total;
  return found;
}

/** How many of the most probable tokens have a total probability of at least p. */
export function nucleus(probabilities: Float64Array, p: number): number {
  const sorted = Float64Array.from(probabilities).sort().reverse();
  let total = 0;
  for (let count = 0; count < sorted.length; count++) if ((total += sorted[count]!) >= p) return count + 1;
  return sorted.length;
}

/** Black or white, whichever is legible on a tint of this share. */
export function isDark(share: number): boolean {
  return share > 0.55;
}

/** The mean of numbers. */
export function average(values: ArrayLike<number>): number {
  let total = 0;
  for (let place = 0; place < values.length; place++) total += values[place]!;
  return total / values.length;
}

/** A number of at least 0 with three digits and a metric prefix, such as "1.23 M". */
export function metric(value: number): string {
  for (const [size, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) if (value >= 0.9995 * size) return `${digits(value / size)} ${prefix}`;
  return Number.isInteger(value) ? String(value) : digits(value);
}

/** Three digits, without an exponent. */
const digits = (value: number) => Number(value.toPrecision(3)).toFixed(value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);
