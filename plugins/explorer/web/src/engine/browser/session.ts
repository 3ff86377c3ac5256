import * as ort from "onnxruntime-web/wasm";
import { EngineError, type Tensor } from "../types";
import type { SiteModel } from "./site";

/** How the elements of a hook point are changed: x becomes `factor` x + `value` where `where` is 1. [1, ...] */
export interface Change {
  shape: number[];
  where: Uint8Array;
  factor: Float32Array;
  value: Float32Array;
}

export type Changes = Map<string, Change>;
export type Cache = Record<string, ort.Tensor>;

const DATA = "model.onnx_data";
const WASM = () => new URL("../../../node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm", import.meta.url);

/** The graphs of a model: up to the final residual stream; from it to logits; and that of the bundle's gradients, where there is one. */
export interface Graphs {
  whole: ArrayBuffer;
  lens: ArrayBuffer;
  gradients: ArrayBuffer | null;
}

/** A model's graphs in ONNX Runtime. That of the gradients is opened when it is first used. */
export class Session {
  #gradients: Promise<ort.InferenceSession> | null = null;

  private constructor(
    private readonly site: SiteModel,
    private readonly whole: ort.InferenceSession,
    private readonly lens: ort.InferenceSession,
    private readonly openGradients: () => Promise<ort.InferenceSession>,
  ) {}

  static async open(site: SiteModel, { whole, lens, gradients }: Graphs, data: ArrayBuffer): Promise<Session> {
    if (!ort.env.wasm.wasmBinary) ort.env.wasm.wasmPaths = { wasm: WASM().href };
    ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
    ort.env.logLevel = "error";
    const options: ort.InferenceSession.SessionOptions = {
      executionProviders: ["wasm"],
      // Half a gigabyte less for 124M parameters, and no slower: matrices are there once, and not packed as well.
      enableCpuMemArena: false,
      extra: { session: { disable_prepacking: "1" } },
      externalData: [{ path: DATA, data: new Uint8Array(data) }],
    };
    const create = (graph: ArrayBuffer) => ort.InferenceSession.create(new Uint8Array(graph), options);
    return new Session(site, await create(whole), await create(lens), () => create(gradients!));
  }

  /**
   * Runs tokens.
   *
   * @param ids the tokens
   * @param changes what to change
   * @param names hook points to read, without their batch axis; `present` ones as they are
   * @param past what an earlier run returned for the tokens before these
   */
  async run(ids: readonly number[], changes: Changes, names: readonly string[], past: Cache | null = null): Promise<{ read: Record<string, Tensor>; cache: Cache | null }> {
    const before = past ? past[this.site.caches[0]!]!.dims[2]! : 0;
    const feeds = text(ids, before);
    const { key_value_heads: heads, model } = this.site;
    for (const name of this.site.caches) feeds[name] = past?.[name] ?? new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, model.cfg.d_head]);
    for (const [index, name] of this.site.changeable.entries()) {
      const axes = model.hook_points.find((point) => point.name === name)!.axes.length + 1;
      const { where, factor, value, shape } = changes.get(name) ?? { ...NEUTRAL, shape: Array<number>(axes).fill(1) };
      feeds[`edit.${index}.where`] = new ort.Tensor("bool", where, shape);
      feeds[`edit.${index}.factor`] = new ort.Tensor("float32", factor, shape);
      feeds[`edit.${index}.value`] = new ort.Tensor("float32", value, shape);
    }
    const wanted = new Set(this.whole.inputNames);
    const outputs = await this.whole.run(Object.fromEntries(Object.entries(feeds).filter(([name]) => wanted.has(name))), [...names]);
    const read: Record<string, Tensor> = {};
    const cache: Cache = {};
    for (const name of names) {
      const found = outputs[name]!;
      if (name.startsWith("present.")) cache[name.replace("present", "past_key_values")] = found;
      else read[name] = { shape: found.dims.slice(1), data: found.data as Float32Array };
    }
    return { read, cache: Object.keys(cache).length ? cache : null };
  }

  /** What the final normalisation and the unembedding make of states [n, d_model]: logits [n, d_vocab], or hook points. */
  async unembedded(states: Tensor, names: readonly string[] = ["logits"]): Promise<Record<string, Tensor>> {
    const [count, width] = states.shape as [number, number];
    const fed = new ort.Tensor("float32", states.data as Float32Array, [1, count, width]);
    const outputs = await this.lens.run({ [this.site.final]: fed }, [...names]);
    return Object.fromEntries(names.map((name) => [name, { shape: outputs[name]!.dims.slice(1), data: outputs[name]!.data as Float32Array }]));
  }

  /**
   * The gradient of a logit difference at a position by the token embeddings, times these, for each token: [P].
   * `cotangents` are token ids with the derivatives by their logits there.
   */
  async gradientTimesInput(ids: readonly number[], position: number, cotangents: readonly (readonly [id: number, derivative: number])[]): Promise<Tensor> {
    this.#gradients ??= this.openGradients().catch((error) => {
      this.#gradients = null; // so that another request tries again
      throw error;
    });
    const { d_vocab, d_model } = this.site.model.cfg;
    const byLogits = new Float32Array(ids.length * d_vocab);
    for (const [id, one] of cotangents) byLogits[position * d_vocab + id]! += one;
    const feeds = { ...text(ids, 0), "grad.logits": new ort.Tensor("float32", byLogits, [1, ids.length, d_vocab]) };
    const found = await (await this.#gradients).run(feeds, ["hook_embed", "grad.hook_embed"]);
    const [embedded, gradients] = ["hook_embed", "grad.hook_embed"].map((name) => found[name]!.data as Float32Array);
    const products = ids.map((_, place) => {
      let total = 0;
      for (let entry = place * d_model; entry < (place + 1) * d_model; entry++) total += embedded![entry]! * gradients![entry]!;
      return total;
    });
    return { shape: [ids.length], data: Float32Array.from(products) };
  }

  /** Names of the outputs that continue a text. */
  get presents(): string[] {
    return this.site.caches.map((name) => name.replace("past_key_values", "present"));
  }
}

/** The inputs that all graphs have: tokens after `before` others. */
function text(ids: readonly number[], before: number): Record<string, ort.Tensor> {
  const count = ids.length;
  const whole = (values: readonly number[]) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, count]);
  return {
    input_ids: whole(ids),
    attention_mask: new ort.Tensor("int64", new BigInt64Array(before + count).fill(1n), [1, before + count]),
    position_ids: whole(ids.map((_, place) => before + place)),
  };
}

const NEUTRAL = { where: new Uint8Array(1), factor: new Float32Array([1]), value: new Float32Array(1) };

/** Uses the WebAssembly of a page that has it inside. */
export function useWasm(binary: ArrayBuffer): void {
  ort.env.wasm.wasmBinary = binary;
}

/** An error of ONNX Runtime as a sentence. */
export function failed(error: unknown): EngineError {
  const text = error instanceof Error ? error.message : String(error);
  const isMemory = /memory|bad_alloc|allocation/i.test(text);
  return new EngineError(isMemory ? "The browser has no more memory for this model; close other tabs, or use a shorter text." : `ONNX Runtime could not compute this: ${text.slice(0, 200)}`);
}
