/** What the page asks of an engine. The local server is one; `plugins/explorer/_engine.py` has the same in Python. */

export interface Model {
  name: string;
  provider: string;
  cfg: Record<string, number | string | boolean | null>;
  hook_points: { name: string; axes: string[]; meaning: string }[];
}

export interface Token {
  id: number;
  label: string;
  bytes: string;
}

/** An intervention, as `Intervention.to_dict` writes it. */
export interface Edit {
  hook: string;
  operation: "zero" | "scale" | "mean" | "replace" | "patch" | "add" | "freeze";
  heads?: number | number[];
  positions?: number | number[];
  factor?: number;
}

export interface RunRequest {
  text?: string;
  ids?: number[];
  reads: string[];
  edits?: Edit[];
  position?: number;
  token?: number | null;
  against?: number | null;
  top?: number;
}

export interface Tensor {
  shape: number[];
  data: Float32Array | Int32Array;
}

export interface RunFacts {
  tokens: Token[];
  position: number;
  token: number;
  against: number;
  labels: Record<string, string>;
  states?: string[];
  effects?: { embed: number; pos_embed: number; biases: number; change: number; logit: number };
}

export interface Answer<Facts> {
  facts: Facts;
  arrays: Record<string, Tensor>;
}

export interface ContinueRequest {
  text?: string;
  ids?: number[];
  edits?: Edit[];
  max_new_tokens?: number;
  temperature?: number;
  top_k?: number | null;
  top_p?: number | null;
  seed?: number | null;
}

export interface Generated {
  id: number;
  text: string;
  label: string;
  logprob: number;
  seed: number;
}

export interface Engine {
  models(): Promise<Model[]>;
  tokenize(text: string): Promise<{ tokens: Token[]; limit: number }>;
  run(request: RunRequest, signal?: AbortSignal): Promise<Answer<RunFacts>>;
  sweep(request: Omit<RunRequest, "reads" | "top" | "position">): Promise<Answer<{ baseline: number; token: number }>>;
  continue(request: ContinueRequest): AsyncIterable<Generated>;
}

/** An error whose text is a sentence for the reader. */
export class EngineError extends Error {}

/** A newer request of this tab came first, or the run was cancelled: nothing to show. */
export class Superseded extends EngineError {}
