/**
 * How the numbers of an arithmetic are written, so that what is on screen adds up.
 *
 * Every number is rounded to nearest, and every line holds for the numbers as they are written: the terms shown and the
 * rest of them add up to the total that is shown, to its last digit; and whoever multiplies, divides and so on what is
 * shown, and rounds, gets what is shown. Numbers get as many digits as that takes.
 */
import { largest } from "./largest";
import { added, OPERATIONS, type Line, type Quantity, type Step, type Sum } from "./types";

/** A number on screen. */
export interface Shown {
  text: string;
  value: number; // of the text
}

/** The terms of a sum that are on screen, the largest first, and what is left out before and after them. */
export interface Window {
  terms: Step[];
  larger: Rest | null;
  smaller: Rest | null;
}

export interface Rest {
  count: number;
  sum: Quantity;
}

/** Lines as they are on screen. */
export interface Display {
  windows: Map<Sum, Window>;
  text(quantity: Quantity): string;
  /** The sum of the terms on screen up to one of them; with what was left out before. */
  running(line: Sum, term: number): string;
}

const DIGITS = 5; // significant ones, to begin with
const MOST = 17; // float64 has no more

/** A number's size on screen: its decimals. */
class Written {
  constructor(
    readonly value: number,
    public decimals: number,
    public isInColumn = false, // where all numbers have the same decimals
  ) {}

  get units(): bigint {
    if (Math.abs(this.value) >= 1e21) return BigInt(this.value) * 10n ** BigInt(this.decimals);
    return BigInt(this.value.toFixed(this.decimals).replace(".", ""));
  }

  get rounded(): number {
    return Number.isFinite(this.value) ? Number(this.value.toFixed(this.decimals)) : this.value;
  }

  get isExact(): boolean {
    return this.rounded === this.value;
  }

  get significant(): number {
    return this.decimals + (this.value === 0 ? 0 : Math.floor(Math.log10(Math.abs(this.value))) + 1);
  }
}

/** The terms by size, from `first` on, so many of them. */
export function windowOf(line: Sum, first: number, count: number): Window {
  const { values } = line;
  // One term takes no more room than a line that says that it was left out.
  const start = Math.min(first === 1 ? 0 : first, values.length);
  const end = values.length - first - count === 1 ? values.length : Math.min(first + count, values.length);
  const [sizes, left] = [new Float64Array(values.length), new Float64Array(values.length)];
  for (let i = 0; i < values.length; i++) sizes[i] = Math.abs((left[i] = values[i]!));
  const order = largest(sizes, end);
  for (const place of order) left[place] = 0;
  const before = order.slice(0, start).map((place) => values[place]!);
  return {
    terms: order.slice(start).map((place) => line.term(place)),
    larger: start ? { count: start, sum: { value: added(before) } } : null,
    smaller: end < values.length ? { count: values.length - end, sum: { value: added(left) } } : null,
  };
}

/**
 * Decides how many digits each number gets.
 *
 * @param firsts which term of each sum is the first on screen, counted from the largest; 0 where nothing is said
 * @param count how many terms of a sum are on screen
 */
export function display(lines: readonly Line[], count = 12, firsts: ReadonlyMap<Line, number> = new Map()): Display {
  const written = new Map<Quantity, Written>();
  const windows = new Map<Sum, Window>();
  const groups = new Map<Sum, Written[]>(); // have as many decimals as each other
  const totals = new Map<Sum, bigint>(); // of sums that no number of digits makes add up
  const of = (quantity: Quantity): Written => {
    let found = written.get(quantity);
    if (!found) written.set(quantity, (found = new Written(quantity.value, decimalsFor(quantity.value, DIGITS))));
    return found;
  };
  for (const line of lines) {
    if (line.kind === "step") continue;
    const window = windowOf(line, firsts.get(line) ?? 0, count);
    windows.set(line, window);
    const parts = [...window.terms.map((one) => one.result), ...rests(window)].map(of);
    const group = [...parts, of(line.total)];
    const exponent = (value: number) => (value === 0 || !Number.isFinite(value) ? 0 : Math.floor(Math.log10(Math.abs(value))));
    const most = Math.max(...group.map((one) => (Number.isFinite(one.value) ? exponent(one.value) : 0)));
    // Enough for the largest; and for a small total, as far as float32 knows it.
    const wanted = Math.max(DIGITS - 1 - most, Math.min(2 - exponent(line.total.value), 8 - most), 0);
    const decimals = group.every((one) => Number.isInteger(one.value)) ? 0 : Math.min(wanted, 90);
    for (const one of group) [one.decimals, one.isInColumn] = [decimals, true];
    groups.set(line, group);
  }
  const add = (one: Sum): bigint => groups.get(one)!.slice(0, -1).reduce((total, part) => total + part.units, 0n);
  const isFinite = (one: Sum): boolean => groups.get(one)!.every((part) => Number.isFinite(part.value));
  const adds = (one: Sum): boolean => !isFinite(one) || add(one) === groups.get(one)!.at(-1)!.units;
  const steps = lines.flatMap((line) => (line.kind === "step" ? [line] : windows.get(line)!.terms));
  const groupOf = new Map([...groups].flatMap(([line, group]) => group.map((one) => [one, line] as const)));
  const more = (one: Written): void => {
    const line = groupOf.get(one);
    for (const each of line ? groups.get(line)! : [one]) each.decimals++;
  };
  for (let isDone = false; !isDone; ) {
    isDone = true;
    for (const line of windows.keys()) {
      while (!adds(line) && !totals.has(line)) {
        isDone = false;
        const group = groups.get(line)!;
        if (Math.max(...group.map((one) => one.significant)) >= MOST) totals.set(line, 0n);
        else for (const one of group) one.decimals++;
      }
    }
    for (const one of steps) {
      const operands = one.operands.map(of);
      while (!holds(one, operands, of(one.result))) {
        const shortest = operands.filter((each) => !each.isExact && each.significant < MOST + 3);
        if (!shortest.length) break;
        isDone = false;
        more(shortest.reduce((a, b) => (b.significant < a.significant ? b : a)));
      }
    }
  }
  // Beyond float64's digits, the total is what the terms on screen add up to.
  for (const line of totals.keys()) totals.set(line, add(line));
  const totalOf = new Map([...totals.keys()].map((line) => [line.total, line] as const));
  return {
    windows,
    text: (quantity) => {
      const line = totalOf.get(quantity);
      return line ? fromUnits(totals.get(line)!, of(quantity).decimals) : textOf(of(quantity));
    },
    running: (line, term) => {
      if (!isFinite(line)) return "";
      const { larger, terms } = windows.get(line)!;
      const parts = [...(larger ? [larger.sum] : []), ...terms.slice(0, term + 1).map((one) => one.result)];
      const units = parts.reduce((total, one) => total + of(one).units, 0n);
      return fromUnits(units, of(line.total).decimals);
    },
  };
}

/** A number with so many significant digits, as `display` writes it. */
export function rounded(value: number, digits: number): string {
  return textOf(new Written(value, decimalsFor(value, digits)));
}

function rests({ larger, smaller }: Window): Quantity[] {
  return [larger, smaller].flatMap((one) => (one ? [one.sum] : []));
}

/** Whether the numbers as they are written give the result as it is written. */
function holds(line: Step, operands: Written[], result: Written): boolean {
  if (!Number.isFinite(result.value) || !operands.every((one) => Number.isFinite(one.value))) return true;
  const apply: (...values: number[]) => number = OPERATIONS[line.operation];
  const found = apply(...operands.map((one) => one.rounded));
  return Number(found.toFixed(result.decimals)) === result.rounded;
}

/** How many decimals give a number so many significant digits, or fewer if these are all it has. */
function decimalsFor(value: number, digits: number): number {
  if (value === 0 || !Number.isFinite(value) || (Number.isInteger(value) && Math.abs(value) < 1e9)) return 0;
  let enough = digits;
  while (enough > 1 && Number(value.toPrecision(enough - 1)) === value) enough--;
  return Math.min(Math.max(enough - 1 - Math.floor(Math.log10(Math.abs(value))), 0), 90);
}

/** Small numbers are written with a power of ten, with the same last digit; but not in a column, where they are added. */
function textOf({ value, decimals, isInColumn }: Written): string {
  if (value === Infinity || value === -Infinity) return value < 0 ? "−∞" : "∞";
  const size = Math.abs(value);
  const exponent = size === 0 ? 0 : Math.floor(Math.log10(size));
  if (!isInColumn && decimals > 8 && exponent < -4 && decimals + exponent >= 0) return value.toExponential(decimals + exponent).replaceAll("-", "−");
  const text = size.toFixed(decimals);
  return (value < 0 && Number(text) !== 0 ? "−" : "") + text;
}

function fromUnits(units: bigint, decimals: number): string {
  const digits = (units < 0n ? -units : units).toString().padStart(decimals + 1, "0");
  const whole = digits.slice(0, digits.length - decimals);
  return (units < 0n ? "−" : "") + whole + (decimals ? `.${digits.slice(-decimals)}` : "");
}
