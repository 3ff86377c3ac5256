import { describe, expect, it } from "vitest";
import { parents, readSelection, writeSelection, type Selection } from "../src/lib/selection";
import { EMPTY, read, write, type State } from "../src/lib/state";

const SELECTIONS: Selection[] = [
  { kind: "token", position: 3 },
  { kind: "cell", state: 5, position: 0 },
  { kind: "block", layer: 2 },
  { kind: "block", layer: 2, position: 7 },
  { kind: "norm", name: "blocks.0.ln1" },
  { kind: "norm", name: "ln_final", position: 2 },
  { kind: "head", layer: 4, head: 1 },
  { kind: "head", layer: 4, head: 1, query: 13, key: 2 },
  { kind: "head", layer: 4, head: 1, query: 13 },
  { kind: "mlp", layer: 0, position: 0 },
  { kind: "neuron", layer: 1, neuron: 1023 },
  { kind: "value", address: "blocks.4.attn.hook_q[13,1,5]" },
  { kind: "tool", name: "heads" },
];

describe("selections", () => {
  it.each(SELECTIONS)("are read as they were written: $kind", (chosen) => {
    expect(readSelection(writeSelection(chosen))).toEqual(chosen);
    for (const above of parents(chosen)) expect(readSelection(writeSelection(above))).toEqual(above);
  });

  it("are null for other text", () => {
    for (const text of ["", "head", "head:", "head:1", "head:a,b", "head:1,2,3,4,5", "cell:1", "moon:1", "norm:x,y", "block:-1"])
      expect([text, readSelection(text)]).toEqual([text, null]);
  });
});

describe("the address", () => {
  it.each(SELECTIONS)("holds the whole state", (selection) => {
    const state: State = {
      text: "a & b # ␣\n=",
      ids: [1, 2, 50256],
      model: "my model",
      position: 0,
      token: 7,
      against: 9,
      selection,
      edits: [{ hook: "blocks.3.attn.hook_z", operation: "zero", heads: 0 }],
      other: "another text",
      otherModel: "tiny",
      options: { temperature: 0.7, sweep: "ablate_heads", numbers: true },
      tour: 3,
      language: "zh",
    };
    expect(read(write(state))).toEqual(state);
  });

  it("leaves out what is as the page chooses it", () => {
    expect(write({ text: "t", ...EMPTY })).toBe("#text=t");
    expect(read("#at=head:x.y&edits=[{&text=t&ids=1..2&token=-1")).toEqual({ text: "t" });
  });
});
