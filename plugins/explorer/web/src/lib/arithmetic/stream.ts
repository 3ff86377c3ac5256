import { formatAddress } from "../address";
import { boundOfSum, step, sum, type Rule } from "./types";
import type { Values } from "./values";

/** A hook point that takes a row of a matrix: a token's embedding, or a position's. */
export async function lookup(values: Values, weight: string, row: number, entry: number, what: string): Promise<Rule> {
  const [all, one] = [formatAddress(weight, row), formatAddress(weight, row, entry)];
  await values.load(all);
  const value = values.array(all)[entry]!;
  return {
    kind: "lookup",
    formula: `${what} = ${weight.split(".").pop()}[${row},${entry}]`,
    lines: [step("same", [{ value, address: one }], { name: "result" })],
    pictures: [{ kind: "row", values: Array.from(values.array(all)), marked: entry, weight }],
    total: value,
    bound: 0,
  };
}

/** The stream at a place: the stream at the place before, and what is added between. */
export async function state(values: Values, name: string, position: number, entry: number): Promise<Rule> {
  const { parts, states } = values.model.residual_stream;
  const at = (one: string) => formatAddress(one, position, entry);
  const order = values.model.hook_points.map((one) => one.name); // of computation
  const earlier = order.slice(0, order.indexOf(name));
  const previous = Math.max(...earlier.map((one, place) => (states.includes(one) ? place : -1)), -1);
  const between = earlier.slice(previous + 1).filter((one) => parts.includes(one));
  const names = [...(previous < 0 ? [] : [earlier[previous]!]), ...between];
  const all = earlier.filter((one) => parts.includes(one));
  await values.load(...names.map(at), ...all.map(at), at(name));
  const short = (one: string) => one.replace(/^blocks\.(\d+)\.hook_/, "$1.").replace(/^hook_/, "");
  const terms = names.map((one) => step("same", [values.quantity(at(one))]));
  const line = sum(terms);
  const whole = all.map((one) => step("same", [values.quantity(at(one))]));
  // Without edits of the stream itself, its parts add up to it.
  const change = values.number(at(name)) - sum(whole).total.value;
  const isChanged = Math.abs(change) > boundOfSum(whole);
  const bars = all.map((one) => ({ address: at(one), value: values.number(at(one)) }));
  const formula = `${short(name)} = ${names.map(short).join(" + ")}`;
  if (names.length === 1) {
    const copy = { kind: "copy" as const, from: at(names[0]!), to: at(name), value: line.total.value };
    const lines = [step("same", [values.quantity(at(names[0]!))], { name: "result" as const })];
    return { kind: "copy", formula, lines, pictures: [copy], total: line.total.value, bound: 0 };
  }
  const pictures: Rule["pictures"] = [{ kind: "waterfall", parts: bars, change: isChanged ? change : 0 }];
  return { kind: "sum", formula, lines: [line], pictures, total: line.total.value, bound: boundOfSum(terms, 2) };
}
