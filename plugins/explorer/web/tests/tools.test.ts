import { describe, expect, it } from "vitest";
import type { Answer, Model, SweepFacts, SweepRequest } from "../src/engine/types";
import { corruptions } from "../src/lib/corrupted";
import { metric } from "../src/lib/numbers";
import { pooled } from "../src/lib/pool";
import { ranking } from "../src/lib/ranking";
import { optionsOf, valueOf } from "../src/lib/schema";
import { parts, sweepInParts, type Sweep } from "../src/lib/sweep";
import { lcg } from "./seeded";

describe("pooling", () => {
  it("keeps the largest value of each cell by size, with its sign", () => {
    const draw = lcg(1);
    for (let attempt = 0; attempt < 50; attempt++) {
      const [rows, columns] = [1 + Math.floor(20 * draw()), 1 + Math.floor(40 * draw())];
      const values = Float32Array.from({ length: rows * columns }, () => draw() - 0.5);
      const { rows: high, columns: wide, rowSize, columnSize, places } = pooled(values, rows, columns, 7, 9);
      expect(high).toBeLessThanOrEqual(7);
      expect(wide).toBeLessThanOrEqual(9);
      expect(places.length).toBe(high * wide);
      for (const [cell, place] of places.entries()) {
        const [row, column] = [Math.floor(place / columns), place % columns];
        expect([Math.floor(row / rowSize), Math.floor(column / columnSize)]).toEqual([Math.floor(cell / wide), cell % wide]);
      }
      for (let place = 0; place < values.length; place++) {
        const cell = Math.floor(Math.floor(place / columns) / rowSize) * wide + Math.floor((place % columns) / columnSize);
        expect(Math.abs(values[places[cell]!]!)).toBeGreaterThanOrEqual(Math.abs(values[place]!));
      }
    }
  });

  it("leaves a matrix that fits as it is, and prefers values that are there", () => {
    expect([...pooled([1, -2, 3, 4], 2, 2, 5, 5).places]).toEqual([0, 1, 2, 3]);
    expect([...pooled([NaN, 0, 3, NaN], 2, 2, 2, 1).places]).toEqual([1, 2]);
  });
});

describe("ranking", () => {
  it("is from either end, with missing values last", () => {
    expect(ranking([1, -3, NaN, 2, 1], true)).toEqual([3, 0, 4, 1, 2]);
    expect(ranking([1, -3, NaN, 2, 1], false)).toEqual([1, 0, 4, 3, 2]);
  });
});

describe("a sweep in parts", () => {
  const model = { cfg: { n_layers: 5, n_heads: 2 } } as Model;
  const asked: (number[] | undefined)[] = [];
  const engine = {
    async sweep(request: SweepRequest): Promise<Answer<SweepFacts>> {
      asked.push(request.layers);
      const layers = request.layers ?? [0, 1, 2, 3, 4];
      const data = Float32Array.from(layers.flatMap((layer) => [layer, layer + 0.5]));
      return { facts: { token: 1, against: 2, baseline: layers[0]! }, arrays: { effects: { shape: [layers.length, 2], data } } };
    },
  };
  const run = async (tokens: number, signal: AbortSignal, seen: (sweep: Sweep) => void) =>
    sweepInParts(engine, { kind: "ablate_heads", text: "a" }, model, tokens, seen, signal);

  it("has every block once, in order", () => {
    for (const [blocks, runs, tokens] of [[5, 4, 14], [12, 12, 20], [48, 25, 300], [1, 1, 1]] as const)
      expect(parts(blocks, runs, tokens).flat()).toEqual(Array.from({ length: blocks }, (_, block) => block));
    expect(parts(12, 12, 20).map((part) => part.length)).toEqual([4, 4, 4]);
    expect(parts(48, 25, 300)).toHaveLength(48);
  });

  it("fills the effects as they come, and keeps the baseline of the first part", async () => {
    const seen: Sweep[] = [];
    await run(256, new AbortController().signal, (sweep) => seen.push(sweep));
    expect(asked.splice(0)).toEqual([[0, 1], [2, 3], [4]]);
    expect(seen.map((one) => one.measured)).toEqual([2, 4, 5]);
    expect([...seen[0]!.effects]).toEqual([0, 0.5, 1, 1.5, NaN, NaN, NaN, NaN, NaN, NaN]);
    expect([...seen[2]!.effects]).toEqual([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5]);
    expect(seen[2]!.facts?.baseline).toBe(0);
  });

  it("asks for all at once where that is little, and stops when it is told to", async () => {
    await run(10, new AbortController().signal, () => {});
    expect(asked.splice(0)).toEqual([undefined]);
    const stop = new AbortController();
    const seen: Sweep[] = [];
    await run(256, stop.signal, (sweep) => (seen.push(sweep), stop.abort()));
    expect(seen).toHaveLength(1);
    expect(asked.splice(0)).toHaveLength(1);
  });
});

describe("the corrupted text", () => {
  it("has another name where a name comes again", () => {
    expect(corruptions("When Mary and John went to the shop, John gave a drink to")[0]).toEqual({ text: "When Mary and John went to the shop, Mary gave a drink to", was: "John", now: "Mary" });
    expect(corruptions("“Hi.” Then Tom saw Amy and Tom said to")[0]!.text).toBe("“Hi.” Then Tom saw Amy and Amy said to");
  });

  it("has another word where there are no two names, and never the text itself", () => {
    for (const text of ["the cat sat on the mat", "The capital of France is", "a b", "one", "", "。", "猫坐在垫子上"]) {
      const found = corruptions(text).map((one) => one.text);
      expect(found).not.toContain(text);
      expect(found.length).toBeLessThanOrEqual(12);
    }
    expect(corruptions("the cat sat on the mat").length).toBeGreaterThan(0);
  });
});

describe("options of a plugin", () => {
  const schema = {
    properties: {
      layer: { description: "the block", anyOf: [{ type: "integer" }, { type: "null" }], default: null },
      neurons: { type: "integer", minimum: 1, maximum: 200, default: 20 },
      values: { enum: ["pattern", "scores"], default: "pattern" },
      watch: { type: "array", items: { type: "string" }, default: [] },
      options: { type: "object", default: {} },
      corrupted: { type: "string" },
      is_long: { type: "boolean", default: false },
    },
    required: ["corrupted"],
  };

  it("are read from its schema", () => {
    const found = optionsOf(schema);
    expect(found.map((one) => [one.name, one.kind, one.standard])).toEqual([
      ["layer", "whole", ""], ["neurons", "whole", "20"], ["values", "choice", "pattern"], ["watch", "texts", ""],
      ["options", "json", "{}"], ["corrupted", "text", ""], ["is_long", "truth", "false"],
    ]);
    expect(found.filter((one) => one.isRequired).map((one) => one.name)).toEqual(["corrupted"]);
    expect([found[1]!.low, found[1]!.high, found[2]!.choices]).toEqual([1, 200, ["pattern", "scores"]]);
    expect(optionsOf({})).toEqual([]);
  });

  it("have values of their kind; what is none is left to the plugin, which says so", () => {
    expect(valueOf("", "text")).toBeUndefined();
    expect([valueOf("3", "whole"), valueOf("0.5", "number"), valueOf("three", "whole")]).toEqual([3, 0.5, "three"]);
    expect([valueOf("true", "truth"), valueOf("false", "truth"), valueOf("maybe", "truth")]).toEqual([true, false, "maybe"]);
    expect([valueOf(" Mary\n\n John", "texts"), valueOf('{"a": 1}', "json"), valueOf("{", "json")]).toEqual([[" Mary", " John"], { a: 1 }, "{"]);
    expect(valueOf("3", "text")).toBe("3");
  });
});

describe("a number with a prefix", () => {
  it("has three digits", () => {
    const pairs: [number, string][] = [[0, "0"], [512, "512"], [0.123, "0.12"], [999, "999"], [999.6, "1.00 k"], [1048576, "1.05 M"], [65536, "65.5 k"], [123456789, "123 M"], [5.0e9, "5.00 G"]];
    for (const [value, text] of pairs) expect(metric(value)).toBe(text);
  });
});
