import { ALL, formatAddress, type Index } from "../address";
import { inputOf, linear, products } from "./linear";
import { added, boundOfSum, ROUNDING, SMALLEST, step, sum, sumOf, type Quantity, type Rule } from "./types";
import type { Values } from "./values";

/** The head of keys and values that a head of queries shares; there may be fewer of them (Ainslie et al. 2023, "GQA"). */
export function keyHead(values: Pick<Values, "model">, head: number): number {
  const { n_heads, n_key_value_heads } = values.model.cfg;
  return Math.floor(head / (n_heads / (n_key_value_heads ?? n_heads)));
}

/** What the products of queries and keys are divided by in a block. */
export function divisorOf(values: Pick<Values, "model">, layer: number): number {
  const { cfg } = values.model;
  const byWidth = cfg.use_attn_scale === false ? 1 : Math.sqrt(cfg.d_head);
  return cfg.scale_attn_by_inverse_layer_idx === true ? byWidth * (layer + 1) : byWidth;
}

/** A score: the product of a query and a key, divided; minus infinity where the mask hides the key. */
export async function scores(values: Values, layer: number, head: number, query: number, key: number): Promise<Rule> {
  const attn = `blocks.${layer}.attn`;
  const shared = keyHead(values, head);
  const [q, k] = values.hasPoint(`${attn}.hook_rot_q`) ? ["rot_q", "rot_k"] : ["q", "k"];
  const row = formatAddress(`${attn}.hook_attn_scores`, head, query);
  const [left, right] = await Promise.all([
    values.vector(`${attn}.hook_${q}`, [query, head, ALL], (i) => [query, head, i]),
    values.vector(`${attn}.hook_${k}`, [key, shared, ALL], (i) => [key, shared, i]),
    values.load(row),
  ]);
  const terms = products(inputOf(left, q!), right);
  const divisor = divisorOf(values, layer);
  const total = sum(terms, { name: "sum" });
  const found = step("divide", [total.total, { value: divisor, name: "divisor" }], { name: "result" });
  const isMasked = key > query;
  const how = divisor === Math.sqrt(values.model.cfg.d_head) ? " ÷ √d_head" : divisor === 1 ? "" : ` ÷ ${Number(divisor.toPrecision(6))}`;
  return {
    kind: "scores",
    formula: `score = Σᵢ ${q}[i] · ${k}[i]${how}`,
    lines: [total, found],
    pictures: [
      { kind: "products", products: terms.map((one) => one.result.value) },
      { kind: "mask", scores: Array.from(values.array(row)), query, marked: key },
    ],
    total: isMasked ? -Infinity : found.result.value,
    bound: isMasked ? 0 : boundOfSum(terms) / divisor,
  };
}

/** A share of attention: the softmax over the scores of a query. */
export async function pattern(values: Values, layer: number, head: number, query: number, key: number): Promise<Rule> {
  return softmax(values, `blocks.${layer}.attn.hook_attn_scores`, [head, query], key, "keys");
}

/** The probability of a token, over the full vocabulary. */
export async function probabilities(values: Values, position: number, token: number): Promise<Rule> {
  return softmax(values, "logits", [position], token, "vocabulary");
}

async function softmax(values: Values, name: string, row: number[], entry: number, of: "keys" | "vocabulary"): Promise<Rule> {
  const address = formatAddress(name, ...row);
  await values.load(address);
  const scores = values.array(address);
  const at = (i: number): Quantity => ({ value: scores[i]!, address: formatAddress(name, ...row, i) });
  let first = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i]! > scores[first]!) first = i;
  const most: Quantity = { ...at(first), name: "largest" };
  const seen: number[] = []; // exp of the others is 0
  for (let i = 0; i < scores.length; i++) if (scores[i] !== -Infinity) seen.push(i);
  const [powers, shifts] = [new Float64Array(seen.length), new Float64Array(seen.length)];
  for (let place = 0; place < seen.length; place++) {
    const shift = scores[seen[place]!]! - most.value;
    powers[place] = Math.exp(shift);
    shifts[place] = powers[place]! * -shift;
  }
  const total = sumOf(powers, (place) => step("exp-difference", [at(seen[place]!), most]), { name: "sum" });
  const mine = at(entry);
  const word = of === "keys" ? "score" : "logit";
  const shared = {
    kind: "softmax" as const,
    formula: `share = exp(${word} − max) ÷ Σⱼ exp(${word}[j] − max)`,
    pictures: [{ kind: "softmax" as const, scores, of, marked: entry }],
  };
  if (mine.value === -Infinity) return { ...shared, lines: [total], total: 0, bound: 0 };
  const shifted = step("subtract", [mine, most], { name: "shifted" });
  const power = step("exp", [shifted.result], { name: "exponential" });
  const found = step("divide", [power.result, total.total], { name: "result" });
  // The differences are rounded before the exponential function makes relative errors of their absolute ones.
  const roundings = seen.length + 16 + 2 * Math.abs(shifted.result.value) + (2 * added(shifts)) / total.total.value;
  const bound = roundings * ROUNDING * found.result.value + SMALLEST;
  return { ...shared, lines: [total, shifted, power, found], total: found.result.value, bound };
}

/** What a head takes from the values: their sum, weighted by the pattern. */
export async function z(values: Values, layer: number, position: number, head: number, entry: number): Promise<Rule> {
  const attn = `blocks.${layer}.attn`;
  const shared = keyHead(values, head);
  const [shares, carried] = await Promise.all([
    values.vector(`${attn}.hook_pattern`, [head, position, ALL], (k) => [head, position, k]),
    values.vector(`${attn}.hook_v`, [ALL, shared, entry], (k) => [k, shared, entry]),
  ]);
  const visible = position + 1; // later positions have a share of 0
  const left = inputOf(shares.slice(0, visible), "pattern");
  return linear(products(left, carried), "z = Σₖ pattern[k] · v[k]");
}

/** What attention adds to the stream: the sum of what its heads write, and the bias. */
export async function attentionOutput(values: Values, layer: number, position: number, entry: number): Promise<Rule> {
  const attn = `blocks.${layer}.attn`;
  if (!values.hasPoint(`${attn}.hook_result`)) return allHeads(values, attn, position, entry);
  const [z, weight] = [formatAddress(`${attn}.hook_z`, position), formatAddress(`${attn}.W_O`, ALL, ALL, entry)];
  const bias = values.hasWeight(`${attn}.b_O`) ? formatAddress(`${attn}.b_O`, entry) : null;
  await values.load(z, weight, bias, formatAddress(`${attn}.hook_result`, position, ALL, entry));
  const results = await values.vector(`${attn}.hook_result`, [position, ALL, entry], (h) => [position, h, entry] as Index[]);
  const width = values.model.cfg.d_head;
  const terms = results.map((one, head) => {
    // A head's result is a sum itself, and rounding is relative to what is added there.
    let size = 0;
    for (let i = head * width; i < (head + 1) * width; i++) size += Math.abs(values.array(z)[i]! * values.array(weight)[i]!);
    return step("same", [one], {}, size);
  });
  if (bias && values.number(bias) !== 0) terms.push(step("same", [values.quantity(bias)], { name: "bias" }));
  const line = sum(terms);
  return {
    kind: "sum",
    formula: `attn_out = Σₕ result[h]${terms.length > results.length ? " + b_O" : ""}`,
    lines: [line],
    pictures: [{ kind: "waterfall", parts: terms.map(({ operands: [one] }) => ({ address: one!.address!, value: one!.value })), change: 0 }],
    total: line.total.value,
    bound: boundOfSum(terms, width + 8),
  };
}

/** The same of a model that does not have what each head writes: one dot product over the heads side by side. */
async function allHeads(values: Values, attn: string, position: number, entry: number): Promise<Rule> {
  const width = values.model.cfg.d_head;
  const place = (i: number): [number, number] => [Math.floor(i / width), i % width];
  const z = await values.vector(`${attn}.hook_z`, [position], (i) => [position, ...(place(i as number) as Index[])]);
  const weights = await values.vector(`${attn}.W_O`, [ALL, ALL, entry], (i) => [...(place(i as number) as Index[]), entry]);
  const bias = formatAddress(`${attn}.b_O`, entry);
  const terms = products(inputOf(z, "z"), weights);
  if (values.hasWeight(`${attn}.b_O`)) {
    await values.load(bias);
    if (values.number(bias) !== 0) terms.push(step("same", [values.quantity(bias)], { name: "bias" }));
  }
  return linear(terms, `attn_out = Σₕᵢ z[h,i] · W_O[h,i,${entry}]${terms.length > z.length ? " + b_O" : ""}`);
}
