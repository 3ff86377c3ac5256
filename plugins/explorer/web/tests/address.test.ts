import { describe, expect, it } from "vitest";
import type { Model } from "../src/engine/types";
import { ALL, axesOf, formatAddress, parseAddress, parseValue, type Index } from "../src/lib/address";
import { lcg } from "./seeded";

const model = {
  cfg: { d_model: 8, d_vocab: 20 },
  hook_points: [
    { name: "blocks.0.attn.hook_q", axes: [{ name: "pos", size: null }, { name: "head", size: 2 }, { name: "d_head", size: 4 }], meaning: "" },
  ],
  weights: [{ name: "embed.W_E", shape: [20, 8] }],
  normalizations: { "blocks.0.ln1": { reads: "blocks.0.hook_resid_pre", kind: "LN", eps: 1e-5 } },
} as unknown as Model;

describe("addresses", () => {
  it("are read as they were written", () => {
    const random = lcg(1);
    const below = (end: number) => Math.floor(random() * end);
    const end = () => (random() < 0.4 ? null : below(2000));
    for (let count = 0; count < 500; count++) {
      const name = ["hook_embed", "blocks.11.attn.hook_q", "blocks.0.attn.W_Q", "logits"][below(4)]!;
      const indices = Array.from({ length: below(5) }, (): Index => (random() < 0.5 ? below(60_000) : { from: end(), to: end() }));
      expect(parseAddress(formatAddress(name, ...indices))).toEqual({ name, indices });
    }
  });

  it("are those of the contract", () => {
    expect(parseAddress("blocks.4.attn.W_Q[1,:,5]")).toEqual({ name: "blocks.4.attn.W_Q", indices: [1, ALL, 5] });
    expect(parseAddress("logits[2:5]")).toEqual({ name: "logits", indices: [{ from: 2, to: 5 }] });
    expect(parseAddress("W_E")).toEqual({ name: "W_E", indices: [] });
  });

  it("are not any text", () => {
    for (const text of ["", "[1]", "a[1", "a]1[", "a[1][2]", "a[-1]", "a[x]", "a[1.5]", "a[1,,2]", "a b[1]", "a[99999999999999999999]"])
      expect([text, parseAddress(text)]).toEqual([text, null]);
  });

  it("of one number fit the model and the text", () => {
    expect(parseValue(model, "blocks.0.attn.hook_q[6,1,3]", 7)).toEqual({ name: "blocks.0.attn.hook_q", indices: [6, 1, 3] });
    for (const text of ["blocks.0.attn.hook_q[7,1,3]", "blocks.0.attn.hook_q[6,2,3]", "blocks.0.attn.hook_q[6,1]", "blocks.0.attn.hook_q[:,1,3]", "hook_x[1]"])
      expect([text, parseValue(model, text, 7)]).toEqual([text, null]);
    expect(parseValue(model, "probabilities[6,19]", 7)).not.toBeNull();
    expect(parseValue(model, "logits[6,20]", 7)).toBeNull();
    expect(parseValue(model, "blocks.0.ln1[6,7]", 7)).not.toBeNull();
    expect(axesOf(model, "embed.W_E")?.map((axis) => axis.size)).toEqual([20, 8]);
  });
});
