import { describe, expect, it } from "vitest";
import { nucleus, percent, signed, softmax } from "../src/lib/numbers";

describe("numbers", () => {
  it("gives probabilities that sum to 1, whatever the logits", () => {
    for (const logits of [[1000, 999, -1000], [-1e4, -1e4], [0]]) {
      const found = softmax(logits, 0.7);
      expect([...found].reduce((a, b) => a + b)).toBeCloseTo(1, 12);
    }
    expect([...softmax([1, 3, 2], 0)]).toEqual([0, 1, 0]);
  });

  it("counts the nucleus over all tokens", () => {
    expect(nucleus(Float64Array.from([0.5, 0.3, 0.2]), 0.5)).toBe(1);
    expect(nucleus(Float64Array.from([0.2, 0.5, 0.3]), 0.51)).toBe(2);
    expect(nucleus(Float64Array.from([0.2, 0.5, 0.3]), 1)).toBe(3);
  });

  it("writes signs and shares", () => {
    expect([signed(-1.234), signed(0.001), signed(-0.001)]).toEqual(["−1.23", "+0.00", "+0.00"]);
    expect([percent(0.5), percent(0.00999), percent(4.2e-6), percent(1e-7), percent(0)]).toEqual(["50.0 %", "1.00 %", "0.00042 %", "1.0e-5 %", "0 %"]);
  });
});
