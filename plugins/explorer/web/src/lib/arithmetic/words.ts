import type { Model, Token } from "../../engine/types";
import type { Translate } from "../../lang/index.svelte";
import { parseAddress } from "../address";
import type { Operation } from "./types";

/** Values whose words tell their indices, by the end of their names; which index is what. */
const WORDS: [RegExp, string, string[]][] = [
  [/^hook_embed$/, "embed", ["position", "entry"]],
  [/^hook_pos_embed$/, "pos-embed", ["position", "entry"]],
  [/^hook_resid_pre$/, "resid-pre", ["position", "entry"]],
  [/^hook_resid_mid$/, "resid-mid", ["position", "entry"]],
  [/^hook_resid_post$/, "resid-post", ["position", "entry"]],
  [/^attn\.hook_q$/, "q", ["position", "head", "entry"]],
  [/^attn\.hook_k$/, "k", ["position", "head", "entry"]],
  [/^attn\.hook_v$/, "v", ["position", "head", "entry"]],
  [/^attn\.hook_rot_q$/, "rot-q", ["position", "head", "entry"]],
  [/^attn\.hook_rot_k$/, "rot-k", ["position", "head", "entry"]],
  [/^attn\.hook_attn_scores$/, "scores", ["head", "position", "key"]],
  [/^attn\.hook_pattern$/, "pattern", ["head", "position", "key"]],
  [/^attn\.hook_z$/, "z", ["position", "head", "entry"]],
  [/^attn\.hook_result$/, "result", ["position", "head", "entry"]],
  [/^hook_attn_out$/, "attn-out", ["position", "entry"]],
  [/^mlp\.hook_pre$/, "pre", ["position", "entry"]],
  [/^mlp\.hook_pre_linear$/, "pre-linear", ["position", "entry"]],
  [/^mlp\.hook_post$/, "post", ["position", "entry"]],
  [/^hook_mlp_out$/, "mlp-out", ["position", "entry"]],
  [/^logits$/, "logits", ["position", "answer"]],
  [/^probabilities$/, "probabilities", ["position", "answer"]],
];

/** A token's text with its spaces and line breaks visible. */
export function visibleText(label: string): string {
  return label.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

/** The address of a number in words, such as "query of head 4.1 at ␣to, entry 5". */
export function words(model: Model, address: string, tokens: readonly Token[], tokenName: (id: number) => string, t: Translate): string {
  const found = parseAddress(address);
  if (!found) return address;
  const { name } = found;
  const indices = found.indices as number[];
  const [, layer = "", rest = name] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? [];
  const token = (position: number) => visibleText(tokens[position]?.label ?? `#${position}`);
  if (model.weights.some((one) => one.name === name)) {
    if (name === "embed.W_E") return t("arithmetic-title-weight-embed", { token: tokenName(indices[0]!), entry: indices[1]! });
    return t("arithmetic-title-weight", { name, indices: indices.join(", ") });
  }
  const norm = name.replace(/\.hook_(scale|normalized)$/, "");
  if (norm in model.normalizations) {
    const kind = name.endsWith(".hook_scale") ? "scale" : name.endsWith(".hook_normalized") ? "normalized" : "output";
    return t(`arithmetic-title-norm-${kind}`, { name: norm, token: token(indices[0]!), entry: indices[1]! });
  }
  const [, key, order] = WORDS.find(([pattern]) => pattern.test(rest)) ?? [];
  if (!key || !order) return address;
  const values: Record<string, string | number> = { layer };
  for (const [place, what] of order.entries()) {
    const index = indices[place]!;
    if (what === "position") values.token = token(index);
    else if (what === "key") values.key = token(index);
    else if (what === "answer") values.answer = tokenName(index);
    else values[what] = index;
  }
  return t(`arithmetic-title-${key}`, values);
}

/** An address without the prefixes of hook points; the number of its block is left out where it is `layer`. */
export function short(address: string, layer: string | null): string {
  return address
    .replace(/^blocks\.(\d+)\.(?:attn\.|mlp\.)?/, (_, block: string) => (block === layer ? "" : `${block}.`))
    .replace(/^(?:pos_embed|embed|unembed)\./, "")
    .replace("hook_", "");
}

/** How an operation is written: text, and the places of its operands. */
export const WRITTEN: { [Name in Operation]: (string | number)[] } = {
  same: [0],
  multiply: [0, " × ", 1],
  divide: [0, " ÷ ", 1],
  add: [0, " + ", 1],
  subtract: [0, " − ", 1],
  root: ["√(", 0, ")"],
  exp: ["exp(", 0, ")"],
  "exp-difference": ["exp(", 0, " − ", 1, ")"],
  "square-share": [0, "² ÷ ", 1],
  "square-difference-share": ["(", 0, " − ", 1, ")² ÷ ", 2],
  cos: ["cos(", 0, ")"],
  sin: ["sin(", 0, ")"],
  gelu_new: ["gelu_new(", 0, ")"],
  gelu: ["gelu(", 0, ")"],
  relu: ["relu(", 0, ")"],
  silu: ["silu(", 0, ")"],
};

/** The shortest decimal that no other float32 number is nearer to. */
export function float32Text(value: number): string {
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "∞";
  let text = value.toPrecision(9);
  for (let digits = 1; digits < 9; digits++) {
    if (Math.fround(Number(value.toPrecision(digits))) !== value) continue;
    text = value.toPrecision(digits);
    break;
  }
  return String(Number(text)).replaceAll("-", "−");
}

/** A small number, such as a difference, to two digits. */
export function smallText(value: number): string {
  return value === 0 ? "0" : value.toExponential(1).replaceAll("-", "−");
}
