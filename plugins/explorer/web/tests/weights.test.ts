import { describe, expect, it } from "vitest";
import { safetensors } from "../src/export/files";
import { Weights } from "../src/engine/browser/weights";

const file = safetensors({ "a.weight": { shape: [2, 6], data: Float32Array.from({ length: 12 }, (_, one) => one) } }).buffer;
const all = { from: null, to: null };

describe("weights", () => {
  const weights = new Weights(file, {
    whole: { tensor: "a.weight", shape: [2, 6] },
    heads: { tensor: "a.weight", shape: [2, 2, 2], slice: [1, 2, 6], reshape: [2, 2, 2], transpose: [1, 0, 2] },
    none: { tensor: null, shape: [3] },
  });

  it("are parts of stored tensors, split and transposed", () => {
    expect(weights.get("heads")).toEqual({ shape: [2, 2, 2], data: Float32Array.from([2, 3, 8, 9, 4, 5, 10, 11]) });
    expect(weights.part("heads", [1, all, 0]).data).toEqual(Float32Array.from([4, 10]));
    expect(weights.part("whole", [{ from: 1, to: 2 }, { from: null, to: 2 }])).toEqual({ shape: [1, 2], data: Float32Array.from([6, 7]) });
  });

  it("that are not stored are 0", () => expect(weights.get("none").data).toEqual(new Float32Array(3)));

  it("have an end", () => expect(() => weights.part("whole", [2])).toThrow("Place 2 is outside of an axis of 2 entries."));
});
