/**
 * What the page asks of an engine. The local server is one; `plugins/explorer/_engine.py` has the same in Python.
 *
 * A tensor, or a part of one, has an address: the name of a hook point or weight, and, in brackets, one index for each
 * of its axes: a number takes that entry and drops the axis, `:` keeps it all, `2:5` a part. Axes that are left out are
 * kept. Hook points have no batch axis here. `blocks.4.attn.hook_q[13,1]` is [d_head], `blocks.4.attn.W_Q[1,:,5]` is
 * [d_model].
 */

/** A model that can be opened. */
export interface ModelName {
  name: string;
  isOpen: boolean;
}

export interface Axis {
  name: string;
  size: number | null; // null for the axes that count positions
}

export interface HookPoint {
  name: string;
  axes: Axis[];
  meaning: string;
}

export interface Weight {
  name: string;
  shape: number[];
}

/** A normalisation that reads the residual stream; see `Normalization` in Python. */
export interface Normalization {
  reads: string;
  kind: "LN" | "RMS";
  eps: number;
}

/** A plugin: a sampler or a visualizer. `options` is a JSON schema. */
export interface PluginFacts {
  name: string;
  summary: string;
  options: Record<string, unknown>;
}

/** An open model: everything that does not depend on a text. */
export interface Model {
  name: string;
  provider: string;
  examples: string[]; // texts to begin with
  cfg: Record<string, number | string | boolean | null> & {
    n_layers: number;
    n_heads: number;
    n_key_value_heads: number | null;
    d_model: number;
    d_head: number;
    d_mlp: number;
    d_vocab: number;
    n_ctx: number;
    act_fn: string;
    gated_mlp: boolean;
  };
  hook_points: HookPoint[];
  weights: Weight[];
  normalizations: Record<string, Normalization>;
  residual_stream: { parts: string[]; states: string[] };
  has_gradients: boolean;
  samplers: PluginFacts[];
  visualizers: PluginFacts[];
}

export interface Token {
  id: number;
  label: string; // its text, with bytes that are no whole letter as escapes
  bytes: string; // in hexadecimal
}

/** One step of byte-pair encoding: a pair of pieces became one. Bytes are in hexadecimal. */
export interface Merge {
  rank: number;
  pair: [string, string];
  pieces: string[];
}

/** A word, as the tokenizer cuts a text before it merges. `merges` is null where the tokenizer has none. */
export interface Word {
  text: string;
  tokens: number[]; // places in `Tokenization.tokens`
  merges: Merge[] | null;
}

export interface Tokenization {
  tokens: Token[];
  words: Word[];
  limit: number; // of tokens
}

/**
 * An intervention, as `Intervention.to_dict` writes it; or one whose value comes from runs: that of `text` at the same
 * hook point, less that of `minus`, at `position` (counted from the end if negative) or at all positions.
 */
export interface Edit {
  hook: string;
  operation: "zero" | "scale" | "mean" | "replace" | "patch" | "add" | "freeze";
  heads?: number | number[];
  positions?: number | number[] | string;
  neurons?: number | number[];
  keys?: number | number[];
  factor?: number;
  value?: number | unknown[];
  from?: { text?: string; ids?: number[]; minus?: string; position?: number };
}

/** A text, or its token ids; in a model, or the one that is open first; with edits. */
export interface TextRequest {
  model?: string;
  text?: string;
  ids?: number[];
  edits?: Edit[];
}

/**
 * Reads are addresses of hook points and weights (globs without brackets, too), and these:
 *
 * - `next`: `next.logits` [V], `next.ids` [20 or `top`], the most probable first
 * - `guesses`: the logit lens: `guesses.ids` and `guesses.probabilities` [states, P, top], or [states, n, top] at the n
 *   `positions` of the request; `states` in the facts
 * - `effects`: `effects.heads` [L, H], `effects.mlps` [L]; the rest in the facts
 * - `sources`: `sources` [L, H, P], the direct effect of each head through each token
 * - `ranks`: `ranks` [states], the rank of the answer at `position` in each state, 0 for the most probable token, and
 *   `ranks.probabilities` [states]
 * - `norms`: `norms` [states, P], the length of the residual stream
 * - `surprisal`: `surprisal` [P - 1] in nats, `surprisal.ranks` [P - 1], of each token but the first
 * - `neurons`: `neurons` [L, d_mlp], the direct effect of each neuron
 * - `chain`: the sampler chain, stage by stage; see `Chain` in the facts
 * - `unembedded`: for each of `directions`, the tokens that it promotes and suppresses most; see `Promoted`
 * - `gradient`: gradient × input of each token, [P], where the bundle has gradients
 * - `edits`: the edits with all their values, as `onnxlens predict --intervene` reads them; `edits` in the facts
 * - `costs`: time, bytes and multiply-adds of each part; see `Cost` in the facts
 */
export interface RunRequest extends TextRequest {
  reads: string[];
  position?: number; // the one that predicts; negative ones count from the end
  positions?: number[]; // at which `guesses` are computed; all where it is left out
  token?: number | null; // the answer; null for the most probable one
  against?: number | null; // null for the most probable token that is another word
  top?: number;
  sampler?: string; // the chain of `chain`
  seed?: number;
  directions?: string[]; // addresses of vectors [d_model]
}

export interface Tensor {
  shape: number[];
  data: Float32Array | Int32Array;
}

/** One stage of a sampler chain, with the tokens that matter: the most probable before all stages and after them. */
export interface Stage {
  sampler: string;
  tokens: number; // that remain
  removed_tokens: number;
  removed: number; // the probability of these before
  moved: number; // total variation distance
  candidates: { id: number; logit: number | null; before: number; after: number }[]; // null: ruled out
}

/** How the next token is drawn. */
export interface Chain {
  logits: { id: number; logit: number }[]; // the model's, of the same tokens
  stages: Stage[];
  choice: string | null; // the sampler that chose; null where a single token was left
  tokens: number; // that could be chosen
  token: number; // the chosen one
  probability: number;
  model_probability: number;
  number: number | null; // the random number, where the choice is a draw by one
  interval: [number, number]; // the cumulative probability before and after the token, in the order of ids
  seed: number;
}

export interface Promoted {
  direction: string;
  most: { id: number; logit: number }[];
  least: { id: number; logit: number }[];
}

/** What one part of the model costs at this length. */
export interface Cost {
  part: string; // such as `blocks.0.attn`
  parameters: number; // those that an earlier part shares count there
  bytes: number; // of these, in float32
  multiply_adds: number; // of all positions; the unembedding's of the last one
  multiply_adds_cached: number; // of one more token with the KV cache
  seconds: number | null; // in the fastest of several passes; null where it cannot be measured
}

export interface RunFacts {
  tokens: Token[];
  position: number;
  token: number;
  against: number;
  labels: Record<string, string>; // of all token ids in the answer
  states?: string[];
  effects?: { embed: number; pos_embed: number; biases: number; change: number; logit: number };
  chain?: Chain;
  promoted?: Promoted[];
  edits?: Record<string, unknown>[];
  /** `times`: how many passes were measured, of which the fastest counts. */
  costs?: { parts: Cost[]; seconds: number; kv_cache_bytes: number; seconds_cached: number | null; times: number };
}

export interface Answer<Facts> {
  facts: Facts;
  arrays: Record<string, Tensor>;
}

/**
 * A sweep over a model:
 *
 * - `ablate_heads`: `effects` [L, H], the metric with all heads less that without this one
 * - `ablate_mlps`: `effects` [L]
 * - `patch_resid_pre`, `patch_attn_out`, `patch_mlp_out`: `effects` [L, P], the share of the metric that the value of
 *   `text` restores in `other`: 0 for none, 1 for all
 * - `patch_heads`: `effects` [L, H], likewise
 * - `head_scores`: `induction`, `previous_token`, `duplicate_token`, `distance`, `entropy`, each [L, H]
 */
export interface SweepRequest extends TextRequest {
  kind: "ablate_heads" | "ablate_mlps" | "patch_resid_pre" | "patch_attn_out" | "patch_mlp_out" | "patch_heads" | "head_scores";
  other?: string; // the corrupted text
  layers?: number[]; // to measure, so that a long sweep can be asked for in parts: the rows of `effects`; without it all
  token?: number | null;
  against?: number | null;
}

export interface SweepFacts {
  token: number;
  against: number | null;
  baseline: number | null;
  corrupted?: number;
}

export interface ContinueRequest extends TextRequest {
  max_new_tokens?: number;
  temperature?: number;
  top_k?: number | null;
  top_p?: number | null;
  sampler?: string | null;
  seed?: number | null;
}

export interface Generated {
  id: number;
  text: string;
  label: string;
  logprob: number;
  seed: number;
}

/** A visualizer's page, for a frame of its own. */
export interface ViewRequest extends TextRequest {
  visualizer: string;
  options?: Record<string, unknown>;
}

/** What the page reads of each text. */
export const BOARD = ["next", "guesses", "effects", "sources"];

export interface Engine {
  models(): Promise<ModelName[]>; // the one to begin with comes first
  model(name?: string): Promise<Model>; // opens it if need be
  tokenize(request: { model?: string; text?: string; ids?: number[] }): Promise<Tokenization>;
  run(request: RunRequest, signal?: AbortSignal): Promise<Answer<RunFacts>>;
  sweep(request: SweepRequest, signal?: AbortSignal): Promise<Answer<SweepFacts>>;
  continue(request: ContinueRequest, signal?: AbortSignal): AsyncIterable<Generated>;
  view(request: ViewRequest, signal?: AbortSignal): Promise<string>; // HTML
}

/** An error whose text is a sentence for the reader. */
export class EngineError extends Error {}

/** A newer request of this tab came first, or the run was cancelled: nothing to show. */
export class Superseded extends EngineError {}
