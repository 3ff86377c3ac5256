import { EngineError, type ContinueRequest } from "../types";
import type { Random } from "./random";

/** A stage leaves some tokens: the logits of the others become minus infinity. */
type Stage = (logits: Float32Array) => Float32Array;

const STAGES: Record<string, (value: number) => Stage> = {
  temperature: (value) => (logits) => logits.map((one) => one / Math.fround(value)),
  top_k: (k) => (logits) => {
    const least = Float32Array.from(logits).sort()[Math.max(0, logits.length - k)]!;
    return logits.map((one) => (one < least ? -Infinity : one));
  },
  top_p: (p) => (logits) => {
    if (p === 1) return logits;
    const shares = exponentials(logits);
    const order = Int32Array.from({ length: logits.length }, (_, id) => id).filter((id) => shares[id]! > 0).sort((a, b) => logits[b]! - logits[a]! || a - b);
    const total = order.reduce((sum, id) => sum + shares[id]!, 0);
    const left = new Float32Array(logits.length).fill(-Infinity);
    let mass = 0;
    for (const id of order) {
      left[id] = logits[id]!;
      if ((mass += shares[id]! / total) >= p) break;
    }
    return left;
  },
  min_p: (p) => (logits) => {
    if (p === 0) return logits;
    const least = logits.reduce((most, one) => Math.max(most, one), -Infinity) + Math.log(p);
    return logits.map((one) => (one < least ? -Infinity : one));
  },
};

/** What chooses the tokens of a continuation: the samplers of the sliders; others need the local server. */
export function choiceOf(request: ContinueRequest, random: Random): (logits: Float32Array) => number {
  const stages: Stage[] = [];
  let chooses: "greedy" | "multinomial" = "multinomial";
  if (request.sampler !== undefined && request.sampler !== null) {
    for (const part of request.sampler.split("|").map((one) => one.trim())) {
      const [name, value] = part.split("=").map((one) => one.trim()) as [string, string | undefined];
      if (name === "greedy" || name === "multinomial") chooses = name;
      else if (name in STAGES && value !== undefined && Number.isFinite(Number(value))) stages.push(STAGES[name]!(Number(value)));
      else throw new EngineError(`The browser has no sampler '${part}'; use 'onnxlens explore' on your machine. It has temperature, top_k, top_p, min_p, greedy and multinomial.`);
    }
  } else {
    const { temperature = 1, top_k, top_p } = request;
    if (temperature === 0) chooses = "greedy";
    else if (temperature !== 1) stages.push(STAGES["temperature"]!(temperature));
    if (top_k) stages.push(STAGES["top_k"]!(top_k));
    if (top_p !== undefined && top_p !== null) stages.push(STAGES["top_p"]!(top_p));
  }
  return (logits) => {
    const left = stages.reduce((now, stage) => stage(now), logits);
    if (chooses === "greedy") return left.reduce((found, one, id) => (one > left[found]! ? id : found), 0);
    // The first token whose cumulative probability, in the order of ids, exceeds the random number.
    const shares = exponentials(left);
    const sums = new Float64Array(shares.length);
    const all = shares.reduce((sum, one) => sum + one, 0);
    let total = 0;
    for (let id = 0; id < shares.length; id++) sums[id] = total += shares[id]! / all;
    const draw = random.random() * total;
    return sums.findIndex((sum) => sum > draw);
  };
}

function exponentials(logits: Float32Array): Float64Array {
  const largest = logits.reduce((most, one) => Math.max(most, one), -Infinity);
  return Float64Array.from(logits, (one) => Math.exp(one - largest));
}
