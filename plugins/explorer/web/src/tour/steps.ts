import { FOLDED_FROM } from "../board/layout";
import type { Explorer } from "../explorer.svelte";
import type { Values } from "../lang/index.svelte";
import { divisorOf } from "../lib/arithmetic/attention";
import { corruptions } from "../lib/corrupted";
import { isSwitchedOff } from "../lib/edits";
import { at, average, percent, signed, softmax } from "../lib/numbers";
import { lengthOf } from "../lib/vectors";
import { shape, sorted } from "../lib/sampling";
import type { Selection } from "../lib/selection";

/** A paragraph of a step: the key of its text after `tour-KEY-`, and the values in it. */
export interface Said {
  text: string;
  values: Values;
}

/** What was the case when a step began: what it is about, whatever the reader changes meanwhile. */
export interface Begun {
  head: { layer: number; head: number; key: number; effect: number; through: number };
  mlp: { layer: number; effect: number };
  names: { answer: string; rival: string };
  token: number; // the answer
  tokens: number[];
  temperature: number;
  guess: string; // the most probable next token
  share: number; // its probability
}

/** A step of the tour: what it selects, and what it says with numbers of the model and text at hand. */
export interface Step {
  key: string; // of its texts: `tour-KEY-title`, and those that `say` names
  /** The part of the page that the step is about, which gets a frame. */
  area?: "header" | "board" | "side";
  selection: (explorer: Explorer, begun: Begun) => Selection;
  /** Its paragraphs; `before` is what was the case when the step before it began, where the reader came from there. */
  say: (explorer: Explorer, begun: Begun, before: Begun | null) => Promise<Said[]>;
  /** What the reader is asked for, by the key of its text. */
  ask?: (explorer: Explorer, begun: Begun) => Said;
  /** Whether it is done: a text that changes as long as the reader is still at it; null before. */
  done?: (explorer: Explorer, begun: Begun) => string | null;
  /** Whether what it is about stays as it was at its beginning, when the reader changes the run. */
  keeps?: true;
  /** Puts back what the reader changed for this step alone. */
  leave?: (explorer: Explorer, begun: Begun) => void;
  /** Does it for the reader. */
  help?: (explorer: Explorer) => void;
}

/** What a step that begins now is about. */
export function begin(explorer: Explorer): Begun {
  const answer = explorer.answer!;
  const best = answer.arrays["next.ids"]!.data[0]!;
  return {
    head: bestHead(explorer),
    mlp: bestMlp(explorer),
    names: explorer.names,
    token: answer.facts.token,
    tokens: answer.facts.tokens.map((one) => one.id),
    temperature: explorer.generation.shape.temperature,
    guess: explorer.label(best),
    share: softmax(answer.arrays["next.logits"]!.data, 1)[best]!,
  };
}

/** The head with the largest direct effect, and the token through which it has most of it. */
export function bestHead(explorer: Explorer): Begun["head"] {
  const { "sources": sources, "effects.heads": heads } = explorer.answer!.arrays as Record<string, { shape: number[]; data: Float32Array }>;
  const [layers, count, positions] = sources!.shape as [number, number, number];
  let best = { layer: 0, head: 0 };
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < count; head++)
      if (Math.abs(at(heads!, layer, head)) > Math.abs(at(heads!, best.layer, best.head))) best = { layer, head };
  const effect = at(heads!, best.layer, best.head);
  // Of the same sign: effects through other tokens can be larger, and cancel.
  const through = (key: number) => Math.sign(effect) * at(sources!, best.layer, best.head, key);
  let key = 0;
  for (let one = 1; one < positions; one++) if (through(one) > through(key)) key = one;
  return { ...best, key, effect, through: at(sources!, best.layer, best.head, key) };
}

/** The MLP with the largest direct effect. */
function bestMlp(explorer: Explorer): Begun["mlp"] {
  const mlps = explorer.answer!.arrays["effects.mlps"]!.data;
  let layer = 0;
  for (let one = 1; one < mlps.length; one++) if (Math.abs(mlps[one]!) > Math.abs(mlps[layer]!)) layer = one;
  return { layer, effect: mlps[layer]! };
}

const position = (explorer: Explorer) => explorer.answer!.facts.position;
const second = (explorer: Explorer) => Math.min(1, explorer.answer!.facts.tokens.length - 1);
const has = (explorer: Explorer, name: string) => explorer.model!.hook_points.some((point) => point.name === name);
const chance = (explorer: Explorer, id: number) => softmax(explorer.answer!.arrays["next.logits"]!.data, 1)[id]!;
const read = async (explorer: Explorer, ...reads: string[]) => (await explorer.read(explorer.here({ reads }))).arrays;
const headOf = ({ layer, head }: Begun["head"]): Selection => ({ kind: "head", layer, head });
const paragraph = (text: string, values: Values = {}): Said => ({ text, values });
const one = (text: string, values: Values = {}): Said[] => [paragraph(text, values)];

/** A number with so many digits, and a real minus. */
const fixed = (value: number, digits: number) => value.toFixed(digits).replace("-", "−");

/** The name of the hook point of queries or keys as attention uses them: rotated, where the model rotates. */
function used(explorer: Explorer, layer: number, which: "q" | "k"): string {
  const rotated = `blocks.${layer}.attn.hook_rot_${which}`;
  return has(explorer, rotated) ? rotated : `blocks.${layer}.attn.hook_${which}`;
}

/** The probability of the answer as the sliders have it. */
function shaped(explorer: Explorer, token: number): number {
  const order = sorted(explorer.answer!.arrays["next.logits"]!.data);
  return shape(order, explorer.generation.shape).shares[order.ids.indexOf(token)]!;
}

/** The text with another word, to try: what was there, what is now, and where it came from. */
const suggestion = (explorer: Explorer) => corruptions(explorer.answer!.facts.tokens.map((token) => token.label).join(""))[0] ?? null;

export const STEPS: Step[] = [
  {
    key: "tokens",
    area: "board",
    selection: (explorer) => ({ kind: "token", position: second(explorer) }),
    say: async (explorer) => {
      const { tokens } = explorer.answer!.facts;
      const here = second(explorer);
      const values = { count: tokens.length, token: explorer.name(here), id: tokens[here]!.id, last: explorer.model!.cfg.d_vocab - 1 };
      return [...one(tokens.length === 1 ? "one" : "text", values), ...(tokens.length >= FOLDED_FROM ? one("folded") : [])];
    },
  },
  {
    key: "embedding",
    selection: (explorer) => ({ kind: "token", position: second(explorer) }),
    say: async (explorer) => {
      const here = second(explorer);
      const name = `hook_embed[${here}]`;
      const arrays = await read(explorer, name);
      const { d_model } = explorer.model!.cfg;
      return one("text", { width: d_model, token: explorer.name(here), id: explorer.answer!.facts.tokens[here]!.id, value: fixed(lengthOf(arrays[name]!.data), 2) });
    },
  },
  {
    key: "positions",
    selection: (explorer, { head: { layer, head } }) => {
      if (has(explorer, "hook_pos_embed")) return { kind: "token", position: second(explorer) };
      const rotated = `blocks.${layer}.attn.hook_rot_q`;
      return has(explorer, rotated) ? { kind: "value", address: `${rotated}[${position(explorer)},${head},0]` } : { kind: "head", layer, head };
    },
    say: async (explorer, { head: { layer } }) => {
      const here = second(explorer);
      const { n_ctx, d_head, rotary_dim } = explorer.model!.cfg;
      if (!has(explorer, "hook_pos_embed")) {
        if (!has(explorer, `blocks.${layer}.attn.hook_rot_q`)) return one("none");
        return one("rotary", { turned: Number(rotary_dim ?? d_head), width: d_head, position: position(explorer), token: explorer.name(position(explorer)) });
      }
      const name = `hook_pos_embed[${here}]`;
      const arrays = await read(explorer, name);
      return one("learned", { position: here, token: explorer.name(here), value: fixed(lengthOf(arrays[name]!.data), 2), limit: n_ctx });
    },
  },
  {
    key: "stream",
    area: "board",
    selection: (explorer) => ({ kind: "cell", state: 0, position: position(explorer) }),
    say: async (explorer) => {
      const { n_layers, d_model } = explorer.model!.cfg;
      return one("text", { layers: n_layers, width: d_model, token: explorer.name(position(explorer)) });
    },
  },
  {
    key: "norm",
    selection: (explorer, { head: { layer } }) => ({ kind: "norm", name: `blocks.${layer}.ln1`, position: position(explorer) }),
    say: async (explorer, { head: { layer } }) => {
      const name = `blocks.${layer}.ln1`;
      const norm = explorer.model!.normalizations[name]!;
      const here = position(explorer);
      const arrays = await read(explorer, `${norm.reads}[${here}]`, `${name}.hook_scale[${here}]`);
      const scale = fixed(arrays[`${name}.hook_scale[${here}]`]!.data[0]!, 3);
      const stream = arrays[`${norm.reads}[${here}]`]!.data;
      const values = { width: stream.length, layer, token: explorer.name(here), scale };
      return norm.kind === "LN" ? one("text", { ...values, mean: fixed(average(stream), 3) }) : one("rms", values);
    },
  },
  {
    key: "qkv",
    selection: (_, { head }) => headOf(head),
    say: async (explorer, { head: { layer, head } }) => {
      const { n_heads, d_head, n_key_value_heads } = explorer.model!.cfg;
      const keys = n_key_value_heads ?? n_heads;
      return one(keys === n_heads ? "text" : "grouped", { layer, head, heads: n_heads, width: d_head, ...(keys === n_heads ? {} : { keys }) });
    },
  },
  {
    key: "attention",
    selection: (explorer, { head: { layer, head, key } }) => ({ kind: "head", layer, head, query: position(explorer), key }),
    say: async (explorer, { head: { layer, head, key } }) => {
      const here = position(explorer);
      const model = explorer.model!;
      const { cfg } = model;
      const shared = cfg.n_heads / (cfg.n_key_value_heads ?? cfg.n_heads);
      const names = [
        `${used(explorer, layer, "q")}[${here},${head}]`,
        `${used(explorer, layer, "k")}[${key},${Math.floor(head / shared)}]`,
        ...["hook_attn_scores", "hook_pattern"].map((name) => `blocks.${layer}.attn.${name}[${head},${here},${key}]`),
      ];
      const arrays = await read(explorer, ...names);
      const [query, against, score, share] = names.map((name) => arrays[name]!.data) as [Float32Array, Float32Array, Float32Array, Float32Array];
      const product = query.reduce((total, each, place) => total + each * against[place]!, 0);
      const root = divisorOf({ model }, layer);
      const values = { query: explorer.name(here), key: explorer.name(key), product: fixed(product, 2), score: fixed(score[0]!, 2) };
      return [
        root === 1 ? paragraph("unscaled", values) : paragraph("text", { ...values, root: fixed(root, 2) }),
        here === 0 ? paragraph("alone", values) : paragraph("shares", { ...values, count: here + 1, share: percent(share[0]!) }),
      ];
    },
  },
  {
    key: "heads",
    area: "board",
    selection: () => ({ kind: "tool", name: "heads" }),
    say: async (explorer, { names, head: { layer, head, effect, key, through } }) => {
      const { n_layers, n_heads } = explorer.model!.cfg;
      const values = { ...names, layer, head, count: n_layers * n_heads, effect: signed(effect), key: explorer.name(key), through: signed(through) };
      return one(effect >= 0 ? "text" : "opposes", values);
    },
    ask: (_, { head: { layer, head } }) => paragraph("ask", { layer, head }),
    done: ({ selection }, { head }) => (selection?.kind === "head" && selection.layer === head.layer && selection.head === head.head ? "open" : null),
    help: (explorer) => explorer.select(headOf(bestHead(explorer))),
  },
  {
    key: "output",
    selection: (_, { head }) => headOf(head),
    say: async (explorer, { head: { layer, head } }) => {
      const here = position(explorer);
      const name = `blocks.${layer}.attn.hook_result[${here},${head}]`;
      const arrays = await read(explorer, name);
      const { d_model, d_head } = explorer.model!.cfg;
      return one("text", { layer, head, width: d_model, small: d_head, token: explorer.name(here), value: fixed(lengthOf(arrays[name]!.data), 2) });
    },
  },
  {
    key: "residual",
    area: "board",
    selection: (explorer) => ({ kind: "cell", state: explorer.model!.cfg.n_layers, position: position(explorer) }),
    say: async (explorer) => {
      const here = position(explorer);
      await explorer.loadGuesses("answer", [here]);
      const ids = explorer.answer!.arrays["guesses.ids"]!;
      const last = ids.shape[0]! - 1;
      const guess = at(ids, last, here);
      let since = last;
      while (since > 0 && at(ids, since - 1, here) === guess) since--;
      const values = { token: explorer.name(here), guess: explorer.label(guess) };
      // State 0 is before all blocks, so state n is after block n - 1.
      return since === 0 ? one("same", values) : one("text", { ...values, first: explorer.label(at(ids, 0, here)), since: since - 1 });
    },
  },
  {
    key: "mlp",
    selection: (explorer, { mlp }) => ({ kind: "mlp", layer: mlp.layer, position: position(explorer) }),
    say: async (explorer, { names, mlp: { layer, effect } }) => {
      const { d_model, d_mlp, act_fn, gated_mlp } = explorer.model!.cfg;
      const here = position(explorer);
      const name = `blocks.${layer}.mlp.hook_${gated_mlp ? "pre" : "post"}[${here}]`;
      const arrays = await read(explorer, name);
      const above = [...arrays[name]!.data].reduce((count, each) => count + Number(each > 0), 0);
      const values = { layer, width: d_model, neurons: d_mlp, activation: act_fn, token: explorer.name(here), above };
      return [paragraph(gated_mlp ? "gated" : "text", values), paragraph("effect", { ...names, layer, effect: signed(effect) })];
    },
  },
  {
    key: "dropout",
    selection: (explorer, { mlp }) => ({ kind: "block", layer: mlp.layer, position: position(explorer) }),
    say: async () => one("text"),
  },
  {
    key: "logits",
    area: "side",
    selection: (explorer, { token }) => ({ kind: "value", address: `probabilities[${position(explorer)},${token}]` }),
    say: async (explorer, { names, token }) => {
      const logits = explorer.answer!.arrays["next.logits"]!.data;
      return one("text", { ...names, token: explorer.name(position(explorer)), vocabulary: logits.length, logit: fixed(logits[token]!, 2), share: percent(chance(explorer, token)) });
    },
  },
  {
    key: "sampling",
    area: "side",
    selection: () => ({ kind: "tool", name: "sampling" }),
    say: async (explorer, { names, token }) => {
      const { temperature } = explorer.generation.shape;
      const share = percent(shaped(explorer, token));
      return one(temperature === 1 ? "text" : temperature > 1 ? "warm" : "cold", { ...names, share, temperature: fixed(temperature, 2), plain: percent(chance(explorer, token)) });
    },
    ask: () => paragraph("ask"),
    done: ({ generation }, { temperature }) => (generation.shape.temperature === temperature ? null : String(generation.shape.temperature)),
    help: ({ generation }) => (generation.shape.temperature = generation.shape.temperature < 1.5 ? 1.5 : 1),
    leave: ({ generation }, { temperature }) => (generation.shape.temperature = temperature),
  },
  {
    key: "break",
    selection: (_, { head }) => headOf(head),
    say: async (_, { names, head: { layer, head, effect } }) => one(effect >= 0 ? "text" : "opposes", { ...names, layer, head, effect: signed(effect) }),
    ask: () => paragraph("ask"),
    keeps: true,
    // Done when the board shows it.
    done: (explorer, { head }) => (isSwitchedOff(explorer.allEdits, headOf(head), explorer.model!) && explorer.unchanged !== null ? "off" : null),
  },
  {
    key: "type",
    area: "header",
    keeps: true,
    selection: (explorer, { head }) => explorer.selection ?? headOf(head),
    say: async (explorer) => {
      if (!explorer.unchanged) return one("whole", { ...explorer.names, share: percent(chance(explorer, explorer.answer!.facts.token)) });
      const [before, after] = [explorer.unchanged.facts.effects!.logit, explorer.answer!.facts.effects!.logit];
      const values = { ...explorer.names, before: signed(before), after: signed(after) };
      const best = explorer.answer!.arrays["next.ids"]!.data[0]!;
      const found = best === explorer.answer!.facts.token ? paragraph("holds", values) : paragraph("flipped", { ...values, now: explorer.label(best) });
      return [found, paragraph("again")];
    },
    ask: (explorer) => {
      const found = suggestion(explorer);
      return found ? paragraph("ask", { was: found.was, now: found.now }) : paragraph("ask-any");
    },
    done: (explorer, { tokens }) => {
      const now = explorer.answer!.facts.tokens.map((token) => token.id).join();
      return now === tokens.join() ? null : now;
    },
    help: (explorer) => {
      const found = suggestion(explorer);
      if (found) explorer.type(found.text);
    },
  },
  {
    key: "end",
    selection: (explorer, { head }) => explorer.selection ?? headOf(head),
    say: async (explorer, { guess, share }, before) => {
      const values = { guess, share: percent(share) };
      const rest = [paragraph("text"), ...(explorer.edits.length ? [paragraph("edits")] : [])];
      if (!before) return [paragraph("now", values), ...rest];
      const isSame = before.guess === guess;
      return [isSame ? paragraph("still", { ...values, then: percent(before.share) }) : paragraph("changed", { ...values, was: before.guess }), ...rest];
    },
  },
];
