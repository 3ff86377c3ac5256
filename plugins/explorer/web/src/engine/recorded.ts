import { t } from "../lang/index.svelte";
import { fits, parseAddress, type Index } from "../lib/address";
import { shell } from "../lib/edits";
import { bytesOf } from "../lib/letters";
import { cut } from "../lib/tensors";
import { parse } from "./safetensors";
import {
  EngineError,
  type Answer,
  type ContinueRequest,
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
  type Token,
  type Tokenization,
  type ViewRequest,
} from "./types";

/** What `plugins/explorer/_recording.py` keeps of a text. */
export interface Recording {
  text: string;
  name: string;
  model: Model;
  tokenization: Tokenization;
  answers: Record<string, RunFacts>; // the arrays of an answer are named by its key
  continuation: { tokens: Generated[]; is_ended: boolean }; // the greedy one
  left_out: string[]; // what was too large
}

const TOP = 5; // guesses that are recorded, and that a request without `top` wants
const TOP_NEXT = 20; // tokens that `next` always names

/** Answers that were recorded, in a file of their own. What was not recorded is an error that names the command that shows it. */
export class RecordedEngine implements Engine {
  readonly #ids: number[];

  constructor(
    readonly recording: Recording,
    private readonly arrays: Record<string, Tensor>,
  ) {
    this.#ids = recording.tokenization.tokens.map((token) => token.id);
  }

  async models(): Promise<ModelName[]> {
    return [{ name: this.recording.name, isOpen: true }];
  }

  async model(name?: string): Promise<Model> {
    if (name !== undefined && name !== this.recording.name) throw this.#missing({ model: name });
    return this.recording.model;
  }

  async tokenize(request: { model?: string; text?: string; ids?: number[] }): Promise<Tokenization> {
    const { tokenization } = this.recording;
    if (this.#isOpen(request) && this.#isOwn(request)) return tokenization;
    // A token that an answer names can be told without a tokenizer.
    const one = !this.#isOpen(request) ? undefined : request.ids ? (request.ids.length === 1 ? this.#named(request.ids[0]!) : undefined) : this.#namedAs(request.text!);
    if (one === undefined) throw this.#missing(request);
    return { tokens: [one], words: [], limit: tokenization.limit };
  }

  async run(request: RunRequest): Promise<Answer<RunFacts>> {
    const edits = request.edits ?? [];
    const isOwn = this.#isOwn(request);
    const count = isOwn ? this.#ids.length : (request.ids?.length ?? 0);
    const asked = request.position ?? -1;
    const position = asked === count - 1 ? -1 : asked < -1 ? asked + count : asked;
    const key = `run|${isOwn ? "" : (request.ids ?? []).join(".")}|${edits.length ? sortedJson(edits) : ""}|${position}`;
    const facts = (isOwn || request.ids) && this.#isOpen(request) ? this.recording.answers[key] : undefined;
    if (!facts || differs(request.token, facts.token) || differs(request.against, facts.against)) throw this.#missing(request);
    // Edits were recorded for the pair of the text without them; what is most probable with them is another question.
    if (edits.length && (request.token == null || request.against == null)) throw this.#missing(request);
    const found: Answer<RunFacts> = { facts: { ...facts }, arrays: {} };
    for (const read of request.reads) {
      if (read === "unembedded") found.facts.promoted = (request.directions ?? []).map((one) => this.#promoted(one, found, request));
      else if (read === "chain") this.#chain(key, found, request);
      else if (read === "edits") found.facts.edits = facts.edits ?? (edits.length ? this.#fail(request) : []);
      else if (this.#derived(key, read, request, found)) continue;
      else if (isOwn && !edits.length) this.#tensors(read, found, request);
      else throw this.#missing(request);
    }
    return found;
  }

  async sweep(request: SweepRequest): Promise<Answer<SweepFacts>> {
    const key = `sweep|${request.kind}`;
    const facts = this.recording.answers[key] as unknown as SweepFacts | undefined;
    const board = this.recording.answers["run|||-1"]!;
    const isAsked = request.kind === "head_scores" || (request.token === board.token && request.against === board.against);
    if (!facts || request.edits?.length || !this.#isOpen(request) || !this.#isOwn(request) || !isAsked) throw this.#missing(request);
    const arrays = this.#arraysOf(key);
    const { layers } = request;
    if (layers) for (const [name, tensor] of Object.entries(arrays)) arrays[name] = cut(tensor, [{ from: layers[0]!, to: layers.at(-1)! + 1 }]);
    return { facts, arrays };
  }

  /** The greedy continuation, as far as it was recorded. */
  async *continue(request: ContinueRequest): AsyncIterable<Generated> {
    const { tokens, is_ended } = this.recording.continuation;
    const isGreedy = request.sampler === "greedy" || (request.sampler == null && request.temperature === 0);
    const whole = [...this.#ids, ...tokens.map((token) => token.id)];
    const ids = this.#isOwn(request) ? this.#ids : (request.ids ?? []);
    const isPart = ids.length >= this.#ids.length && ids.every((id, place) => id === whole[place]);
    if (!isGreedy || !isPart || request.edits?.length || !this.#isOpen(request)) throw this.#missing(request);
    const wanted = request.max_new_tokens ?? 1;
    const given = tokens.slice(ids.length - this.#ids.length, ids.length - this.#ids.length + wanted);
    yield* given;
    if (given.length < wanted && !is_ended) throw this.#missing({ ids: [...ids, ...given.map((token) => token.id)] });
  }

  async view(request: ViewRequest): Promise<string> {
    throw this.#missing(request);
  }

  #isOpen(request: { model?: string }): boolean {
    return request.model === undefined || request.model === this.recording.name;
  }

  /** Whether this is the recorded text. */
  #isOwn(request: { text?: string; ids?: number[] }): boolean {
    return request.ids ? String(request.ids) === String(this.#ids) : request.text === this.recording.text;
  }

  #arraysOf(key: string): Record<string, Tensor> {
    const start = `${key}|`;
    return Object.fromEntries(Object.entries(this.arrays).filter(([name]) => name.startsWith(start)).map(([name, tensor]) => [name.slice(start.length), tensor]));
  }

  /** Adds the arrays of a derived value; says whether there are any. */
  #derived(key: string, read: string, request: RunRequest, found: Answer<RunFacts>): boolean {
    const own = this.#arraysOf(key);
    const names = Object.keys(own).filter((name) => name === read || name.startsWith(`${read}.`) || (read === "effects" && name.startsWith("effects.")));
    const top = request.top ?? TOP;
    if (names.length && ((read === "guesses" && top > TOP) || (read === "next" && top > TOP_NEXT))) throw this.#missing(request);
    for (const name of names) found.arrays[name] = read === "guesses" ? guesses(own[name]!, request.positions, top) : own[name]!;
    return names.length > 0;
  }

  #tensors(read: string, found: Answer<RunFacts>, request: RunRequest): void {
    const address = parseAddress(read);
    if (!address) throw this.#missing(request);
    const { hook_points, weights } = this.recording.model;
    const points = hook_points.map((point) => point.name).filter((name) => fits(address.name, name));
    if (address.name === "logits") return this.#logits(read, address.indices, found, request);
    const names = points.length ? points : weights.map((one) => one.name).filter((name) => name === address.name);
    if (!names.length) throw this.#missing(request);
    for (const name of names) {
      const tensor = this.arrays[`tensor|${name}`];
      if (!tensor) throw this.#missing(request);
      found.arrays[name === address.name ? read : name] = cut(tensor, address.indices);
    }
  }

  /** The logits of a position, which its board has. */
  #logits(read: string, [position, ...rest]: Index[], found: Answer<RunFacts>, request: RunRequest): void {
    const logits = typeof position === "number" ? this.arrays[`run|||${position === this.#ids.length - 1 ? -1 : position}|next.logits`] : undefined;
    if (!logits) throw this.#missing(request);
    found.arrays[read] = cut(logits, rest);
  }

  #chain(key: string, found: Answer<RunFacts>, request: RunRequest): void {
    const facts = key === "run|||-1" ? this.recording.answers[`chain|${request.sampler}|${request.seed}|${request.top ?? TOP}`] : undefined;
    if (!facts?.chain) throw this.#missing(request);
    found.facts.chain = facts.chain;
    found.facts.labels = { ...found.facts.labels, ...facts.labels };
  }

  #promoted(direction: string, found: Answer<RunFacts>, request: RunRequest): Promoted {
    const facts = request.edits?.length || !this.#isOwn(request) ? undefined : this.recording.answers["promoted"];
    const one = facts?.promoted?.find((each) => each.direction === direction);
    if (!one) throw this.#missing(request);
    found.facts.labels = { ...found.facts.labels, ...facts!.labels };
    return one;
  }

  /** A token that the recording has, by its id. */
  #named(id: number): Token | undefined {
    const own = this.recording.tokenization.tokens.find((token) => token.id === id);
    const label = Object.values(this.recording.answers).map((facts) => facts.labels?.[id]).find((one) => one !== undefined);
    return own ?? (label === undefined ? undefined : { id, label, bytes: hex(label) });
  }

  /** A token that the recording has, by its text. */
  #namedAs(text: string): Token | undefined {
    for (const facts of Object.values(this.recording.answers))
      for (const [id, label] of Object.entries(facts.labels ?? {})) if (label === text) return this.#named(Number(id));
    return this.recording.tokenization.tokens.find((token) => token.label === text);
  }

  /** The text of a request; that of the recording where its ids are not known here. */
  #textOf(request: { text?: string; ids?: number[] }): string {
    if (request.text !== undefined) return request.text;
    if (!request.ids || this.#isOwn(request)) return this.recording.text;
    const known = new Map<number, string>();
    for (const token of this.recording.continuation.tokens) known.set(token.id, hex(token.text));
    for (const token of this.recording.tokenization.tokens) known.set(token.id, token.bytes);
    const bytes = request.ids.map((id) => known.get(id));
    if (bytes.includes(undefined)) return this.recording.text;
    return new TextDecoder().decode(bytesOf(bytes.join("")));
  }

  /** The error for what was not recorded: it names the command that shows it. */
  #missing(request: { model?: string; text?: string; ids?: number[]; edits?: Edit[] }): EngineError {
    const edits = request.edits?.length ? ` --edits ${shell(JSON.stringify(request.edits))}` : "";
    const text = this.#textOf(request);
    const command = `onnxlens explore -m ${shell(request.model ?? this.recording.name)}${edits} ${text.startsWith("-") ? "-- " : ""}${shell(text)}`;
    return new EngineError(t("not-recorded", { command }));
  }

  #fail(request: RunRequest): never {
    throw this.#missing(request);
  }
}

const hex = (text: string) => Array.from(new TextEncoder().encode(text), (byte) => byte.toString(16).padStart(2, "0")).join("");

const differs = (asked: number | null | undefined, recorded: number) => asked !== null && asked !== undefined && asked !== recorded;

/** Edits as Python's `json.dumps(..., sort_keys=True)` writes them. */
function sortedJson(edits: readonly Edit[]): string {
  return JSON.stringify(edits.map((edit) => Object.fromEntries(Object.entries(edit).filter(([, value]) => value !== undefined).sort(([a], [b]) => (a < b ? -1 : 1)))));
}

/** Some positions, and the first of the candidates, of guesses [states, P, top]. */
function guesses(tensor: Tensor, positions: readonly number[] | undefined, top: number): Tensor {
  const [states, count, most] = tensor.shape as [number, number, number];
  const places = positions ?? Array.from({ length: count }, (_, place) => place);
  const outside = places.find((place) => !(place >= 0 && place < count));
  if (outside !== undefined) throw new EngineError(t("outside", { index: outside, size: count }));
  const taken = Array.from({ length: states }, (_, state) => places.map((place) => Array.from({ length: top }, (_, one) => tensor.data[(state * count + place) * most + one]!))).flat(2);
  return { shape: [states, places.length, top], data: tensor.data instanceof Float32Array ? Float32Array.from(taken) : Int32Array.from(taken) };
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
