/**
 * The arithmetic of any number of a model, down to its weights and the ids of the tokens.
 *
 * Rules are for decoders of blocks with attention and an MLP; which of them apply, the description of the model says:
 * its hook points and their order, its residual stream, its normalisations and its `cfg`.
 */
import type { Model } from "../engine/types";
import { ALL, parseValue } from "./address";
import { attentionOutput, pattern, probabilities, scores, z } from "./arithmetic/attention";
import { post } from "./arithmetic/activation";
import { dot, inputOf, type Input } from "./arithmetic/linear";
import { normalized, output, outputs, scale } from "./arithmetic/norm";
import { rotated } from "./arithmetic/rotary";
import { lookup, state } from "./arithmetic/stream";
import { touches } from "./arithmetic/touches";
import type { Arithmetic, Context, Read, Rule } from "./arithmetic/types";
import { Values } from "./arithmetic/values";

export type * from "./arithmetic/types";

/** An address is not that of one number of the model and text. */
export class NoSuchNumber extends Error {}

/**
 * Explains one number.
 *
 * @param value its address, such as `blocks.4.attn.hook_q[13,1,5]`, `logits[13,262]` or `probabilities[13,262]`; also
 *     that of a weight, or of a normalisation's output, such as `blocks.4.ln1[13,5]`
 * @param context the tokens of the run, and its edits
 * @param read reads addresses of the same run
 * @throws NoSuchNumber the address is not that of a number of this model and text
 */
export async function explain(model: Model, value: string, context: Context, read: Read): Promise<Arithmetic> {
  const found = parseValue(model, value, context.tokens.length);
  if (!found) throw new NoSuchNumber(`'${value}' is not the address of a number of this model and text.`);
  const { name, indices } = found;
  const values = new Values(model, context.tokens, read);
  const isWeight = values.hasWeight(name);
  const isStored = isWeight || name === "logits" || values.hasPoint(name);
  const [made] = await Promise.all([isWeight ? null : ruleOf(values, name, indices), values.load(isStored ? value : null)]);
  const stored = isStored ? values.number(value) : null;
  const rule = made ?? nothing(isWeight, name, stored);
  const agrees = stored === null ? null : stored === rule.total || Math.abs(stored - rule.total) <= rule.bound;
  const edits = context.edits.filter((one) => touches(one, model, name, indices, context.tokens.length));
  return { address: value, name, indices, ...rule, stored, agrees, edits };
}

function nothing(isWeight: boolean, name: string, stored: number | null): Rule {
  return { kind: isWeight ? "given" : "unknown", formula: name, lines: [], pictures: [], total: stored ?? NaN, bound: 0 };
}

/** The rule of a value; null where the page knows none. */
async function ruleOf(values: Values, name: string, indices: number[]): Promise<Rule | null> {
  const { model } = values;
  const [first, second, third] = indices as [number, number, number];
  if (name === "logits") return dot(values, "logit", finalInput(values, first), "unembed.W_U", [null, second], { name: "unembed.b_U", indices: [second] });
  if (name === "probabilities") return probabilities(values, first, second);
  if (name === "hook_embed") return lookup(values, "embed.W_E", values.tokens[first]!.id, second, "embed");
  if (name === "hook_pos_embed") return lookup(values, "pos_embed.W_pos", first, second, "pos_embed");
  if (model.residual_stream.states.includes(name)) return state(values, name, first, second);
  if (name in model.normalizations) return output(values, name, first, second);
  const [, norm, which] = /^(.+)\.hook_(scale|normalized)$/.exec(name) ?? [];
  if (norm !== undefined && norm in model.normalizations) {
    return which === "scale" ? scale(values, norm, first) : normalized(values, norm, first, second);
  }
  const [, block, rest] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? [];
  if (rest === undefined) return null;
  const layer = Number(block);
  const [attn, mlp] = [`blocks.${layer}.attn`, `blocks.${layer}.mlp`];
  switch (rest) {
    case "attn.hook_q":
    case "attn.hook_k":
    case "attn.hook_v": {
      const letter = rest.slice(-1);
      const input = inputOfPart(values, name, `blocks.${layer}.ln1`, first);
      const bias = { name: `${attn}.b_${letter.toUpperCase()}`, indices: [second, third] };
      return dot(values, letter, input, `${attn}.W_${letter.toUpperCase()}`, [second, null, third], bias);
    }
    case "attn.hook_rot_q":
    case "attn.hook_rot_k":
      return rotated(values, `${attn}.hook_${rest.slice(-1)}`, [first, second, third]);
    case "attn.hook_attn_scores":
      return scores(values, layer, first, second, third);
    case "attn.hook_pattern":
      return pattern(values, layer, first, second, third);
    case "attn.hook_z":
      return z(values, layer, first, second, third);
    case "attn.hook_result": {
      const heads = values.vector(`${attn}.hook_z`, [first, second, ALL], (i) => [first, second, i]);
      return dot(values, "result", heads.then((one) => inputOf(one, "z")), `${attn}.W_O`, [second, null, third], null);
    }
    case "hook_attn_out":
      return attentionOutput(values, layer, first, second);
    case "mlp.hook_pre":
    case "mlp.hook_pre_linear": {
      const part = rest === "mlp.hook_pre" && model.cfg.gated_mlp ? "gate" : "in";
      const input = inputOfPart(values, name, `blocks.${layer}.ln2`, first);
      return dot(values, rest.slice("mlp.hook_".length), input, `${mlp}.W_${part}`, [null, second], { name: `${mlp}.b_${part}`, indices: [second] });
    }
    case "mlp.hook_post":
      return post(values, layer, first, second);
    case "hook_mlp_out": {
      const neurons = values.vector(`${mlp}.hook_post`, [first, ALL], (i) => [first, i]);
      return dot(values, "mlp_out", neurons.then((one) => inputOf(one, "post")), `${mlp}.W_out`, [null, second], { name: `${mlp}.b_out`, indices: [second] });
    }
    default:
      return null;
  }
}

/** What attention or an MLP reads: the output of its normalisation, or the stream itself where the model has none. */
async function inputOfPart(values: Values, name: string, norm: string, position: number): Promise<Input> {
  const { model } = values;
  const order = model.hook_points.map((one) => one.name);
  const earlier = (order.includes(name) ? order.slice(0, order.indexOf(name)) : order).reverse();
  const last = earlier.find((one) => one.endsWith(".hook_normalized"))?.slice(0, -".hook_normalized".length);
  const chosen = norm in model.normalizations ? norm : last;
  if (chosen !== undefined && chosen in model.normalizations) return outputs(values, chosen, position);
  const stream = earlier.find((one) => model.residual_stream.states.includes(one))!;
  return inputOf(await values.vector(stream, [position, ALL], (i) => [position, i]), "x");
}

const finalInput = (values: Values, position: number) => inputOfPart(values, "logits", "ln_final", position);
