import { argmax, largest } from "../../lib/arithmetic/largest";
import { softmax } from "../../lib/numbers";
import { EngineError, type Chain, type ContinueRequest } from "../types";
import type { Random } from "./random";

/** A stage leaves some tokens: the logits of the others become minus infinity. */
type Apply = (logits: Float32Array) => Float32Array;

/** A sampler with its name as Python writes it. */
interface Sampler {
  label: string;
  apply: Apply;
}

/** A chain of samplers, of which the last one chooses. */
export interface Samplers {
  stages: Sampler[];
  choice: "Greedy()" | "Multinomial()";
}

const float = (value: number) => (Number.isInteger(value) ? value.toFixed(1) : String(value));
const LABELS: Record<string, (value: number) => string> = {
  temperature: (value) => `Temperature(temperature=${float(value)})`,
  top_k: (value) => `TopK(k=${value})`,
  top_p: (value) => `TopP(p=${float(value)})`,
  min_p: (value) => `MinP(p=${float(value)})`,
};

const STAGES: Record<string, (value: number) => Apply> = {
  temperature: (value) => (logits) => logits.map((one) => one / Math.fround(value)),
  top_k: (k) => (logits) => {
    const least = Float32Array.from(logits).sort()[Math.max(0, logits.length - k)]!;
    return logits.map((one) => (one < least ? -Infinity : one));
  },
  top_p: (p) => (logits) => {
    if (p === 1) return logits;
    const shares = softmax(logits, 1);
    const order = Int32Array.from({ length: logits.length }, (_, id) => id).filter((id) => shares[id]! > 0).sort((a, b) => logits[b]! - logits[a]! || a - b);
    const left = new Float32Array(logits.length).fill(-Infinity);
    let mass = 0;
    for (const id of order) {
      left[id] = logits[id]!;
      if ((mass += shares[id]!) >= p) break;
    }
    return left;
  },
  min_p: (p) => (logits) => {
    if (p === 0) return logits;
    const least = logits.reduce((most, one) => Math.max(most, one), -Infinity) + Math.log(p);
    return logits.map((one) => (one < least ? -Infinity : one));
  },
};

/** The samplers of a request: those of the sliders; others need the local server. */
export function samplersOf(request: Pick<ContinueRequest, "sampler" | "temperature" | "top_k" | "top_p">): Samplers {
  const found: Samplers = { stages: [], choice: "Multinomial()" };
  const add = (name: string, value: number) => found.stages.push({ label: LABELS[name]!(value), apply: STAGES[name]!(value) });
  if (request.sampler !== undefined && request.sampler !== null) {
    for (const part of request.sampler.split("|").map((one) => one.trim())) {
      const [name, value] = part.split("=").map((one) => one.trim()) as [string, string | undefined];
      if (name === "greedy") found.choice = "Greedy()";
      else if (name === "multinomial") found.choice = "Multinomial()";
      else if (name in STAGES && value !== undefined && Number.isFinite(Number(value))) add(name, Number(value));
      else throw new EngineError(`The browser has no sampler '${part}'; use 'onnxlens explore' on your machine. It has temperature, top_k, top_p, min_p, greedy and multinomial.`);
    }
    return found;
  }
  const { temperature = 1, top_k, top_p } = request;
  if (temperature === 0) found.choice = "Greedy()";
  else add("temperature", temperature);
  if (top_k) add("top_k", top_k);
  if (top_p !== undefined && top_p !== null) add("top_p", top_p);
  return found;
}

/** The logits of the model, and those that each stage left. */
const applied = ({ stages }: Samplers, logits: Float32Array): Float32Array[] => stages.reduce((all, { apply }) => [...all, apply(all.at(-1)!)], [logits]);

/** Chooses the next token. */
export function chosen(samplers: Samplers, logits: Float32Array, random: Random): number {
  const left = applied(samplers, logits).at(-1)!;
  return samplers.choice === "Greedy()" ? argmax(left) : drawn(cumulative(left), random.random());
}

/** Probabilities summed in the order of ids. */
function cumulative(logits: Float32Array): Float64Array {
  let total = 0;
  return softmax(logits, 1).map((one) => (total += one));
}

/** The first token whose cumulative probability exceeds a random number. */
function drawn(sums: Float64Array, number: number): number {
  const draw = number * sums.at(-1)!;
  return sums.findIndex((sum) => sum > draw);
}

const CANDIDATES = 10; // of the end, that an explanation names

/** How the next token is chosen, stage by stage; `Explanation` in Python. */
export function explained(samplers: Samplers, logits: Float32Array, random: Random, seed: number, top: number): Chain {
  const rows = applied(samplers, logits);
  const shares = rows.map((row) => softmax(row, 1));
  const end = rows.at(-1)!;
  const isDraw = samplers.choice === "Multinomial()";
  const number = isDraw ? random.random() : null;
  const sums = cumulative(end);
  const token = number === null ? argmax(end) : drawn(sums, number);
  const possible = end.reduce((count, one) => count + Number(one !== -Infinity), 0);
  const ids = [...new Set([...largest(logits, top), ...largest(end, CANDIDATES), token])];
  const stages = samplers.stages.map(({ label }, place) => {
    const [before, after, left, there] = [shares[place]!, shares[place + 1]!, rows[place + 1]!, rows[place]!];
    let [tokens, removed_tokens, removed, moved] = [0, 0, 0, 0];
    for (let id = 0; id < left.length; id++) {
      moved += Math.abs(after[id]! - before[id]!) / 2;
      if (left[id] !== -Infinity) tokens++;
      else if (there[id] !== -Infinity) {
        removed_tokens++;
        removed += before[id]!;
      }
    }
    const candidates = ids.map((id) => ({ id, logit: left[id] === -Infinity ? null : left[id]!, before: before[id]!, after: after[id]! }));
    return { sampler: label, tokens, removed_tokens, removed, moved, candidates };
  });
  return {
    logits: ids.map((id) => ({ id, logit: logits[id]! })),
    stages,
    choice: samplers.choice,
    tokens: possible,
    token,
    probability: shares.at(-1)![token]!,
    model_probability: shares[0]![token]!,
    number,
    interval: [token ? sums[token - 1]! / sums.at(-1)! : 0, sums[token]! / sums.at(-1)!],
    seed,
  };
}
