import { ALL, formatAddress, type Index } from "../address";
import { boundOfSum, step, sum, type Quantity, type Rule, type Step } from "./types";
import type { Values } from "./values";

/** An input of a linear map: its entries, and how large the numbers were that each was added up from. */
export interface Input {
  entries: Quantity[];
  sizes: number[];
  words: string; // in a formula
}

/** An input that is a hook point's own value. */
export function inputOf(entries: Quantity[], words: string): Input {
  return { entries, sizes: entries.map((one) => Math.abs(one.value)), words };
}

/**
 * An entry of input @ weight + bias.
 *
 * @param name what the value is called in the formula
 * @param column the indices of the weight, with null for the axis that is summed over
 * @param bias the bias's name and indices
 */
export async function dot(
  values: Values,
  name: string,
  given: Promise<Input>,
  weight: string,
  column: (number | null)[],
  bias: { name: string; indices: number[] } | null,
): Promise<Rule> {
  const added = bias && values.hasWeight(bias.name) ? formatAddress(bias.name, ...bias.indices) : null;
  const at = (i: Index): Index[] => column.map((one) => one ?? i);
  const [input, weights] = await Promise.all([given, values.vector(weight, at(ALL), at), values.load(added)]);
  const terms = products(input, weights);
  const hasBias = added !== null && values.number(added) !== 0; // models without biases have them as zeros
  if (hasBias) terms.push(step("same", [values.quantity(added)], { name: "bias" }));
  const last = (full: string) => full.split(".").pop();
  const written = column.map((one) => one ?? "i").join(",");
  const formula = `${name} = Σᵢ ${input.words}[i] · ${last(weight)}[${written}]${hasBias ? ` + ${last(bias!.name)}[${bias!.indices}]` : ""}`;
  return linear(terms, formula);
}

/** The terms of a dot product. */
export function products(left: Input, right: Quantity[]): Step[] {
  return left.entries.map((one, i) => step("multiply", [one, right[i]!], {}, left.sizes[i]! * Math.abs(right[i]!.value)));
}

/** A rule that adds up terms. */
export function linear(terms: Step[], formula: string): Rule {
  const line = sum(terms);
  const pictures: Rule["pictures"] = [{ kind: "products", products: terms.map((one) => one.result.value) }];
  return { kind: "dot", formula, lines: [line], pictures, total: line.total.value, bound: boundOfSum(terms) };
}
