import { formatAddress } from "../address";
import { ROUNDING, SMALLEST, step, sum, type Quantity, type Rule } from "./types";
import type { Values } from "./values";

const { fround } = Math;

/**
 * By which angle a pair of coordinates is rotated per position, in radians; in float32, as the models were trained.
 *
 * Su et al. 2021, "RoFormer": base ** (−2 i / d). Chen et al. 2023, "Extending Context Window of Large Language Models
 * via Positional Interpolation", divide all by a factor; Llama 3.1 the slow ones only.
 */
export function frequency(cfg: Record<string, unknown>, pair: number): number {
  const exponent = fround((2 * pair) / (cfg.rotary_dim as number));
  let found = fround(fround(1 / fround((cfg.rotary_base as number) ** exponent)) / ((cfg.rotary_scaling_factor as number | undefined) ?? 1));
  if (cfg.use_NTK_by_parts_rope === true) {
    const [low, high] = [cfg.NTK_by_parts_low_freq_factor as number, cfg.NTK_by_parts_high_freq_factor as number];
    const turns = fround(fround((cfg.NTK_original_ctx_len as number) * found) / (2 * Math.PI));
    const kept = Math.min(Math.max(fround(fround(turns - low) / (high - low)), 0), 1);
    const slow = fround(fround(fround(1 - kept) * found) / (cfg.NTK_by_parts_factor as number));
    found = fround(slow + fround(kept * found));
  }
  return found;
}

/**
 * An entry of a query or key, rotated by its position. Entries i and i + rotary_dim / 2 are a pair; those from
 * rotary_dim on stay as they are.
 *
 * @param source the hook point before the rotation
 * @param indices position, head and entry
 */
export async function rotated(values: Values, source: string, [position, head, entry]: [number, number, number]): Promise<Rule> {
  const cfg = values.model.cfg;
  const turned = (cfg.rotary_dim as number | null) ?? cfg.d_head;
  const half = turned / 2;
  const place = (i: number) => formatAddress(source, position, head, i);
  const word = source.split("hook_").pop()!;
  if (entry >= turned) {
    await values.load(place(entry));
    const one = values.quantity(place(entry));
    const pictures: Rule["pictures"] = [{ kind: "copy", from: place(entry), to: source, value: one.value }];
    return { kind: "copy", formula: `rot_${word}[i] = ${word}[i]`, lines: [], pictures, total: one.value, bound: 0 };
  }
  const isFirst = entry < half;
  const pair = isFirst ? entry : entry - half;
  await values.load(place(pair), place(pair + half));
  const [x, y] = [values.quantity(place(pair)), values.quantity(place(pair + half))];
  const angle = step("multiply", [{ value: position, name: "position" }, { value: frequency({ ...cfg, rotary_dim: turned }, pair), name: "frequency" }], { name: "angle" });
  const cosine = step("cos", [angle.result], { name: "cosine" });
  const sine = step("sin", [angle.result], { name: "sine" });
  const minus: Quantity = { value: -sine.result.value, name: "minus-sine" };
  const own = step("multiply", [isFirst ? x : y, cosine.result]);
  const other = step("multiply", [isFirst ? y : x, isFirst ? minus : sine.result]);
  const total = sum([own, other]);
  const length = Math.abs(x.value) + Math.abs(y.value);
  return {
    kind: "rotary",
    formula: isFirst
      ? `rot_${word}[i] = ${word}[i] · cos(angle) − ${word}[i + ${half}] · sin(angle)`
      : `rot_${word}[i] = ${word}[i] · cos(angle) + ${word}[i − ${half}] · sin(angle)`,
    lines: [angle, cosine, sine, total],
    pictures: [{ kind: "rotary", pair: [x.value, y.value], angle: angle.result.value, entry: isFirst ? 0 : 1 }],
    total: total.total.value,
    bound: ROUNDING * (16 + 4 * Math.abs(angle.result.value)) * length + SMALLEST,
  };
}
