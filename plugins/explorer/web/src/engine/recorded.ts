import { t } from "../lang/index.svelte";
import { parseAddress, type Index } from "../lib/address";
import { shell } from "../lib/edits";
import { parse } from "./safetensors";
import {
  EngineError,
  type Answer,
  type Edit,
  type Engine,
  type Generated,
  type Model,
  type ModelName,
  type Promoted,
  type RunFacts,
  type RunRequest,
  type SweepFacts,
  type SweepRequest,
  type Tensor,
  type Tokenization,
} from "./types";

/** What `plugins/explorer/_recording.py` keeps of a text. */
export interface Recording {
  text: string;
  name: string;
  model: Model;
  tokenization: Tokenization;
  answers: Record<string, RunFacts>; // the arrays of an answer are named by its key
}

/** Answers that were recorded, in a file of their own. What was not recorded is an error that names the command that shows it. */
export class RecordedEngine implements Engine {
  constructor(
    private readonly recording: Recording,
    private readonly arrays: Record<string, Tensor>,
  ) {}

  async models(): Promise<ModelName[]> {
    return [{ name: this.recording.name, isOpen: true }];
  }

  async model(name?: string): Promise<Model> {
    if (name !== undefined && name !== this.recording.name) throw this.#missing();
    return this.recording.model;
  }

  async tokenize(request: { text?: string; ids?: number[] }): Promise<Tokenization> {
    const { tokenization, text } = this.recording;
    if (request.text === text || String(request.ids) === String(tokenization.tokens.map((token) => token.id))) return tokenization;
    // A token that an answer names can be told without a tokenizer.
    const [id] = request.ids ?? [];
    const label = id === undefined ? undefined : Object.values(this.recording.answers).map((facts) => facts.labels?.[id]).find((one) => one !== undefined);
    const named = request.text === undefined ? undefined : this.#named(request.text);
    if (named !== undefined) return { tokens: [named], words: [], limit: tokenization.limit };
    if (label === undefined || request.ids?.length !== 1) throw this.#missing();
    return { tokens: [{ id: id!, label, bytes: "" }], words: [], limit: tokenization.limit };
  }

  async run(request: RunRequest): Promise<Answer<RunFacts>> {
    const count = this.recording.tokenization.tokens.length;
    if (!this.#isText(request)) throw this.#missing();
    const position = request.position ?? -1;
    const key = `run|${request.edits?.length ? sortedJson(request.edits) : ""}|${position === count - 1 ? -1 : position}`;
    const facts = this.recording.answers[key];
    if (!facts || differs(request.token, facts.token) || differs(request.against, facts.against)) throw this.#missing();
    const found: Answer<RunFacts> = { facts: { ...facts }, arrays: {} };
    for (const read of request.reads) {
      if (read === "unembedded") {
        found.facts.promoted = (request.directions ?? []).map((one) => this.#promoted(one, found));
      } else if (this.#derived(key, read, request, found)) {
        continue;
      } else if (!request.edits?.length) {
        this.#tensors(read, found);
      } else throw this.#missing();
    }
    return found;
  }

  async sweep(request: SweepRequest): Promise<Answer<SweepFacts>> {
    const key = `sweep|${request.kind}`;
    const facts = this.recording.answers[key] as unknown as SweepFacts | undefined;
    const own = this.recording.answers["run||-1"]!;
    const isOwn = request.kind === "head_scores" || (request.token === own.token && request.against === own.against);
    if (!facts || request.edits?.length || !this.#isText(request) || !isOwn) throw this.#missing();
    const { layers } = request;
    const arrays = this.#arraysOf(key);
    if (layers) for (const [name, tensor] of Object.entries(arrays)) arrays[name] = cut(tensor, [{ from: layers[0]!, to: layers.at(-1)! + 1 }]);
    return { facts, arrays };
  }

  async *continue(): AsyncIterable<Generated> {
    throw this.#missing();
  }

  async view(): Promise<string> {
    throw this.#missing();
  }

  #isText(request: { text?: string; ids?: number[]; model?: string }): boolean {
    const { text, tokenization, name } = this.recording;
    if (request.model !== undefined && request.model !== name) return false;
    return request.ids ? String(request.ids) === String(tokenization.tokens.map((token) => token.id)) : request.text === text;
  }

  #arraysOf(key: string): Record<string, Tensor> {
    const start = `${key}|`;
    return Object.fromEntries(Object.entries(this.arrays).filter(([name]) => name.startsWith(start)).map(([name, tensor]) => [name.slice(start.length), tensor]));
  }

  /** Adds the arrays of a derived value; says whether there are any. */
  #derived(key: string, read: string, request: RunRequest, found: Answer<RunFacts>): boolean {
    const own = this.#arraysOf(key);
    const names = Object.keys(own).filter((name) => name === read || name.startsWith(`${read}.`) || (read === "effects" && name.startsWith("effects.")));
    for (const name of names) found.arrays[name] = read === "guesses" && request.positions ? rows(own[name]!, request.positions) : own[name]!;
    return names.length > 0;
  }

  #tensors(read: string, found: Answer<RunFacts>): void {
    const address = parseAddress(read);
    if (!address) throw this.#missing();
    const pattern = new RegExp(`^${address.name.replace(/[.+^${}()|\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".")}$`);
    const points = this.recording.model.hook_points.map((point) => point.name).filter((name) => pattern.test(name));
    if (address.name === "logits") return this.#logits(read, address.indices, found);
    if (!points.length) throw this.#missing();
    for (const name of points) {
      const tensor = this.arrays[`tensor|${name}`];
      if (!tensor) throw this.#missing();
      found.arrays[address.indices.length ? read : name] = cut(tensor, address.indices);
    }
  }

  /** The logits of a position, which its board has. */
  #logits(read: string, [position, ...rest]: Index[], found: Answer<RunFacts>): void {
    const count = this.recording.tokenization.tokens.length;
    const logits = typeof position === "number" ? this.arrays[`run||${position === count - 1 ? -1 : position}|next.logits`] : undefined;
    if (!logits) throw this.#missing();
    found.arrays[read] = cut(logits, rest);
  }

  #promoted(direction: string, found: Answer<RunFacts>): Promoted {
    const facts = this.recording.answers["promoted"];
    const one = facts?.promoted?.find((each) => each.direction === direction);
    if (!one) throw this.#missing();
    found.facts.labels = { ...found.facts.labels, ...facts!.labels };
    return one;
  }

  #named(text: string): { id: number; label: string; bytes: string } | undefined {
    for (const facts of Object.values(this.recording.answers))
      for (const [id, label] of Object.entries(facts.labels ?? {})) if (label === text) return { id: Number(id), label, bytes: "" };
    return undefined;
  }

  #missing(): EngineError {
    const { name, text } = this.recording;
    return new EngineError(t("not-recorded", { command: `onnxlens explore -m ${shell(name)} ${shell(text)}` }));
  }
}

const differs = (asked: number | null | undefined, recorded: number) => asked !== null && asked !== undefined && asked !== recorded;

/** Edits as Python's `json.dumps(..., sort_keys=True)` writes them. */
function sortedJson(edits: readonly Edit[]): string {
  return JSON.stringify(edits.map((edit) => Object.fromEntries(Object.entries(edit).filter(([, value]) => value !== undefined).sort(([a], [b]) => (a < b ? -1 : 1)))));
}

/** Some positions of guesses [states, P, top]. */
function rows(tensor: Tensor, positions: readonly number[]): Tensor {
  const [states, count, top] = tensor.shape as [number, number, number];
  const data = tensor.data.slice(0, states * positions.length * top);
  for (let state = 0; state < states; state++)
    for (const [place, position] of positions.entries())
      for (let one = 0; one < top; one++) data[(state * positions.length + place) * top + one] = tensor.data[(state * count + position) * top + one]!;
  return { shape: [states, positions.length, top], data };
}

/** The part of a tensor that an address names. */
export function cut(tensor: Tensor, indices: readonly Index[]): Tensor {
  const { shape, data } = tensor;
  const kept: number[] = [];
  let places: number[] = [0]; // of the entries taken so far, as offsets
  for (const [axis, size] of shape.entries()) {
    const index = indices[axis];
    const [from, to] = index === undefined ? [0, size] : typeof index === "number" ? [index, index + 1] : [index.from ?? 0, Math.min(size, index.to ?? size)];
    if (from >= size || to > size) throw new EngineError(`Place ${from} is outside of an axis of ${size} entries.`);
    places = places.flatMap((place) => Array.from({ length: to - from }, (_, step) => place * size + from + step));
    if (typeof index !== "number") kept.push(to - from);
  }
  const taken = data instanceof Float32Array ? Float32Array.from(places, (place) => data[place]!) : Int32Array.from(places, (place) => data[place]!);
  return { shape: kept, data: taken };
}

/** The engine of a saved page; null where the page is not a saved one. */
export async function recordedEngine(): Promise<RecordedEngine | null> {
  const facts = document.getElementById("recording")?.textContent;
  const packed = document.getElementById("recorded-arrays")?.textContent;
  if (!facts || !packed) return null;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { arrays } = parse<unknown>(await new Response(stream).arrayBuffer());
  return new RecordedEngine(JSON.parse(facts) as Recording, arrays);
}
