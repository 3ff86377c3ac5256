import type { Explorer } from "../explorer.svelte";
import type { Values } from "../lang/index.svelte";
import { at, average, length, percent, signed, softmax } from "../lib/numbers";
import type { Selection } from "../lib/selection";

/** What a step says: the key of its text after `tour-KEY`, and the values in it. */
export interface Said {
  text: string;
  values: Values;
}

/** A step of the tour: what it selects, and what it says with numbers of the model and text at hand. */
export interface Step {
  key: string; // of its texts: `tour-KEY-title`, and those that `say` names
  selection: (explorer: Explorer) => Selection;
  say: (explorer: Explorer) => Promise<Said>;
  /** Whether the reader has done what the step asks for; a step without it asks for nothing. */
  isDone?: (explorer: Explorer) => boolean;
}

/** The head with the largest direct effect, and the token through which it has it. */
export function bestHead(explorer: Explorer): { layer: number; head: number; key: number; effect: number } {
  const sources = explorer.answer!.arrays["sources"]!;
  const heads = explorer.answer!.arrays["effects.heads"]!;
  const [layers, count, positions] = sources.shape as [number, number, number];
  let best = { layer: 0, head: 0 };
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < count; head++)
      if (Math.abs(at(heads, layer, head)) > Math.abs(at(heads, best.layer, best.head))) best = { layer, head };
  let key = 0;
  for (let one = 1; one < positions; one++)
    if (Math.abs(at(sources, best.layer, best.head, one)) > Math.abs(at(sources, best.layer, best.head, key))) key = one;
  return { ...best, key, effect: at(heads, best.layer, best.head) };
}

/** The MLP with the largest direct effect. */
function bestMlp(explorer: Explorer): { layer: number; effect: number } {
  const mlps = explorer.answer!.arrays["effects.mlps"]!;
  let layer = 0;
  for (let one = 1; one < mlps.data.length; one++) if (Math.abs(mlps.data[one]!) > Math.abs(mlps.data[layer]!)) layer = one;
  return { layer, effect: mlps.data[layer]! };
}

const position = (explorer: Explorer) => explorer.answer!.facts.position;
const second = (explorer: Explorer) => Math.min(1, explorer.answer!.facts.tokens.length - 1);
const has = (explorer: Explorer, name: string) => explorer.model!.hook_points.some((point) => point.name === name);
const chance = (explorer: Explorer) => softmax(explorer.answer!.arrays["next.logits"]!.data, 1)[explorer.answer!.facts.token]!;
const read = async (explorer: Explorer, ...reads: string[]) => (await explorer.read(explorer.here({ reads }))).arrays;

export const STEPS: Step[] = [
  {
    key: "tokens",
    selection: (explorer) => ({ kind: "token", position: second(explorer) }),
    say: async (explorer): Promise<Said> => {
      const { tokens } = explorer.answer!.facts;
      const token = tokens[second(explorer)]!;
      return { text: "text", values: { count: tokens.length, token: explorer.name(second(explorer)), id: token.id, vocabulary: explorer.model!.cfg.d_vocab } };
    },
  },
  {
    key: "embedding",
    selection: (explorer) => ({ kind: "token", position: second(explorer) }),
    say: async (explorer): Promise<Said> => {
      const here = second(explorer);
      const name = `hook_embed[${here}]`;
      const arrays = await read(explorer, name);
      return { text: "text", values: { width: explorer.model!.cfg.d_model, token: explorer.name(here), value: length(arrays[name]!.data).toFixed(2) } };
    },
  },
  {
    key: "positions",
    selection: (explorer) => ({ kind: "token", position: second(explorer) }),
    say: async (explorer): Promise<Said> => {
      const here = second(explorer);
      if (!has(explorer, "hook_pos_embed")) return { text: "rotary", values: {} };
      const name = `hook_pos_embed[${here}]`;
      const arrays = await read(explorer, name);
      return { text: "learned", values: { position: here, value: length(arrays[name]!.data).toFixed(2), limit: explorer.model!.cfg.n_ctx } };
    },
  },
  {
    key: "stream",
    selection: (explorer) => ({ kind: "block", layer: bestHead(explorer).layer }),
    say: async (explorer): Promise<Said> => ({ text: "text", values: { layers: explorer.model!.cfg.n_layers, width: explorer.model!.cfg.d_model } }),
  },
  {
    key: "norm",
    selection: (explorer) => ({ kind: "norm", name: `blocks.${bestHead(explorer).layer}.ln1` }),
    say: async (explorer): Promise<Said> => {
      const name = `blocks.${bestHead(explorer).layer}.ln1`;
      const norm = explorer.model!.normalizations[name]!;
      const here = position(explorer);
      const arrays = await read(explorer, `${norm.reads}[${here}]`, `${name}.hook_scale[${here}]`);
      const scale = arrays[`${name}.hook_scale[${here}]`]!.data[0]!.toFixed(3);
      const mean = average(arrays[`${norm.reads}[${here}]`]!.data).toFixed(3);
      return { text: norm.kind === "LN" ? "text" : "rms", values: norm.kind === "LN" ? { mean, scale } : { scale } };
    },
  },
  {
    key: "qkv",
    selection: (explorer) => ({ kind: "head", layer: bestHead(explorer).layer, head: bestHead(explorer).head }),
    say: async (explorer): Promise<Said> => {
      const { layer, head } = bestHead(explorer);
      const { n_heads, d_head, n_key_value_heads } = explorer.model!.cfg;
      const keys = n_key_value_heads ?? n_heads;
      return { text: keys === n_heads ? "text" : "grouped", values: { layer, head, heads: n_heads, width: d_head, ...(keys === n_heads ? {} : { keys }) } };
    },
  },
  {
    key: "attention",
    selection: (explorer) => {
      const { layer, head, key } = bestHead(explorer);
      return { kind: "head", layer, head, query: position(explorer), key };
    },
    say: async (explorer): Promise<Said> => {
      const { layer, head, key } = bestHead(explorer);
      const here = position(explorer);
      const names = ["hook_attn_scores", "hook_pattern"].map((name) => `blocks.${layer}.attn.${name}[${head},${here},${key}]`);
      const arrays = await read(explorer, ...names);
      const [score, share] = names.map((name) => arrays[name]!.data[0]!) as [number, number];
      return {
        text: "text",
        values: { query: explorer.name(here), key: explorer.name(key), score: score.toFixed(2), share: percent(share), root: Math.sqrt(explorer.model!.cfg.d_head).toFixed(2) },
      };
    },
  },
  {
    key: "heads",
    selection: (explorer) => ({ kind: "tool", name: "heads" }),
    say: async (explorer): Promise<Said> => {
      const { layer, head, effect, key } = bestHead(explorer);
      return { text: effect >= 0 ? "text" : "opposes", values: { ...explorer.names, layer, head, effect: signed(effect), key: explorer.name(key) } };
    },
  },
  {
    key: "output",
    selection: (explorer) => ({ kind: "head", layer: bestHead(explorer).layer, head: bestHead(explorer).head }),
    say: async (explorer): Promise<Said> => ({ text: "text", values: { layer: bestHead(explorer).layer, head: bestHead(explorer).head, width: explorer.model!.cfg.d_model, small: explorer.model!.cfg.d_head } }),
  },
  {
    key: "residual",
    selection: (explorer) => ({ kind: "cell", state: explorer.model!.cfg.n_layers, position: position(explorer) }),
    say: async (explorer): Promise<Said> => {
      const here = position(explorer);
      await explorer.loadGuesses("answer", [here]);
      const ids = explorer.answer!.arrays["guesses.ids"]!;
      const states = ids.shape[0]!;
      const last = at(ids, states - 1, here);
      let since = states - 1;
      while (since > 0 && at(ids, since - 1, here) === last) since--;
      const first = explorer.label(at(ids, 0, here));
      return since === 0
        ? { text: "same", values: { guess: explorer.label(last) } }
        : { text: "text", values: { first, guess: explorer.label(last), since: since - 1 } };
    },
  },
  {
    key: "mlp",
    selection: (explorer) => ({ kind: "mlp", layer: bestMlp(explorer).layer }),
    say: async (explorer): Promise<Said> => {
      const { layer, effect } = bestMlp(explorer);
      const { d_model, d_mlp, act_fn, gated_mlp } = explorer.model!.cfg;
      return { text: gated_mlp ? "gated" : "text", values: { ...explorer.names, layer, width: d_model, neurons: d_mlp, activation: act_fn, effect: signed(effect) } };
    },
  },
  {
    key: "dropout",
    selection: (explorer) => ({ kind: "block", layer: bestMlp(explorer).layer }),
    say: async (): Promise<Said> => ({ text: "text", values: {} }),
  },
  {
    key: "logits",
    selection: (explorer) => ({ kind: "value", address: `probabilities[${position(explorer)},${explorer.answer!.facts.token}]` }),
    say: async (explorer): Promise<Said> => {
      const { token } = explorer.answer!.facts;
      const logits = explorer.answer!.arrays["next.logits"]!.data;
      return { text: "text", values: { ...explorer.names, vocabulary: logits.length, logit: logits[token]!.toFixed(2), share: percent(chance(explorer)) } };
    },
  },
  {
    key: "sampling",
    selection: () => ({ kind: "tool", name: "sampling" }),
    say: async (explorer): Promise<Said> => ({ text: "text", values: { ...explorer.names, share: percent(chance(explorer)) } }),
    isDone: (explorer) => explorer.generation.shape.temperature !== 1,
  },
  {
    key: "break",
    selection: (explorer) => ({ kind: "head", layer: bestHead(explorer).layer, head: bestHead(explorer).head }),
    say: async (explorer): Promise<Said> => {
      const { layer, head } = bestHead(explorer);
      return { text: "text", values: { ...explorer.names, layer, head } };
    },
    isDone: (explorer) => explorer.edits.length > 0 && explorer.unchanged !== null,
  },
  {
    key: "end",
    selection: (explorer) => explorer.selection ?? { kind: "token", position: 0 },
    say: async (explorer): Promise<Said> => {
      if (!explorer.unchanged) return { text: "whole", values: explorer.names };
      const before = explorer.unchanged.facts.effects!.logit, after = explorer.answer!.facts.effects!.logit;
      const values = { ...explorer.names, before: signed(before), after: signed(after) };
      const best = explorer.answer!.arrays["next.ids"]!.data[0]!;
      return best === explorer.answer!.facts.token ? { text: "holds", values } : { text: "flipped", values: { ...values, now: explorer.label(best) } };
    },
  },
];
