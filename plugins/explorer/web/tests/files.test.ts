import { describe, expect, it } from "vitest";
import { unzipSync } from "fflate";
import { csv, npy, npz, safetensors } from "../src/export/files";
import { cut } from "../src/lib/tensors";
import { parse } from "../src/engine/safetensors";

const tensor = { shape: [2, 3], data: Float32Array.from([1, 2, 3, 4, 5, 6.5]) };
const ids = { shape: [2], data: Int32Array.from([7, -1]) };

describe("files", () => {
  it("are read back as safetensors", () => {
    const file = safetensors({ a: tensor, "blocks.0[1,:]": ids });
    expect(parse(file.buffer).arrays).toEqual({ a: tensor, "blocks.0[1,:]": ids });
  });

  it("have the header that NumPy reads", () => {
    const file = npy(tensor);
    const length = file[8]! + 256 * file[9]!;
    expect([(10 + length) % 64, file.length]).toEqual([0, 10 + length + 24]);
    expect(new TextDecoder().decode(file.subarray(10, 10 + length))).toMatch(/^\{'descr': '<f4', 'fortran_order': False, 'shape': \(2, 3\), \} *\n$/);
    expect(Object.keys(unzipSync(npz({ a: tensor, b: ids })))).toEqual(["a.npy", "b.npy"]);
  });

  it("have a line for each number", () => {
    expect(csv(tensor, ["pos", "d_model"]).split("\n").slice(0, 5)).toEqual(["pos,d_model,value", "0,0,1", "0,1,2", "0,2,3", "1,0,4"]);
  });
});

describe("a part of a tensor", () => {
  it("is what its address names", () => {
    expect(cut(tensor, [1])).toEqual({ shape: [3], data: Float32Array.from([4, 5, 6.5]) });
    expect(cut(tensor, [{ from: null, to: null }, 2])).toEqual({ shape: [2], data: Float32Array.from([3, 6.5]) });
    expect(cut(tensor, [0, { from: 1, to: null }])).toEqual({ shape: [2], data: Float32Array.from([2, 3]) });
    expect(cut(ids, [1])).toEqual({ shape: [], data: Int32Array.from([-1]) });
    expect(() => cut(tensor, [2])).toThrow("Place 2 is outside of an axis of 2 entries.");
  });
});
