import { ALL, formatAddress } from "../address";
import type { Input } from "./linear";
import { added, ROUNDING, SMALLEST, step, sum, type Line, type Quantity, type Rule } from "./types";
import type { Values } from "./values";

/** The divisor of a normalisation: sqrt(variance + eps), or sqrt(mean square + eps) where it does not centre. */
export async function scale(values: Values, norm: string, position: number): Promise<Rule> {
  const { x, facts, count, lines, mean } = await read(values, norm, position);
  const squares = sum(
    x.map((one) => (mean ? step("square-difference-share", [one, mean, count]) : step("square-share", [one, count]))),
    { name: mean ? "variance" : "mean-square" },
  );
  const inside = step("add", [squares.total, { value: facts.eps, name: "epsilon" }], { name: "inside-root" });
  const root = step("root", [inside.result], { name: "result" });
  // Some kernels compute the variance as mean(x²) − mean(x)², so rounding is relative to the mean square.
  const bound = (x.length + 8) * ROUNDING * (4 * meanSquare(x)) / (2 * root.result.value) + 8 * ROUNDING * root.result.value;
  return {
    kind: "scale",
    formula: mean ? "scale = √(Σᵢ (x[i] − mean)² ÷ d_model + ε),  mean = Σᵢ x[i] ÷ d_model" : "scale = √(Σᵢ x[i]² ÷ d_model + ε)",
    lines: [...lines, squares, inside, root],
    pictures: [picture(x, mean, root.result.value, -1)],
    total: root.result.value,
    bound,
  };
}

/** An entry of a normalised value, before weight and bias. */
export async function normalized(values: Values, norm: string, position: number, entry: number): Promise<Rule> {
  const divisor = formatAddress(`${norm}.hook_scale`, position, 0);
  const [{ x, lines, mean }] = await Promise.all([read(values, norm, position), values.load(divisor)]);
  const centred = mean && step("subtract", [x[entry]!, mean], { name: "centred" });
  const found = step("divide", [centred?.result ?? x[entry]!, values.quantity(divisor)], { name: "result" });
  const size = mean ? Math.abs(x[entry]!.value) + (x.length + 8) * Math.sqrt(meanSquare(x)) : Math.abs(x[entry]!.value);
  return {
    kind: "norm",
    formula: mean ? "normalized[i] = (x[i] − mean) ÷ scale,  mean = Σᵢ x[i] ÷ d_model" : "normalized[i] = x[i] ÷ scale",
    lines: [...lines, ...(centred ? [centred] : []), found],
    pictures: [picture(x, mean, values.number(divisor), entry)],
    total: found.result.value,
    bound: ROUNDING * ((4 * size) / Math.abs(values.number(divisor)) + 8 * Math.abs(found.result.value)) + SMALLEST,
  };
}

/** An entry of a normalisation's output: weight and bias applied. The model has no hook point for it. */
export async function output(values: Values, norm: string, position: number, entry: number): Promise<Rule> {
  const before = formatAddress(`${norm}.hook_normalized`, position, entry);
  const [weight, bias] = ["w", "b"].map((one) => optional(values, `${norm}.${one}`)).map((one) => one && formatAddress(one, entry));
  await values.load(before, weight ?? null, bias ?? null);
  const lines: Line[] = [];
  let found = values.quantity(before);
  if (weight) {
    const line = step("multiply", [found, values.quantity(weight)], { name: bias ? "weighted" : "result" });
    lines.push(line);
    found = line.result;
  }
  if (bias) {
    const line = step("add", [found, values.quantity(bias)], { name: "result" });
    lines.push(line);
    found = line.result;
  }
  const formula = `${short(norm)}[i] = normalized[i]${weight ? " · w[i]" : ""}${bias ? " + b[i]" : ""}`;
  return { kind: "product", formula, lines, pictures: [], total: found.value, bound: 0 };
}

/** What a linear map after a normalisation reads: all entries of its output, at addresses of their own. */
export async function outputs(values: Values, norm: string, position: number): Promise<Input> {
  const before = formatAddress(`${norm}.hook_normalized`, position);
  const [weight, bias] = ["w", "b"].map((one) => optional(values, `${norm}.${one}`));
  await values.load(before, weight ?? null, bias ?? null);
  const input: Input = { entries: [], sizes: [], words: short(norm) };
  for (let i = 0; i < values.array(before).length; i++) {
    const weighted = values.array(before)[i]! * (weight ? values.array(weight)[i]! : 1);
    const shift = bias ? values.array(bias)[i]! : 0;
    input.entries.push({ value: weighted + shift, address: formatAddress(norm, position, i) });
    input.sizes.push(Math.abs(weighted) + Math.abs(shift));
  }
  return input;
}

const optional = (values: Values, name: string) => (values.hasWeight(name) ? name : null);
const short = (norm: string) => norm.split(".").pop()!;
const meanSquare = (x: Quantity[]) => added(x.map((one) => one.value ** 2)) / x.length;

async function read(values: Values, norm: string, position: number) {
  const facts = values.model.normalizations[norm]!;
  const x = await values.vector(facts.reads, [position, ALL], (i) => [position, i]);
  const count: Quantity = { value: x.length, name: "count" };
  if (facts.kind !== "LN") return { x, facts, count, lines: [], mean: null };
  const line = sum(
    x.map((one) => step("divide", [one, count])),
    { name: "mean" },
  );
  return { x, facts, count, lines: [line], mean: line.total };
}

function picture(x: Quantity[], mean: Quantity | null, divisor: number, marked: number): Rule["pictures"][number] {
  return { kind: "norm", before: x.map((one) => one.value), mean: mean?.value ?? 0, scale: divisor, marked };
}
