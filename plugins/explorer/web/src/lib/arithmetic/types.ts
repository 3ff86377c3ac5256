import type { Edit, Tensor, Token } from "../../engine/types";

/** How a number comes about. `given` is a weight, `unknown` a value whose rule the page does not know. */
export type Kind =
  | "given" | "unknown" | "lookup" | "copy" | "sum" | "dot" | "norm" | "scale" | "softmax" | "scores" | "activation"
  | "product" | "rotary";

/** A number in the arithmetic of another: with an address where it can be explained itself, or with a name. */
export interface Quantity {
  value: number;
  address?: string;
  name?: Name;
}

/** Names of numbers that have no address; texts are in the language files. */
export type Name =
  | "mean" | "variance" | "mean-square" | "epsilon" | "inside-root" | "centred" | "largest" | "shifted" | "exponential" | "sum"
  | "divisor" | "count" | "position" | "frequency" | "angle" | "cosine" | "sine" | "minus-sine" | "activated" | "weighted" | "bias"
  | "result";

/** What is computed from the operands a, b, c of a step. */
export const OPERATIONS = {
  same: (a: number) => a,
  multiply: (...factors: number[]) => factors.reduce((product, one) => product * one, 1),
  divide: (a: number, b: number) => a / b,
  add: (a: number, b: number) => a + b,
  subtract: (a: number, b: number) => a - b,
  root: (a: number) => Math.sqrt(a),
  exp: (a: number) => Math.exp(a),
  "exp-difference": (a: number, b: number) => Math.exp(a - b),
  "square-share": (a: number, b: number) => (a * a) / b,
  "square-difference-share": (a: number, b: number, c: number) => ((a - b) * (a - b)) / c,
  cos: (a: number) => Math.cos(a),
  sin: (a: number) => Math.sin(a),
  gelu_new: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu: (x: number) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  relu: (x: number) => Math.max(x, 0),
  silu: (x: number) => x / (1 + Math.exp(-x)),
} as const satisfies Record<string, (...operands: number[]) => number>;

export type Operation = keyof typeof OPERATIONS;

/** The activation functions, by the names that `cfg.act_fn` has. */
export const ACTIVATIONS = ["gelu_new", "gelu", "relu", "silu"] as const satisfies Operation[];
export type Activation = (typeof ACTIVATIONS)[number];

/** One step: the result of an operation. */
export interface Step {
  kind: "step";
  operation: Operation;
  operands: Quantity[];
  result: Quantity;
  size: number; // of the numbers that were added on the way, which bounds the rounding; at least that of the result
}

/** A sum of terms, each a step of its own. There may be as many as tokens in the vocabulary, so they are made when asked for. */
export interface Sum {
  kind: "sum";
  values: ArrayLike<number>; // of the terms
  term(place: number): Step; // the same one each time
  total: Quantity;
}

export type Line = Step | Sum;

/** What the small picture of a rule shows. Positions and entries count from 0. */
export type Picture =
  | { kind: "row"; values: number[]; marked: number; weight: string }
  | { kind: "copy"; from: string; to: string; value: number }
  | { kind: "waterfall"; parts: { address: string; value: number }[]; change: number }
  | { kind: "products"; products: number[] }
  | { kind: "norm"; before: number[]; mean: number; scale: number; marked: number }
  | { kind: "softmax"; scores: ArrayLike<number>; of: "keys" | "vocabulary"; marked: number }
  | { kind: "mask"; scores: number[]; query: number; marked: number }
  | { kind: "activation"; activation: Activation; at: number }
  | { kind: "rotary"; pair: [number, number]; angle: number; entry: 0 | 1 };

/** How one number comes about: what is added, multiplied and so on, down to its value. */
export interface Arithmetic {
  address: string;
  name: string;
  indices: number[];
  kind: Kind;
  formula: string;
  lines: Line[];
  pictures: Picture[];
  total: number; // computed here, in float64, from the operands as the model has them
  stored: number | null; // the model's own, float32; null for what the model does not store
  bound: number; // how far float32 rounding may move the stored value from the total
  agrees: boolean | null; // whether it is within the bound; null where nothing is stored
  edits: Edit[]; // those that changed the stored value
}

/** What a rule says; `explain` adds the rest. */
export interface Rule {
  kind: Kind;
  formula: string;
  lines: Line[];
  pictures: Picture[];
  total: number;
  bound: number;
}

/** The run that the number is of. */
export interface Context {
  tokens: readonly Token[];
  edits: readonly Edit[];
}

/** Reads addresses of the run; answers by address. */
export type Read = (addresses: string[]) => Promise<Record<string, Tensor>>;

/** The rounding of float32: half the distance from 1 to the next number. */
export const ROUNDING = 2 ** -24;

/** The smallest normal float32; some processors flush smaller numbers to zero. */
export const SMALLEST = 2 ** -126;

/** A step. */
export function step(operation: Operation, operands: Quantity[], result: Omit<Quantity, "value"> = {}, size = 0): Step {
  const apply: (...values: number[]) => number = OPERATIONS[operation];
  const value = apply(...operands.map((one) => one.value));
  return { kind: "step", operation, operands, result: { ...result, value }, size: Math.max(Math.abs(value), size) };
}

/** A sum of these terms. */
export function sum(terms: readonly Step[], total: Omit<Quantity, "value"> = {}): Sum {
  return sumOf(terms.map((one) => one.result.value), (place) => terms[place]!, total);
}

/** A sum of terms with these values, each of which is made when it is asked for. */
export function sumOf(values: ArrayLike<number>, make: (place: number) => Step, total: Omit<Quantity, "value"> = {}): Sum {
  const made = new Map<number, Step>();
  const term = (place: number): Step => made.get(place) ?? made.set(place, make(place)).get(place)!;
  return { kind: "sum", values, term, total: { ...total, value: added(values) } };
}

/** All terms of a sum. */
export function termsOf(line: Sum): Step[] {
  return Array.from(line.values, (_, place) => line.term(place));
}

/** The sum of numbers, in float64 and compensated, so that its order does not matter (Neumaier 1974). */
export function added(values: ArrayLike<number>): number {
  let [total, rest] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    const next = total + value;
    rest += Math.abs(total) >= Math.abs(value) ? total - next + value : value - next + total;
    total = next;
  }
  return total + rest;
}

/**
 * How far rounding may move a sum that is computed in float32, in any order: Higham 2002, "Accuracy and Stability of
 * Numerical Algorithms", section 4.2.
 *
 * @param terms what is added
 * @param more further roundings on the way to each term
 */
export function boundOfSum(terms: readonly Step[], more = 8): number {
  return (terms.length + more) * ROUNDING * added(terms.map((one) => one.size)) + SMALLEST;
}

/** The error function, to float64's precision: Abramowitz and Stegun 1964, 7.1.6, whose terms all have one sign. */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let [term, total] = [x, x];
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(total); n++) total += term *= (2 * x * x) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * total;
}
