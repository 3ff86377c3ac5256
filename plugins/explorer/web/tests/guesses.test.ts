import { describe, expect, it } from "vitest";
import type { Answer, RunFacts } from "../src/engine/types";
import { filled, unknown, withRoom } from "../src/lib/guesses";

const facts = { tokens: [], position: 0, token: 1, against: 2, labels: { 1: "a" } } as RunFacts;
const short: Answer<RunFacts> = { facts, arrays: { sources: { shape: [2, 1, 4], data: new Float32Array(8) } } };

describe("guesses", () => {
  it("are unknown at first, and known where they were filled in", () => {
    const empty = withRoom(short, 2);
    expect([empty.arrays["guesses.ids"]!.shape, empty.facts.states]).toEqual([[3, 4, 2], ["0_pre", "1_pre", "final_post"]]);
    expect(unknown(empty, [0, 3])).toEqual([0, 3]);
    const ids = { shape: [3, 2, 2], data: Int32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) };
    const shares = { shape: [3, 2, 2], data: Float32Array.from(ids.data, (one) => one / 16) };
    const found = { facts: { ...facts, labels: { 9: "b" } }, arrays: { "guesses.ids": ids, "guesses.probabilities": shares } };
    const now = filled(empty, found, [3, 1]);
    expect(unknown(now, [0, 1, 2, 3])).toEqual([0, 2]);
    expect([...now.arrays["guesses.ids"]!.data]).toEqual([-1, -1, 3, 4, -1, -1, 1, 2, -1, -1, 7, 8, -1, -1, 5, 6, -1, -1, 11, 12, -1, -1, 9, 10]);
    expect(now.arrays["guesses.probabilities"]!.data[2]).toBe(3 / 16);
    expect(now.facts.labels).toEqual({ 1: "a", 9: "b" });
    expect(unknown(empty, [1])).toEqual([1]); // the first one stays as it was
  });

  it("stay as they are where an answer has them", () => {
    const full = { facts, arrays: { ...short.arrays, "guesses.ids": { shape: [3, 4, 1], data: new Int32Array(12) } } };
    expect(withRoom(full)).toBe(full);
  });
});
