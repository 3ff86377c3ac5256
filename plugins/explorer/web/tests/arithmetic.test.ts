import { describe, expect, it } from "vitest";
import type { Edit } from "../src/engine/types";
import { text } from "../src/lang/index.svelte";
import { axesOf, formatAddress } from "../src/lib/address";
import { explain, type Arithmetic, type Kind } from "../src/lib/arithmetic";
import { frequency } from "../src/lib/arithmetic/rotary";
import { touches } from "../src/lib/arithmetic/touches";
import { added, OPERATIONS, termsOf } from "../src/lib/arithmetic/types";
import { float32Text, short, words } from "../src/lib/arithmetic/words";
import { made, type Made } from "./made";

const models: [string, Made][] = [["learned positions", made("learned")], ["rotary positions", made("rotary")]];

/** All addresses of single numbers of a value. */
function entries(run: Made, name: string): string[] {
  const sizes = axesOf(run.model, name)!.map((axis) => axis.size ?? run.tokens.length);
  return sizes.reduce<number[][]>((found, size) => found.flatMap((one) => Array.from({ length: size }, (_, i) => [...one, i])), [[]])
    .map((indices) => formatAddress(name, ...indices));
}

const explained = (run: Made, address: string, edits: Edit[] = []): Promise<Arithmetic> =>
  explain(run.model, address, { tokens: run.tokens, edits }, run.read);

describe.each(models)("in a model with %s", (_, run) => {
  const names = [...run.model.hook_points.map((one) => one.name), "logits"];

  it.each(names)("%s is explained at every place", async (name) => {
    for (const address of entries(run, name)) {
      const found = await explained(run, address);
      expect([address, found.agrees, found.total, found.stored]).toEqual([address, true, found.total, found.stored]);
      expect(found.kind).not.toBe("unknown");
      // The bound is about rounding, so it must be far below the numbers that are added.
      const largest = Math.max(1e-3, Math.abs(found.total === -Infinity ? 0 : found.total), ...found.lines.flatMap((line) => (line.kind === "sum" ? termsOf(line).map((one) => one.size) : [line.size])));
      expect(found.bound).toBeLessThan(3e-5 * largest);
    }
  });

  it("every operand can be explained in turn, down to weights and to what is given", async () => {
    const seen = new Map<string, Kind>();
    const follow = async (address: string): Promise<void> => {
      if (seen.has(address)) return;
      seen.set(address, "unknown");
      const found = await explained(run, address);
      seen.set(address, found.kind);
      const steps = found.lines.flatMap((line) => (line.kind === "sum" ? termsOf(line).slice(0, 2) : [line]));
      if (found.kind !== "given") expect([address, steps.length > 0]).toEqual([address, true]);
      for (const one of steps)
        for (const operand of one.operands) {
          if (operand.address === undefined) continue;
          await follow(operand.address);
          const value = (await explained(run, operand.address)).stored ?? operand.value;
          expect([operand.address, Math.abs(value - operand.value)]).toEqual([operand.address, 0]);
        }
    };
    await follow("probabilities[4,2]");
    expect(new Set(seen.values())).not.toContain("unknown");
    for (const kind of ["given", "lookup", "copy", "sum", "dot", "norm", "scores", "softmax", "activation", "product"]) expect([...seen.values()]).toContain(kind);
    expect([...seen.values()].includes("rotary")).toBe(run.model.cfg.gated_mlp);
  });

  it("probabilities are the softmax over the full vocabulary, and add up to 1", async () => {
    const logits = run.values.logits as number[][];
    const found = await Promise.all(entries(run, "probabilities").slice(9, 18).map((one) => explained(run, one)));
    const powers = logits[1]!.map(Math.exp);
    for (const [id, one] of found.entries()) expect(one.total).toBeCloseTo(powers[id]! / added(powers), 13);
    expect(added(found.map((one) => one.total))).toBeCloseTo(1, 13);
    expect(found[0]).toMatchObject({ kind: "softmax", stored: null, agrees: null });
  });

  it("one number takes one request", async () => {
    for (const name of [...names, "probabilities", "blocks.0.ln1"]) {
      let requests = 0;
      const read: Made["read"] = (addresses) => (requests++, run.read(addresses));
      await explain(run.model, entries(run, name)[1]!, { tokens: run.tokens, edits: [] }, read);
      expect([name, requests]).toEqual([name, 1]);
    }
  });

  it("a wrong number is noticed", async () => {
    const wrong: Made = {
      ...run,
      read: async (addresses) => {
        const found = await run.read(addresses);
        for (const one of Object.values(found)) if (one.shape.length === 0) one.data[0]! *= 1.001;
        return found;
      },
    };
    for (const name of ["blocks.1.attn.hook_q[3,1,2]", "blocks.1.ln1.hook_normalized[3,2]", "blocks.1.attn.hook_pattern[1,3,1]", "blocks.1.attn.hook_z[3,1,1]", "blocks.0.hook_attn_out[2,1]"])
      expect([name, (await explained(wrong, name)).agrees]).toEqual([name, false]);
  });

  it("a masked score is minus infinity, and its share is 0", async () => {
    expect(await explained(run, "blocks.0.attn.hook_attn_scores[1,2,3]")).toMatchObject({ total: -Infinity, stored: -Infinity, agrees: true });
    expect(await explained(run, "blocks.0.attn.hook_pattern[1,2,3]")).toMatchObject({ total: 0, stored: 0, agrees: true });
  });

  it("the stream is the sum of its parts", async () => {
    const found = await explained(run, "blocks.1.hook_resid_post[2,3]");
    const [picture] = found.pictures;
    expect(picture).toMatchObject({ kind: "waterfall", change: 0 });
    if (picture?.kind !== "waterfall") throw new Error();
    expect(picture.parts.map((one) => one.address)).toEqual(run.model.residual_stream.parts.map((one) => formatAddress(one, 2, 3)));
    expect(added(picture.parts.map((one) => one.value))).toBeCloseTo(found.total, 5);
    expect(await explained(run, "blocks.1.hook_resid_pre[2,3]")).toMatchObject({ kind: "copy", formula: "1.resid_pre = 0.resid_post" });
  });

  it("an address that is none is refused in a sentence", async () => {
    await expect(explained(run, "blocks.0.hook_resid_mid[9,0]")).rejects.toThrow("'blocks.0.hook_resid_mid[9,0]' is not the address of a number of this model and text.");
  });

  it("attention's output is explained where there is no hook point of what each head writes", async () => {
    const less = { ...run.model, hook_points: run.model.hook_points.filter((one) => !one.name.endsWith("hook_result")) };
    const found = await explain(less, "blocks.1.hook_attn_out[3,2]", { tokens: run.tokens, edits: [] }, run.read);
    expect(found).toMatchObject({ kind: "dot", agrees: true });
    const [line] = found.lines;
    if (line?.kind !== "sum") throw new Error();
    const { operands } = line.term(6);
    expect(operands.map((one) => one.address)).toEqual(["blocks.1.attn.hook_z[3,1,2]", "blocks.1.attn.W_O[1,2,2]"]);
    for (const one of operands) expect((await explained(run, one.address!)).stored).toBe(one.value);
  });

  it("a hook point without a rule is said to be one", async () => {
    const more = structuredClone(run.model);
    more.hook_points.push({ name: "blocks.0.hook_new", axes: [{ name: "pos", size: null }], meaning: "" });
    const read: Made["read"] = async ([address]) => ({ [address!]: { shape: [], data: Float32Array.of(2) } });
    expect(await explain(more, "blocks.0.hook_new[1]", { tokens: run.tokens, edits: [] }, read)).toMatchObject({ kind: "unknown", stored: 2 });
  });

  it("has words for all of its values, in both languages", () => {
    for (const code of ["en", "zh"])
      for (const name of [...names, "probabilities", "blocks.0.ln1", "embed.W_E", "blocks.0.attn.W_Q"]) {
        const address = entries(run, name)[1]!;
        const found = words(run.model, address, run.tokens, (id) => `#${id}`, (key, values) => text(code, key, values));
        expect(found).not.toBe(address);
        expect(found).not.toMatch(/[{}]/);
      }
  });
});

describe("edits", () => {
  const [, run] = models[0]!;
  const [, rotary] = models[1]!;
  const is = (edit: Partial<Edit>, name: string, ...indices: number[]) => touches({ hook: name, operation: "zero", ...edit }, run.model, name, indices, 5);

  it("change the numbers that they name", () => {
    expect(is({ heads: 1 }, "blocks.0.attn.hook_z", 3, 1, 2)).toBe(true);
    expect(is({ heads: 1 }, "blocks.0.attn.hook_z", 3, 2, 2)).toBe(false);
    expect(is({ heads: [0, 2], positions: -1 }, "blocks.0.attn.hook_z", 4, 2, 2)).toBe(true);
    expect(is({ heads: [0, 2], positions: -1 }, "blocks.0.attn.hook_z", 3, 2, 2)).toBe(false);
    expect(is({ positions: "1:3" }, "blocks.0.hook_resid_pre", 2, 2)).toBe(true);
    expect(is({ positions: "1:3" }, "blocks.0.hook_resid_pre", 3, 2)).toBe(false);
    expect(is({ positions: "-2:" }, "blocks.0.hook_resid_pre", 3, 2)).toBe(true);
    expect(is({ positions: "::2" }, "blocks.0.hook_resid_pre", 3, 2)).toBe(false);
    expect(is({ neurons: 3 }, "blocks.0.mlp.hook_post", 0, 3)).toBe(true);
    expect(is({ keys: [0] }, "blocks.0.attn.hook_pattern", 1, 2, 0)).toBe(true);
    expect(is({ keys: [0] }, "blocks.0.attn.hook_pattern", 1, 2, 1)).toBe(false);
    expect(is({ hook: "blocks.*.attn.hook_?" }, "blocks.1.attn.hook_z", 0, 0, 0)).toBe(true);
    expect(is({ hook: "blocks.0.attn.hook_z" }, "blocks.1.attn.hook_z", 0, 0, 0)).toBe(false);
    expect(touches({ hook: "*hook_k", operation: "zero", heads: -1 }, rotary.model, "blocks.0.attn.hook_k", [0, 1, 0], 5)).toBe(true);
  });

  it("are said of the number that they changed, and of no other", async () => {
    const edit: Edit = { hook: "blocks.0.hook_mlp_out", operation: "scale", factor: 2, positions: 3 };
    const read: Made["read"] = async (addresses) => {
      const found = await run.read(addresses);
      for (const [address, one] of Object.entries(found)) if (address.startsWith("blocks.0.hook_mlp_out[3")) one.data = one.data.map((value) => 2 * value);
      return found;
    };
    const at = (address: string) => explain(run.model, address, { tokens: run.tokens, edits: [edit] }, read);
    expect(await at("blocks.0.hook_mlp_out[3,1]")).toMatchObject({ agrees: false, edits: [edit] });
    expect(await at("blocks.0.hook_mlp_out[2,1]")).toMatchObject({ agrees: true, edits: [] });
  });
});

describe("the parts of the rules", () => {
  it("have the activation functions of the papers", () => {
    // From tables of the normal distribution, and of the logistic function.
    expect(OPERATIONS.gelu(1)).toBeCloseTo(0.8413447460685429, 14);
    expect(OPERATIONS.gelu(-3)).toBeCloseTo(-3 * 0.0013498980316300933, 14);
    expect(OPERATIONS.gelu(8)).toBeCloseTo(8, 12);
    expect(OPERATIONS.gelu_new(1)).toBeCloseTo(0.8411919906, 9);
    expect(OPERATIONS.silu(2)).toBeCloseTo(2 * 0.8807970779778823, 14);
    expect([OPERATIONS.relu(-2), OPERATIONS.relu(2)]).toEqual([0, 2]);
  });

  it("scale the frequencies of rotations as the models do", () => {
    const plain = { rotary_dim: 8, rotary_base: 10_000, rotary_scaling_factor: 1 };
    expect([0, 1, 2, 3].map((pair) => frequency(plain, pair))).toEqual([1, 0.1, 0.01, 0.001].map(Math.fround));
    expect(frequency({ ...plain, rotary_scaling_factor: 4 }, 1)).toBeCloseTo(0.025, 8);
    const parts = { ...plain, use_NTK_by_parts_rope: true, NTK_by_parts_factor: 8, NTK_by_parts_low_freq_factor: 1, NTK_by_parts_high_freq_factor: 4, NTK_original_ctx_len: 1024 };
    expect(frequency(parts, 0)).toBe(1); // 163 turns: unchanged
    expect(frequency(parts, 3)).toBeCloseTo(0.001 / 8, 9); // less than one turn: slowed
    const kept = ((1024 * 0.01) / (2 * Math.PI) - 1) / 3; // between the two
    expect(frequency(parts, 2)).toBeCloseTo((1 - kept) * (0.01 / 8) + kept * 0.01, 9);
  });

  it("add up without losing what is small", () => {
    expect(added([1e16, 1, -1e16])).toBe(1);
    expect(added([])).toBe(0);
  });

  it("write numbers and addresses briefly", () => {
    expect([0.1, -1.5, 3e-9, 16777216, -Infinity].map((one) => float32Text(Math.fround(one)))).toEqual(["0.1", "−1.5", "3e−9", "16777216", "−∞"]);
    expect(short("blocks.4.attn.hook_q[13,1,5]", "4")).toBe("q[13,1,5]");
    expect(short("unembed.W_U[3,5]", "")).toBe("W_U[3,5]");
    expect(short("blocks.4.hook_resid_post[13,5]", "5")).toBe("4.resid_post[13,5]");
  });
});
