import type { Model, SweepFacts, Tensor } from "../types";

/** How a weight lies in a stored tensor; null for a weight of zeros that is not stored. See `WeightView` in Python. */
export interface WeightView {
  tensor: string | null;
  shape: number[];
  slice?: [axis: number, start: number, end: number];
  reshape?: number[];
  transpose?: number[];
}

/** What a part of the model has, for a text of any length; see `cost_parts` in Python. */
export interface CostPart {
  part: string;
  parameters: number;
  bytes: number;
  multiply_adds: number; // of its matrices, for a token
  of: "all" | "last" | "none"; // the tokens that these are for
  width: number; // of the attention's heads
}

/** What `plugins/explorer/_site.py` writes of a model besides its files and `Model`. */
export interface Details {
  weights: Record<string, WeightView>;
  hash: string; // of the model, which values that are taken along name as their source
  changeable: string[]; // hook points that the graph changes, in the order of its inputs
  final: string; // the hook point that the final normalisation reads
  products: Record<string, { activation: string; weight: string }>; // hook points that are computed on request
  costs: CostPart[];
  caches: string[]; // inputs of the KV cache
  key_value_heads: number;
  labels: string[]; // of all tokens, for a reader
  bytes: string[]; // of all tokens, in hexadecimal
  ends: number[]; // ids of tokens that end a text
  start: number | null; // the token from which an empty text starts
  scores: { facts: SweepFacts; arrays: Record<string, { shape: number[]; data: number[] }> }; // of heads, on random tokens
  files: Record<string, { size: number; sha256: string }>;
}

export interface SiteModel extends Details {
  model: Model;
}

/** What the page has of a site. */
export interface Site {
  /** The one to begin with comes first; `size` of all files, in bytes; `boards`: the texts whose boards are in the site. */
  models: { name: string; path: string; size: number; boards: string[] }[];
}

/** Tensors as the files of a site have them. */
export const tensorOf = ({ shape, data }: { shape: number[]; data: number[] }): Tensor => ({ shape, data: Float32Array.from(data) });
