import { describe, expect, it } from "vitest";
import { largest } from "../src/lib/arithmetic/largest";
import { display, rounded, windowOf } from "../src/lib/arithmetic/show";
import { OPERATIONS, step, sum, type Line, type Quantity, type Sum } from "../src/lib/arithmetic/types";
import { lcg, normal } from "./seeded";

/** Text on screen as an exact number: units of the last digit, and the decimals. */
function exact(text: string): [bigint, number] {
  const [, sign, whole, fraction = "", exponent = "0"] = /^(−?)(\d+)(?:\.(\d+))?(?:e([+−]?\d+))?$/.exec(text)!;
  const units = BigInt(whole! + fraction);
  return [sign ? -units : units, fraction.length - Number(exponent.replace("−", "-"))];
}

function total(texts: string[], decimals: number): bigint {
  return texts.map(exact).reduce((all, [units, own]) => all + units * 10n ** BigInt(decimals - own), 0n);
}

const plain = (text: string) => Number(text.replaceAll("−", "-"));

/** The lines of a dot product of so many terms, and of what follows from it. */
function lines(random: () => number, count: number): { line: Sum; all: Line[] } {
  const size = 10 ** Math.floor(random() * 9 - 5);
  const single = (value: number): Quantity => ({ value: Math.fround(value) });
  const line = sum(Array.from({ length: count }, () => step("multiply", [single(normal(random) * size), single(normal(random))])));
  const divided = step("divide", [line.total, single(Math.sqrt(2 + Math.floor(random() * 90)))]);
  const root = step("root", [{ value: Math.abs(divided.result.value) }]);
  const power = step("exp", [{ value: normal(random) * 9 }]);
  const share = step("divide", [power.result, { value: 1 + random() * 30 }]);
  return { line, all: [line, divided, root, power, share] };
}

describe("what is shown", () => {
  it("adds up to the last digit, in 600 sums of any length and size", () => {
    const random = lcg(7);
    for (let run = 0; run < 600; run++) {
      const count = 1 + Math.floor(random() ** 3 * 900);
      const { line, all } = lines(random, count);
      const first = Math.floor(random() * 3) * 12;
      const shown = display(all, 12, new Map([[line as Line, first]]));
      const { terms, larger, smaller } = shown.windows.get(line)!;
      const parts = [...(larger ? [larger.sum] : []), ...terms.map((one) => one.result), ...(smaller ? [smaller.sum] : [])].map(shown.text);
      const [units, decimals] = exact(shown.text(line.total));
      const most = Math.max(decimals, ...parts.map((one) => exact(one)[1]));
      expect([run, total(parts, most)]).toEqual([run, units * 10n ** BigInt(most - decimals)]);
      expect(terms.length + (larger?.count ?? 0) + (smaller?.count ?? 0)).toBe(count);
      if (!smaller && terms.length) expect(shown.running(line, terms.length - 1)).toBe(shown.text(line.total));
    }
  });

  it("is each number rounded to nearest", () => {
    const random = lcg(8);
    for (let run = 0; run < 300; run++) {
      const { line, all } = lines(random, 1 + Math.floor(random() * 60));
      const shown = display(all);
      const window = shown.windows.get(line)!;
      for (const one of [line.total, ...window.terms.map((term) => term.result), ...(window.smaller ? [window.smaller.sum] : [])]) {
        const [, decimals] = exact(shown.text(one));
        expect(Math.abs(plain(shown.text(one)) - one.value)).toBeLessThanOrEqual(0.5001 * 10 ** -decimals);
      }
    }
  });

  it("gives what is shown when it is computed again by hand, in every step", () => {
    const random = lcg(9);
    for (let run = 0; run < 400; run++) {
      const { all } = lines(random, 1 + Math.floor(random() * 100));
      const shown = display(all);
      const steps = all.flatMap((line) => (line.kind === "step" ? [line] : shown.windows.get(line)!.terms));
      for (const one of steps) {
        const apply: (...values: number[]) => number = OPERATIONS[one.operation];
        const found = apply(...one.operands.map((operand) => plain(shown.text(operand))));
        const [, decimals] = exact(shown.text(one.result));
        expect(Number(found.toFixed(decimals))).toBe(plain(shown.text(one.result)));
      }
    }
  });

  it("has the largest terms first, and can show all others", () => {
    const line = sum([1, -4, 2, -3, 0.5].map((value) => step("same", [{ value }])));
    const values = (first: number, count: number) => windowOf(line, first, count).terms.map((one) => one.result.value);
    expect(values(0, 2)).toEqual([-4, -3]);
    expect(values(2, 2)).toEqual([2, 1, 0.5]); // a line for one term that is left out would take as much room
    expect(windowOf(line, 0, 2).smaller).toEqual({ count: 3, sum: { value: 3.5 } });
    expect(windowOf(line, 2, 2).larger).toEqual({ count: 2, sum: { value: -7 } });
  });

  it("finds the largest values whether they are few or many", () => {
    const random = lcg(10);
    for (const length of [1, 7, 40, 3000]) {
      const values = Float64Array.from({ length }, () => (random() < 0.1 ? -Infinity : Math.round(normal(random) * 20)));
      const sorted = [...values.keys()].filter((i) => values[i] !== -Infinity).sort((a, b) => values[b]! - values[a]! || a - b);
      for (const count of [0, 1, 5, length]) expect(largest(values, count)).toEqual(sorted.slice(0, count));
    }
  });

  it("does not show more digits than a number has, nor hide a small one", () => {
    expect([rounded(1e-5, 5), rounded(0.5, 5), rounded(256, 5), rounded(-Infinity, 4), rounded(0, 3)]).toEqual(["0.00001", "0.5", "256", "−∞", "0"]);
    expect(rounded(-4.18312e-18, 4)).toBe("−4.183e−18");
  });
});
