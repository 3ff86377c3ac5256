/**
 * Two small models with random weights, computed by loops from the formulas in the papers: one with learned positions,
 * layer normalisation and an activation function, one with rotary positions, root mean square normalisation, shared
 * keys and a gate. Every value is rounded to float32 where a model stores it.
 */
import type { Model, Tensor, Token } from "../src/engine/types";
import { parseAddress } from "../src/lib/address";
import { lcg, normal } from "./seeded";

const [L, P, D, H, d, M, V] = [2, 5, 6, 4, 4, 7, 9] as const;
const f = Math.fround;

type Nested = number | Nested[];

/** A run of a model: all its values and weights by name. */
export interface Made {
  model: Model;
  tokens: Token[];
  values: Record<string, Nested>;
  read(addresses: string[]): Promise<Record<string, Tensor>>;
}

const times = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
const total = (values: number[]) => values.reduce((sum, one) => sum + one, 0);

export function made(kind: "learned" | "rotary"): Made {
  const isRotary = kind === "rotary";
  const K = isRotary ? 2 : H;
  const random = lcg(isRotary ? 22 : 11);
  const weights: Record<string, Nested> = {};
  const points: { name: string; axes: string[] }[] = [];
  const values: Record<string, Nested> = {};
  const weight = <T extends Nested>(name: string, ...shape: number[]): T => {
    const fill = ([size, ...rest]: number[]): Nested => (size === undefined ? f(normal(random)) : times(size, () => fill(rest)));
    return (weights[name] = fill(shape)) as T;
  };
  const keep = <T extends Nested>(name: string, axes: string, value: T): T => {
    const round = (one: Nested): Nested => (typeof one === "number" ? f(one) : one.map(round));
    points.push({ name, axes: axes.split(" ") });
    return (values[name] = round(value)) as T;
  };
  const cfg = {
    n_layers: L, n_heads: H, n_key_value_heads: K, d_model: D, d_head: d, d_mlp: M, d_vocab: V, n_ctx: 16,
    act_fn: isRotary ? "silu" : "gelu", gated_mlp: isRotary, use_attn_scale: true, scale_attn_by_inverse_layer_idx: !isRotary,
    rotary_dim: isRotary ? d : null, rotary_base: isRotary ? 100 : null, rotary_scaling_factor: 1, use_NTK_by_parts_rope: false,
  };
  const ids = [3, 1, 4, 1, 8];
  const normalizations: Model["normalizations"] = {};

  const normalize = (name: string, reads: string, x: number[][]): number[][] => {
    normalizations[name] = { reads, kind: isRotary ? "RMS" : "LN", eps: 1e-5 };
    const w = weight<number[]>(`${name}.w`, D);
    const b = isRotary ? null : weight<number[]>(`${name}.b`, D);
    const centred = x.map((row) => row.map((one) => one - (isRotary ? 0 : total(row) / D)));
    const scale = keep(`${name}.hook_scale`, "pos one", centred.map((row) => [Math.sqrt(total(row.map((one) => one * one)) / D + 1e-5)]));
    const found = keep(`${name}.hook_normalized`, "pos d_model", centred.map((row, p) => row.map((one) => one / scale[p]![0]!)));
    return found.map((row) => row.map((one, i) => one * w[i]! + (b ? b[i]! : 0)));
  };
  const project = (x: number[][], w: number[][], b: number[]): number[][] =>
    x.map((row) => b.map((shift, j) => total(row.map((one, i) => one * w[i]![j]!)) + shift));
  const plus = (one: number[][], other: number[][]) => one.map((row, p) => row.map((value, i) => value + other[p]![i]!));

  const embedding = weight<number[][]>("embed.W_E", V, D);
  let x = keep("hook_embed", "pos d_model", ids.map((id) => embedding[id]!));
  const parts = ["hook_embed"];
  if (!isRotary) {
    const positions = weight<number[][]>("pos_embed.W_pos", 16, D);
    x = plus(x, keep("hook_pos_embed", "pos d_model", ids.map((_, p) => positions[p]!)));
    parts.push("hook_pos_embed");
  }
  const states: string[] = [];
  for (let layer = 0; layer < L; layer++) {
    const block = `blocks.${layer}`;
    const attn = `${block}.attn`;
    x = keep(`${block}.hook_resid_pre`, "pos d_model", x);
    const input = normalize(`${block}.ln1`, `${block}.hook_resid_pre`, x);
    const heads = (letter: string, count: number): number[][][] => {
      const w = weight<number[][][]>(`${attn}.W_${letter}`, count, D, d);
      const b = weight<number[][]>(`${attn}.b_${letter}`, count, d);
      const found = input.map((row) => times(count, (h) => project([row], w[h]!, b[h]!)[0]!));
      return keep(`${attn}.hook_${letter.toLowerCase()}`, `pos ${count === H ? "head" : "kv_head"} d_head`, found);
    };
    let [q, k, v] = [heads("Q", H), heads("K", K), heads("V", K)];
    if (isRotary) {
      // As products of complex numbers: Su et al. 2021, equation 12.
      const turn = (rows: number[][][]) =>
        rows.map((row, p) =>
          row.map((one) =>
            one.map((value, i) => {
              const angle = p * 100 ** (-(2 * (i % 2)) / d);
              return i < 2 ? value * Math.cos(angle) - one[i + 2]! * Math.sin(angle) : one[i - 2]! * Math.sin(angle) + value * Math.cos(angle);
            }),
          ),
        );
      q = keep(`${attn}.hook_rot_q`, "pos head d_head", turn(q));
      k = keep(`${attn}.hook_rot_k`, "pos kv_head d_head", turn(k));
    }
    const divisor = Math.sqrt(d) * (isRotary ? 1 : layer + 1);
    const group = H / K;
    const scores = keep(`${attn}.hook_attn_scores`, "head query_pos key_pos", times(H, (h) =>
      times(P, (a) => times(P, (b) => (b > a ? -Infinity : total(q[a]![h]!.map((one, i) => one * k[b]![Math.floor(h / group)]![i]!)) / divisor))),
    ));
    const pattern = keep(`${attn}.hook_pattern`, "head query_pos key_pos", scores.map((rows) =>
      rows.map((row) => row.map((one) => Math.exp(one) / total(row.map(Math.exp)))),
    ));
    const z = keep(`${attn}.hook_z`, "pos head d_head", times(P, (p) =>
      times(H, (h) => times(d, (i) => total(times(P, (b) => pattern[h]![p]![b]! * v[b]![Math.floor(h / group)]![i]!)))),
    ));
    const out = weight<number[][][]>(`${attn}.W_O`, H, d, D);
    const bias = weight<number[]>(`${attn}.b_O`, D);
    keep(`${attn}.hook_result`, "pos head d_model", z.map((row) => row.map((one, h) => project([one], out[h]!, Array(D).fill(0))[0]!)));
    const flat = z.map((row) => row.flat());
    x = plus(x, keep(`${block}.hook_attn_out`, "pos d_model", project(flat, out.flat(), bias)));
    x = keep(`${block}.hook_resid_mid`, "pos d_model", x);
    const read = normalize(`${block}.ln2`, `${block}.hook_resid_mid`, x);
    const [w, b] = [weight<number[][]>(`${block}.mlp.W_in`, D, M), weight<number[]>(`${block}.mlp.b_in`, M)];
    let post: number[][];
    if (isRotary) {
      const gates = project(read, weight<number[][]>(`${block}.mlp.W_gate`, D, M), weight<number[]>(`${block}.mlp.b_gate`, M));
      const pre = keep(`${block}.mlp.hook_pre`, "pos d_mlp", gates);
      const linear = keep(`${block}.mlp.hook_pre_linear`, "pos d_mlp", project(read, w, b));
      post = pre.map((row, p) => row.map((one, m) => (one / (1 + Math.exp(-one))) * linear[p]![m]!));
    } else {
      // The normal distribution function by Simpson's rule.
      const bell = (x: number) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
      const factor = (i: number) => (i % 2000 === 0 ? 1 : i % 2 === 0 ? 2 : 4);
      const cumulative = (to: number) => 0.5 + (total(times(2001, (i) => factor(i) * bell((i * to) / 2000))) * to) / 6000;
      post = keep(`${block}.mlp.hook_pre`, "pos d_mlp", project(read, w, b)).map((row) => row.map((one) => one * cumulative(one)));
    }
    post = keep(`${block}.mlp.hook_post`, "pos d_mlp", post);
    const down = weight<number[][]>(`${block}.mlp.W_out`, M, D);
    x = plus(x, keep(`${block}.hook_mlp_out`, "pos d_model", project(post, down, weight<number[]>(`${block}.mlp.b_out`, D))));
    x = keep(`${block}.hook_resid_post`, "pos d_model", x);
    parts.push(`${block}.hook_attn_out`, `${block}.hook_mlp_out`);
    states.push(...["pre", "mid", "post"].map((one) => `${block}.hook_resid_${one}`));
  }
  const last = normalize("ln_final", `blocks.${L - 1}.hook_resid_post`, x);
  const zeros: number[] = Array(V).fill(0);
  weights["unembed.b_U"] = zeros;
  values.logits = project(last, weight<number[][]>("unembed.W_U", D, V), zeros).map((row) => row.map(f));

  const sizes: Record<string, number> = { head: H, kv_head: K, d_model: D, d_head: d, d_mlp: M, one: 1 };
  const shapeOf = (one: Nested): number[] => (typeof one === "number" ? [] : [one.length, ...shapeOf(one[0]!)]);
  const model = {
    cfg,
    hook_points: points.map(({ name, axes }) => ({ name, meaning: "", axes: axes.map((axis) => ({ name: axis, size: sizes[axis] ?? null })) })),
    weights: Object.entries(weights).map(([name, one]) => ({ name, shape: shapeOf(one) })),
    normalizations,
    residual_stream: { parts, states },
  } as unknown as Model;
  const everything: Record<string, Nested> = { ...weights, ...values };
  const tokens = ids.map((id) => ({ id, label: ` t${id}`, bytes: "" }));
  return { model, tokens, values, read: async (addresses) => Object.fromEntries(addresses.map((one) => [one, take(everything, one)])) };
}

/** The part of a value that an address names. */
function take(values: Record<string, Nested>, address: string): Tensor {
  const { name, indices } = parseAddress(address)!;
  const pick = (one: Nested, [index, ...rest]: typeof indices): Nested => {
    if (typeof one === "number") return one;
    if (typeof index === "number") return pick(one[index]!, rest);
    return one.slice(index?.from ?? 0, index?.to ?? undefined).map((each) => pick(each, rest));
  };
  if (!(name in values)) throw new Error(`There is no ${name}.`);
  const found = pick(values[name]!, indices);
  const shape = (one: Nested): number[] => (typeof one === "number" ? [] : [one.length, ...shape(one[0]!)]);
  return { shape: shape(found), data: Float32Array.from([found].flat(9) as number[]) };
}
