import { describe, expect, it } from "vitest";
import type { Model, Tensor, Token } from "../src/engine/types";
import { most, pooledSquare, productsOf, sharedHead, shareOfFirst } from "../src/lib/attention";
import { isQuick } from "../src/lib/cost";
import { kindsOf, LEAST, scoresOf } from "../src/lib/kinds";
import { isSplit, lettersOf, textOf } from "../src/lib/letters";
import { largestBySize, lengthOf, moments } from "../src/lib/vectors";
import { lcg, normal } from "./seeded";

const hex = (text: string) => Array.from(new TextEncoder().encode(text), (one) => one.toString(16).padStart(2, "0"));
const token = (bytes: readonly string[]): Token => ({ id: 0, label: "", bytes: bytes.join("") });
const cfg = { n_heads: 6, n_key_value_heads: 2, d_head: 4, use_attn_scale: true } as unknown as Model["cfg"];
const model = { cfg, hook_points: [], weights: [{ name: "W", shape: [1000, 1000] }] } as unknown as Model;

describe("letters", () => {
  it("are whole across tokens, whichever bytes are in which", () => {
    const bytes = hex("Zü😀你");
    for (let cut = 1; cut < bytes.length; cut++) {
      const letters = lettersOf([token(bytes.slice(0, cut)), token(bytes.slice(cut))]);
      expect(letters.map((one) => one.text)).toEqual(["Z", "ü", "😀", "你"]);
      expect(letters.flatMap((one) => one.bytes)).toEqual(bytes);
      expect(letters.filter(isSplit).length).toBe([1, 3, 7].includes(cut) ? 0 : 1);
    }
  });

  it("are empty for bytes that are none, each alone", () => {
    const letters = lettersOf([token(["c3"]), token(["41", "ff"])]);
    expect(letters.map((one) => [one.text, one.bytes.join("")])).toEqual([["", "c3"], ["A", "41"], ["", "ff"]]);
    expect([textOf("c3bc"), textOf("c3"), textOf("41ff"), textOf("")]).toEqual(["ü", "\\xc3", "A\\xff", ""]);
  });
});

describe("attention", () => {
  it("shares heads of keys among those of queries", () => {
    expect([0, 2, 3, 5].map((head) => sharedHead(model, head).keyHead)).toEqual([0, 0, 1, 1]);
    expect(sharedHead(model, 0).sharing).toBe(3);
  });

  it("multiplies queries and keys, and divides as the model does", () => {
    const tensor = (values: number[]): Tensor => ({ shape: [2, 4], data: Float32Array.from(values) });
    const [q, k] = [tensor([1, 2, 0, 0, 0, 0, 3, -1]), tensor([1, 1, 1, 1, 2, 0, 0, 4])];
    expect([...Array.from(productsOf(model, 0, q, k, false).values)]).toEqual([3, 2, 2, -4]);
    expect([...Array.from(productsOf(model, 0, q, k, true).values)]).toEqual([1.5, 1, 1, -2]);
  });

  it("pools by the largest by size, and nothing where all is hidden", () => {
    const values = Float64Array.from({ length: 16 }, (_, i) => (i % 4 > Math.floor(i / 4) ? -Infinity : i % 2 ? -i : i));
    const pooled = pooledSquare({ size: 4, values }, 2);
    expect([pooled.size, pooled.box, ...Array.from(pooled.values)]).toEqual([2, 2, -5, -Infinity, -13, -15]);
    expect(most({ size: 4, values })).toBe(15);
    expect(pooledSquare({ size: 4, values }, 4).values).toBe(values);
  });

  it("finds the share of the first token, which one token alone does not have", () => {
    expect(shareOfFirst({ size: 3, values: [1, 0, 0, 0.25, 0.75, 0, 0.75, 0.25, 0] })).toBe(0.5);
    expect(shareOfFirst({ size: 1, values: [1] })).toBe(null);
  });
});

describe("kinds of heads", () => {
  it("have most of the attention of their pattern, the clearest first", () => {
    const scores = { previous: 0.5, duplicate: LEAST - 0.01, induction: 0.9, distance: 1, entropy: 1 };
    expect(kindsOf(scores)).toEqual(["induction", "previous"]);
    expect(kindsOf({ ...scores, previous: 0, induction: 0 })).toEqual([]);
  });

  it("are read at the head's place", () => {
    const tensor = (start: number): Tensor => ({ shape: [2, 3], data: Float32Array.from({ length: 6 }, (_, i) => start + i) });
    const arrays = { previous_token: tensor(0), duplicate_token: tensor(10), induction: tensor(20), distance: tensor(30), entropy: tensor(40) };
    expect(scoresOf(arrays, 1, 2)).toEqual({ previous: 5, duplicate: 15, induction: 25, distance: 35, entropy: 45 });
  });
});

describe("vectors", () => {
  it("have a length, moments, and largest entries by size", () => {
    expect(lengthOf([3, -4])).toBe(5);
    expect(moments([1, 3])).toEqual({ mean: 2, variance: 1, meanSquare: 5 });
    expect(largestBySize([1, -5, 3, 5], 3)).toEqual([1, 3, 2]);
  });

  it("have a variance that is the mean square less the squared mean", () => {
    const random = lcg(3);
    const values = Array.from({ length: 500 }, () => normal(random));
    const { mean, variance, meanSquare } = moments(values);
    expect(variance).toBeCloseTo(meanSquare - mean ** 2, 10);
  });
});

describe("costs", () => {
  it("grow with the model, the runs and the tokens", () => {
    expect([isQuick(model, 20, 14), isQuick(model, 144, 100)]).toEqual([true, false]);
  });
});
