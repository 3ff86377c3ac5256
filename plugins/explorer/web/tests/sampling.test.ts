import { describe, expect, it } from "vitest";
import { find, type Node } from "../src/generation/generation.svelte";
import { chainOf, NEUTRAL, shape, sorted } from "../src/lib/sampling";
import { softmax } from "../src/lib/numbers";
import { lcg } from "./seeded";

const next = lcg(5);
const logits = Float32Array.from({ length: 500 }, () => 8 * next() - 4);

describe("a distribution", () => {
  it("is softmax where nothing is set", () => {
    const inOrder = sorted(logits);
    const found = shape(inOrder, NEUTRAL);
    const expected = softmax(logits, 1);
    for (const [place, id] of inOrder.ids.entries()) expect(found.shares[place]).toBeCloseTo(expected[id]!, 12);
    expect(found.kept).toBe(500);
  });

  it.each([
    { temperature: 0.5 },
    { temperature: 1.7, top_k: 40 },
    { top_p: 0.9 },
    { min_p: 0.1 },
    { temperature: 0.8, top_k: 100, top_p: 0.7, min_p: 0.05 },
  ])("keeps what the samplers keep: %o", (set) => {
    const asked = { ...NEUTRAL, ...set };
    const { ids } = sorted(logits);
    // Step by step, without sorting once.
    let left = [...ids];
    const shares = () => {
      const all = left.map((id) => Math.exp(logits[id]! / asked.temperature));
      const total = all.reduce((a, b) => a + b);
      return all.map((one) => one / total);
    };
    if (asked.top_k) left = left.slice(0, asked.top_k);
    if (asked.top_p < 1) {
      let mass = 0;
      left = left.slice(0, shares().findIndex((one) => (mass += one) >= asked.top_p) + 1);
    }
    if (asked.min_p > 0) {
      const all = shares();
      left = left.filter((_, place) => all[place]! >= asked.min_p * all[0]!);
    }
    const found = shape(sorted(logits), asked);
    expect(found.kept).toBe(left.length);
    for (const [place, share] of shares().entries()) expect(found.shares[place]).toBeCloseTo(share, 10);
    expect([...found.shares.subarray(found.kept)].every((one) => one === 0)).toBe(true);
  });

  it("is all on one token at temperature 0", () => {
    expect(shape(sorted([1, 3, 3, 2]), { ...NEUTRAL, temperature: 0 }).kept).toBe(1);
    expect(sorted([1, 3, 3, 2]).ids[0]).toBe(1);
  });

  it("keeps ties with the last token of top-k, as the sampler does", () => {
    expect(shape(sorted([2, 1, 1, 0]), { ...NEUTRAL, top_k: 2 }).kept).toBe(3);
  });

  it("is what its chain says", () => {
    expect(chainOf(NEUTRAL)).toBe("multinomial");
    expect(chainOf({ temperature: 0.7, top_k: 40, top_p: 0.9, min_p: 0.05 })).toBe("temperature=0.7 | top_k=40 | top_p=0.9 | min_p=0.05 | multinomial");
    expect(chainOf({ ...NEUTRAL, temperature: 0 })).toBe("greedy");
  });
});

describe("a tree", () => {
  it("finds a text by its tokens", () => {
    const node = (ids: number[], children: Node[] = []): Node => ({ ids, text: "", label: "", share: null, children });
    const trees = [node([1], [node([1, 2], [node([1, 2, 3])]), node([1, 4])]), node([9])];
    for (const ids of [[1], [1, 2], [1, 2, 3], [1, 4], [9]]) expect(find(trees, ids)?.ids).toEqual(ids);
    expect(find(trees, [1, 5])).toBeUndefined();
  });
});
