import { fits, parseAddress, type Address, type Index } from "../../lib/address";
import { argmax, largest } from "../../lib/arithmetic/largest";
import { stateNames } from "../../lib/guesses";
import { softmax } from "../../lib/numbers";
import { cut } from "../../lib/tensors";
import { lengthOf } from "../../lib/vectors";
import { EngineError, type Answer, type ContinueRequest, type Generated, type Model, type Promoted, type RunFacts, type RunRequest, type SweepFacts, type SweepRequest, type Tensor, type TextRequest, type Tokenization } from "../types";
import { resolved, written, type Source } from "./edits";
import { Random } from "./random";
import { chosen, explained, samplersOf } from "./samplers";
import type { Cache, Changes, Session } from "./session";
import { tensorOf, type SiteModel } from "./site";
import type { Text } from "./text";
import type { Weights } from "./weights";

const DERIVED = ["next", "guesses", "effects", "sources", "ranks", "norms", "surprisal", "edits", "neurons", "chain", "unembedded", "gradient", "costs"];
const NEXT = 20, PROMOTED = 10, MOST_TOP = 1000;
const SOURCES = ["attn.hook_v", "attn.hook_pattern", "attn.hook_z"]; // what `sources` is computed from
const KEPT = 4; // runs whose values are kept
const TIMES = 3; // measurements, of which the fastest counts
const LOGITS = 2 ** 23; // numbers of logits that are computed at once

/** A run: its tokens and changes, and the values that have been read so far. */
interface Run {
  ids: readonly number[];
  changes: Changes;
  values: Record<string, Tensor>;
}

/** The answers of an open model, computed where the page is. */
export class Local {
  #runs = new Map<string, Run>();

  constructor(
    readonly site: SiteModel,
    private readonly text: Text,
    private readonly weights: Weights,
    private readonly session: Session,
  ) {}

  get model(): Model {
    return this.site.model;
  }

  tokenize(request: { text?: string; ids?: number[] }): Tokenization {
    const ids = this.#ids(request);
    return this.text.tokenization(request.text, ids);
  }

  async run(request: RunRequest): Promise<Answer<RunFacts>> {
    const top = request.top ?? 5;
    if (!(top >= 1 && top <= MOST_TOP)) throw new EngineError(`top must be from 1 to ${MOST_TOP}, not ${top}.`);
    const ids = this.#ids(request);
    const asked = request.position ?? -1;
    const position = asked < 0 ? asked + ids.length : asked;
    if (!(position >= 0 && position < ids.length)) throw new EngineError(`position must be from ${-ids.length} to ${ids.length - 1}, not ${asked}.`);
    const run = await this.#open(ids, request);
    await this.#values(run, this.#needed(request)); // all in one pass
    const found: Found = { request, ids, run, position, top, row: (await this.#logits(run, [position])).data as Float32Array, token: 0, against: 0, facts: {}, arrays: {}, named: new Set() };
    found.token = this.#token(request.token, argmax(found.row));
    found.against = this.#token(request.against, this.#rival(found.row, found.token));
    for (const read of request.reads) if (!DERIVED.includes(read)) await this.#take(read, found);
    for (const read of DERIVED) if (request.reads.includes(read)) await this.#derive(read, found);
    const labels = Object.fromEntries([found.token, found.against, ...found.named].sort((a, b) => a - b).map((id) => [id, this.text.label(id)]));
    const facts = { tokens: ids.map((id) => this.text.token(id)), position, token: found.token, against: found.against, labels, ...found.facts };
    return { facts, arrays: found.arrays };
  }

  async sweep(request: SweepRequest): Promise<Answer<SweepFacts>> {
    const ids = this.#ids(request);
    const { n_layers, n_heads } = this.model.cfg;
    const layers = request.layers ?? Array.from({ length: n_layers }, (_, layer) => layer);
    if (request.kind === "head_scores") return this.#scores(ids);
    const base = await this.#open(ids, request);
    const token = request.token ?? argmax((await this.#logits(base, [ids.length - 1])).data as Float32Array);
    const against = request.against ?? null;
    const metric = async (run: Run): Promise<number> => {
      const { data } = await this.#logits(run, [run.ids.length - 1]);
      if (against !== null) return data[token]! - data[against]!;
      return Math.log(softmax(data, 1)[token]!);
    };
    const own = request.edits ?? [];
    const clean = await metric(base);
    const edited = async (at: readonly number[], edit: NonNullable<TextRequest["edits"]>[number]) => metric(await this.#open(at, { edits: [...own, edit] }, false));
    const facts = { token, against, baseline: clean };
    const effects: number[] = [];
    if (request.kind === "ablate_heads" || request.kind === "ablate_mlps") {
      for (const layer of layers)
        if (request.kind === "ablate_mlps") effects.push(clean - (await edited(ids, { hook: `blocks.${layer}.hook_mlp_out`, operation: "zero" })));
        else for (let head = 0; head < n_heads; head++) effects.push(clean - (await edited(ids, { hook: `blocks.${layer}.attn.hook_z`, heads: head, operation: "zero" })));
      return { facts, arrays: { effects: { shape: request.kind === "ablate_mlps" ? [layers.length] : [layers.length, n_heads], data: Float32Array.from(effects) } } };
    }
    if (request.other === undefined) throw new EngineError(`The sweep '${request.kind}' needs another text, under 'other'.`);
    const other = this.text.encode(request.other);
    if (other.length !== ids.length) throw new EngineError(`Both texts must have as many tokens; the first has ${ids.length} and the other ${other.length}.`);
    const corrupted = await metric(await this.#open(other, { edits: own }));
    if (corrupted === clean) throw new EngineError(`Clean and corrupted text have the same metric, ${clean}: nothing can be restored.`);
    const same = ids.findIndex((id, place) => id !== other[place]); // before it, both runs are the same
    const isHead = request.kind === "patch_heads";
    const point = isHead ? "attn.hook_z" : `hook_${request.kind.slice("patch_".length)}`;
    for (const layer of layers) {
      const hook = `blocks.${layer}.${point}`;
      for (let place = 0; place < (isHead ? n_heads : ids.length); place++) {
        const where = isHead ? { heads: place } : { positions: place };
        const value = !isHead && place < same ? corrupted : await edited(other, { hook, operation: "patch", ...where, from: { ids: [...ids] } });
        effects.push((value - corrupted) / (clean - corrupted));
      }
    }
    return { facts: { ...facts, corrupted }, arrays: { effects: { shape: [layers.length, isHead ? n_heads : ids.length], data: Float32Array.from(effects) } } };
  }

  async *continue(request: ContinueRequest): AsyncGenerator<Generated> {
    let ids = this.#ids(request);
    const prompt = ids.length;
    if (prompt === this.model.cfg.n_ctx) throw new EngineError(`The text has ${prompt} tokens, as many as the model reads: shorten it to go on.`);
    const seed = request.seed ?? anySeed();
    const [samplers, random] = [samplersOf(request), new Random(seed)];
    const decode = this.text.stream();
    const isEdited = (request.edits ?? []).length > 0;
    let past: Cache | null = null;
    for (let step = 0; step < (request.max_new_tokens ?? 1) && ids.length < this.model.cfg.n_ctx; step++) {
      let logits: Float32Array;
      if (isEdited) {
        // Each token runs the whole text, since edits may be anywhere in it.
        const run = await this.#open(ids, request, false, prompt);
        logits = (await this.#logits(run, [ids.length - 1])).data as Float32Array;
      } else {
        const now: readonly number[] = past ? ids.slice(-1) : ids;
        const found: { read: Record<string, Tensor>; cache: Cache | null } = await this.session.run(now, new Map(), [this.site.final, ...this.session.presents], past);
        past = found.cache;
        logits = (await this.session.unembedded(rows(found.read[this.site.final]!, [now.length - 1])))["logits"]!.data as Float32Array;
      }
      const id = chosen(samplers, logits, random);
      const logprob = Math.log(softmax(logits, 1)[id]!);
      const isEnd = this.site.ends.includes(id); // a token that ends a text is a signal, not text
      yield { id, text: isEnd ? "" : decode(id), label: this.text.label(id), logprob, seed };
      if (isEnd) return;
      ids = [...ids, id];
    }
  }

  #ids(request: { text?: string; ids?: number[] }): number[] {
    const ids = request.ids ?? (request.text === undefined ? null : this.text.encode(request.text));
    if (!ids) throw new EngineError("Give either text or ids.");
    for (const id of ids) this.#token(id, id);
    const { n_ctx } = this.model.cfg;
    if (!ids.length) throw new EngineError("The text has no tokens.");
    if (ids.length > n_ctx) throw new EngineError(`The text has ${ids.length} tokens, and the model has ${n_ctx} positions.`);
    return ids;
  }

  #token(given: number | null | undefined, otherwise: number): number {
    if (given === null || given === undefined) return otherwise;
    if (!(given >= 0 && given < this.model.cfg.d_vocab)) throw new EngineError(`Token id ${given} is out of range: this model's ids are 0 to ${this.model.cfg.d_vocab - 1}.`);
    return given;
  }

  /** The most probable token but the answer that differs from it in more than spaces and case. */
  #rival(row: Float32Array, token: number): number {
    const word = (id: number) => this.text.label(id).trim().toLowerCase();
    const others = largest(row, MOST_TOP).filter((id) => id !== token);
    return others.find((id) => word(id) !== word(token)) ?? others[0] ?? token;
  }

  get #source(): Source {
    const { changeable, model } = this.site;
    return {
      changeable,
      points: model.hook_points,
      encode: (text) => this.text.encode(text),
      read: async (ids, name) => (await this.#values(await this.#open(ids, {}), [name]))[name]!,
    };
  }

  /** A run of tokens with edits. `prompt` tokens of it are the text that edits are about; later ones were generated. */
  async #open(ids: readonly number[], { edits = [] }: Pick<TextRequest, "edits">, isKept = true, prompt = ids.length): Promise<Run> {
    const key = JSON.stringify([ids, edits]);
    const kept = this.#runs.get(key);
    if (kept) return kept;
    const source = this.#source;
    const changes = edits.length ? await resolved(source, edits, ids, prompt) : new Map();
    const run: Run = { ids, changes, values: {} };
    if (isKept) {
      this.#runs.set(key, run);
      if (this.#runs.size > KEPT) this.#runs.delete(this.#runs.keys().next().value!);
    }
    return run;
  }

  /** The hook points of a name, or of a pattern. */
  #named(name: string): string[] {
    return this.model.hook_points.map((point) => point.name).filter((one) => fits(name, one));
  }

  /** The hook points that a request needs. */
  #needed({ reads, directions = [] }: RunRequest): string[] {
    const states = this.#states();
    const derived: Record<string, string[]> = {
      guesses: states,
      ranks: states,
      norms: states,
      effects: [...this.model.residual_stream.parts, ...this.#ofBlocks("attn.hook_z")],
      neurons: this.#ofBlocks("mlp.hook_post"),
      sources: SOURCES.flatMap((kind) => this.#ofBlocks(kind)),
    };
    return [this.site.final, ...[...reads, ...directions].flatMap((read) => derived[read] ?? this.#named(parseAddress(read)?.name ?? ""))];
  }

  /** The hook points of a kind, block by block. */
  #ofBlocks(kind: string): string[] {
    return Array.from({ length: this.model.cfg.n_layers }, (_, layer) => `blocks.${layer}.${kind}`);
  }

  /** Values of a run by the names of hook points, without their batch axis. */
  async #values(run: Run, names: readonly string[]): Promise<Record<string, Tensor>> {
    const missing = names.filter((name) => !(name in run.values));
    const isFinal = (name: string) => name.startsWith("ln_final.");
    const from = (name: string) => (isFinal(name) ? this.site.final : (this.site.products[name]?.activation ?? name));
    const asked = [...new Set(missing.map(from))].filter((name) => !(name in run.values));
    if (asked.length) Object.assign(run.values, (await this.session.run(run.ids, run.changes, asked)).read);
    const final = missing.filter(isFinal);
    if (final.length) Object.assign(run.values, await this.session.unembedded(run.values[this.site.final]!, final));
    for (const name of missing) if (name in this.site.products) run.values[name] = this.#product(run, name);
    return run.values;
  }

  /** What each head writes: its activation times its part of the weight, [P, H, d_model]. */
  #product(run: Run, name: string): Tensor {
    const { activation, weight } = this.site.products[name]!;
    const z = run.values[activation]!;
    const matrix = this.weights.get(weight);
    const [positions, heads, small] = z.shape as [number, number, number];
    const width = matrix.shape[2]!;
    const data = new Float32Array(positions * heads * width);
    const sum = new Float64Array(width);
    for (let position = 0; position < positions; position++)
      for (let head = 0; head < heads; head++) {
        sum.fill(0);
        for (let d = 0; d < small; d++) {
          const one = z.data[(position * heads + head) * small + d]!;
          const start = (head * small + d) * width;
          for (let entry = 0; entry < width; entry++) sum[entry]! += one * matrix.data[start + entry]!;
        }
        data.set(sum, (position * heads + head) * width);
      }
    return { shape: [positions, heads, width], data };
  }

  /** Logits at positions, [n, d_vocab]. */
  async #logits(run: Run, positions: readonly number[]): Promise<Tensor> {
    const state = (await this.#values(run, [this.site.final]))[this.site.final]!;
    return (await this.session.unembedded(rows(state, positions)))["logits"]!;
  }

  /** Hook points, weights and logits that a read names. */
  async #take(read: string, { run, arrays, ids }: Found): Promise<void> {
    const address = parseAddress(read);
    if (!address) throw new EngineError(`${read} is no address of a hook point or weight.`);
    const { name, indices } = address;
    if (name === "logits") {
      const [place, ...rest] = indices;
      const positions = typeof place === "number" ? [place] : ids.map((_, one) => one);
      const logits = await this.#logits(run, positions);
      arrays[read] = typeof place === "number" ? cut({ shape: logits.shape.slice(1), data: logits.data }, rest) : cut(logits, indices);
      return;
    }
    if (this.weights.has(name)) {
      arrays[read] = this.weights.part(name, indices);
      return;
    }
    const names = this.#named(name);
    if (!names.length) throw new EngineError(`Unknown hook point or weight '${name}'.`);
    if (indices.length && names.length > 1) throw new EngineError(`${read} names several hook points; places are for one.`);
    const values = await this.#values(run, names);
    for (const one of names) arrays[one === name ? read : one] = cut(values[one]!, indices);
  }

  async #derive(read: string, found: Found): Promise<void> {
    const { arrays, facts, named, run, row, request, ids, position } = found;
    const { n_layers } = this.model.cfg;
    if (read === "next") {
      const first = largest(row, Math.max(found.top, NEXT));
      arrays["next.logits"] = { shape: [row.length], data: row };
      arrays["next.ids"] = { shape: [first.length], data: Int32Array.from(first) };
      first.forEach((id) => named.add(id));
    } else if (read === "guesses") {
      const places = request.positions ?? ids.map((_, place) => place);
      const outside = places.find((place) => !(place >= 0 && place < ids.length));
      if (outside !== undefined) throw new EngineError(`positions must be from 0 to ${ids.length - 1}, not ${outside}.`);
      const { found: guesses, shares } = await this.#guesses(run, places, found.top);
      const shape = [n_layers + 1, places.length, found.top];
      arrays["guesses.ids"] = { shape, data: guesses };
      arrays["guesses.probabilities"] = { shape, data: shares };
      facts.states = stateNames(n_layers);
      guesses.forEach((id) => named.add(id));
    } else if (read === "effects" || read === "neurons") await this.#effects(read, found);
    else if (read === "sources") await this.#sources(found);
    else if (read === "ranks") {
      const states = this.#states();
      const values = await this.#values(run, states);
      const ranks: number[] = [], shares: number[] = [];
      for (const name of states) {
        const logits = (await this.session.unembedded(rows(values[name]!, [position])))["logits"]!.data;
        const own = logits[found.token]!;
        let higher = 0, total = 0;
        for (const one of logits) {
          if (one > own) higher++;
          total += Math.exp(one - own);
        }
        ranks.push(higher);
        shares.push(1 / total);
      }
      arrays["ranks"] = { shape: [ranks.length], data: Int32Array.from(ranks) };
      arrays["ranks.probabilities"] = { shape: [shares.length], data: Float32Array.from(shares) };
    } else if (read === "norms") {
      const states = this.#states();
      const values = await this.#values(run, states);
      const { d_model } = this.model.cfg;
      const lengths = states.flatMap((name) => ids.map((_, place) => lengthOf(values[name]!.data.subarray(place * d_model, (place + 1) * d_model))));
      arrays["norms"] = { shape: [states.length, ids.length], data: Float32Array.from(lengths) };
    } else if (read === "surprisal") {
      const values: number[] = [], ranks: number[] = [];
      for (let place = 0; place + 1 < ids.length; place++) {
        const { data } = await this.#logits(run, [place]);
        const own = data[ids[place + 1]!]!;
        values.push(-Math.log(softmax(data, 1)[ids[place + 1]!]!));
        ranks.push((data as Float32Array).reduce((count, one) => count + Number(one > own), 0));
      }
      arrays["surprisal"] = { shape: [values.length], data: Float32Array.from(values) };
      arrays["surprisal.ranks"] = { shape: [ranks.length], data: Int32Array.from(ranks) };
    } else if (read === "chain") {
      const seed = request.seed ?? anySeed();
      const last = (await this.#logits(run, [ids.length - 1])).data as Float32Array;
      const samplers = samplersOf({ sampler: request.sampler ?? null });
      facts.chain = explained(samplers, last, new Random(seed), seed, found.top);
      for (const { id } of facts.chain.logits) named.add(id);
    } else if (read === "unembedded") {
      facts.promoted = [];
      for (const direction of request.directions ?? []) facts.promoted.push(await this.#promoted(direction, found));
    } else if (read === "gradient") {
      if (!this.model.has_gradients) throw new EngineError("This model was exported without its gradients; export it with 'onnxlens export --gradients'.");
      arrays["gradient"] = await this.session.gradientTimesInput(ids, position, [[found.token, 1], [found.against, -1]]);
    } else if (read === "edits") {
      const of = [this.model.name, this.site.hash] as const;
      facts.edits = [];
      for (const edit of request.edits ?? []) facts.edits.push(await written(this.#source, edit, ids, of));
    } else if (read === "costs") facts.costs = await this.#costs(found);
  }

  /** Counts the parts of the model, and measures a pass and one more token; browsers do not measure parts of a pass. */
  async #costs({ ids, token }: Found): Promise<NonNullable<RunFacts["costs"]>> {
    const { n_layers, d_head, n_ctx } = this.model.cfg;
    const count = ids.length;
    const parts = this.site.costs.map(({ of, width, multiply_adds, ...part }) => ({
      ...part,
      multiply_adds: multiply_adds * (of === "all" ? count : 1) + width * count * (count + 1),
      multiply_adds_cached: multiply_adds + 2 * width * (count + 1),
      seconds: null,
    }));
    const outputs = [this.site.final, ...this.session.presents];
    const pass = async (tokens: readonly number[], past: Cache | null) => {
      const { read, cache } = await this.session.run(tokens, new Map(), outputs, past);
      await this.session.unembedded(rows(read[this.site.final]!, [tokens.length - 1]));
      return cache;
    };
    const cache = await pass(ids, null);
    const seconds = await fastest(() => pass(ids, null));
    const seconds_cached = count < n_ctx ? await fastest(() => pass([token], cache)) : null;
    return { parts, seconds, seconds_cached, times: TIMES, kv_cache_bytes: 2 * n_layers * this.site.key_value_heads * d_head * count * 4 };
  }

  #states(): string[] {
    return [...this.#ofBlocks("hook_resid_pre"), this.site.final];
  }

  /** The logit lens at positions: ids and probabilities, [states, n, top]. */
  async #guesses(run: Run, places: readonly number[], top: number): Promise<{ found: Int32Array; shares: Float32Array }> {
    const states = this.#states();
    const values = await this.#values(run, states);
    const found = new Int32Array(states.length * places.length * top), shares = new Float32Array(found.length);
    const step = Math.max(1, Math.floor(LOGITS / this.model.cfg.d_vocab));
    for (const [state, name] of states.entries())
      for (let start = 0; start < places.length; start += step) {
        const some = places.slice(start, start + step);
        const { data, shape } = (await this.session.unembedded(rows(values[name]!, some)))["logits"]!;
        for (const [place] of some.entries()) {
          const row = data.subarray(place * shape[1]!, (place + 1) * shape[1]!) as Float32Array;
          const ids = largest(row, top);
          const highest = row[ids[0]!]!;
          let total = 0;
          for (const one of row) total += Math.exp(one - highest);
          const at = (state * places.length + start + place) * top;
          ids.forEach((id, rank) => ([found[at + rank], shares[at + rank]] = [id, Math.exp(row[id]! - highest) / total]));
        }
      }
    return { found, shares };
  }

  /**
   * The direction of the final stream for which x · direction is what a part x adds to the logit difference:
   * ln_final.w * (W_U[:, token] - W_U[:, against]) / scale, without its mean where the normalisation centres.
   */
  async #direction({ run, token, against, position }: Found): Promise<Float64Array> {
    const scale = (await this.#values(run, ["ln_final.hook_scale"]))["ln_final.hook_scale"]!.data[position]!;
    const own = this.weights.part("unembed.W_U", [{ from: null, to: null }, token]).data;
    const other = this.weights.part("unembed.W_U", [{ from: null, to: null }, against]).data;
    const weight = this.weights.get("ln_final.w").data;
    const found = Float64Array.from(own, (one, entry) => (one - other[entry]!) * weight[entry]!);
    const mean = this.model.normalizations["ln_final"]!.kind === "LN" ? found.reduce((sum, one) => sum + one, 0) / found.length : 0;
    return found.map((one) => (one - mean) / scale);
  }

  async #effects(read: string, found: Found): Promise<void> {
    const { run, position, arrays, facts, row, token, against } = found;
    const { n_layers, n_heads, d_mlp } = this.model.cfg;
    const u = await this.#direction(found);
    const dot = (values: ArrayLike<number>, start = 0) => {
      let total = 0;
      for (let entry = 0; entry < u.length; entry++) total += values[start + entry]! * u[entry]!;
      return total;
    };
    if (read === "neurons") {
      if ([...run.changes.keys()].some((name) => name.endsWith("hook_mlp_out"))) throw new EngineError("An MLP's output is changed, so its neurons do not add up to it.");
      const posts = this.#ofBlocks("mlp.hook_post");
      const values = await this.#values(run, posts);
      const effects = new Float32Array(n_layers * d_mlp);
      for (const [layer, name] of posts.entries()) {
        const out = this.weights.get(`blocks.${layer}.mlp.W_out`).data;
        for (let neuron = 0; neuron < d_mlp; neuron++) effects[layer * d_mlp + neuron] = values[name]!.data[position * d_mlp + neuron]! * dot(out, neuron * u.length);
      }
      arrays["neurons"] = { shape: [n_layers, d_mlp], data: effects };
      return;
    }
    const parts = this.model.residual_stream.parts;
    const zs = this.#ofBlocks("attn.hook_z");
    const values = await this.#values(run, [...parts, ...zs, this.site.final]);
    const heads = new Float32Array(n_layers * n_heads), mlps = new Float32Array(n_layers);
    let biases = 0, sum = 0;
    for (let layer = 0; layer < n_layers; layer++) {
      const writes = this.#heads(layer, values[zs[layer]!]!, position, u);
      writes.forEach((one, head) => (heads[layer * n_heads + head] = one));
      mlps[layer] = dot(values[`blocks.${layer}.hook_mlp_out`]!.data, position * u.length);
      const bias = this.weights.has(`blocks.${layer}.attn.b_O`) ? dot(this.weights.get(`blocks.${layer}.attn.b_O`).data) : 0;
      biases += bias;
      sum += writes.reduce((total, one) => total + one, bias) + dot(values[`blocks.${layer}.hook_mlp_out`]!.data, position * u.length);
    }
    const embed = dot(values["hook_embed"]!.data, position * u.length);
    const pos_embed = parts.includes("hook_pos_embed") ? dot(values["hook_pos_embed"]!.data, position * u.length) : 0;
    const whole = dot(values[this.site.final]!.data, position * u.length);
    const change = run.changes.size ? whole - sum - embed - pos_embed : 0;
    arrays["effects.heads"] = { shape: [n_layers, n_heads], data: heads };
    arrays["effects.mlps"] = { shape: [n_layers], data: mlps };
    facts.effects = { embed, pos_embed, biases: biases + this.#bias(token, against), change, logit: row[token]! - row[against]! };
  }

  /** What each head of a layer adds to the logit difference at a position: z W_O · u. */
  #heads(layer: number, z: Tensor, position: number, u: Float64Array): number[] {
    const [, heads, small] = z.shape as [number, number, number];
    const read = this.#readOut(layer, u);
    return Array.from({ length: heads }, (_, head) => {
      let total = 0;
      for (let d = 0; d < small; d++) total += z.data[(position * heads + head) * small + d]! * read[head * small + d]!;
      return total;
    });
  }

  /** W_O u of all heads of a layer, [H, d]. */
  #readOut(layer: number, u: Float64Array): Float64Array {
    const { data, shape } = this.weights.get(`blocks.${layer}.attn.W_O`);
    const found = new Float64Array(shape[0]! * shape[1]!);
    for (let row = 0; row < found.length; row++) {
      let total = 0;
      for (let entry = 0; entry < u.length; entry++) total += data[row * u.length + entry]! * u[entry]!;
      found[row] = total;
    }
    return found;
  }

  /** The constant part of a logit difference: ln_final.b · W_U, and the biases of the unembedding. */
  #bias(token: number, against: number): number {
    const all: Index = { from: null, to: null };
    let total = 0;
    if (this.weights.has("ln_final.b")) {
      const bias = this.weights.get("ln_final.b").data;
      const [own, other] = [token, against].map((id) => this.weights.part("unembed.W_U", [all, id]).data);
      bias.forEach((one, entry) => (total += one * (own![entry]! - other![entry]!)));
    }
    if (this.weights.has("unembed.b_U")) total += this.weights.part("unembed.b_U", [token]).data[0]! - this.weights.part("unembed.b_U", [against]).data[0]!;
    return total;
  }

  async #sources(found: Found): Promise<void> {
    const { run, position, ids, arrays } = found;
    const { n_layers, n_heads } = this.model.cfg;
    const u = await this.#direction(found);
    const names = Array.from({ length: n_layers }, (_, layer) => SOURCES.map((kind) => `blocks.${layer}.${kind}`));
    const values = await this.#values(run, names.flat());
    const count = ids.length;
    const sources = new Float32Array(n_layers * n_heads * count);
    for (const [layer, [v, pattern, z]] of names.entries()) {
      const carried = values[v!]!, shares = values[pattern!]!.data, written = values[z!]!.data;
      const [, shared, small] = carried.shape as [number, number, number];
      const read = this.#readOut(layer, u);
      for (let head = 0; head < n_heads; head++) {
        const group = Math.floor((head * shared) / n_heads);
        const gathered = new Float64Array(small);
        for (let key = 0; key < count; key++) {
          const share = shares[(head * count + position) * count + key]!;
          let total = 0;
          for (let d = 0; d < small; d++) {
            const one = carried.data[(key * shared + group) * small + d]!;
            gathered[d]! += share * one;
            total += one * read[head * small + d]!;
          }
          sources[(layer * n_heads + head) * count + key] = share * total;
        }
        if (!run.changes.size) continue;
        const output = written.subarray((position * n_heads + head) * small, (position * n_heads + head + 1) * small);
        const multiple = multipleOf(output, gathered);
        for (let key = 0; key < count; key++) sources[(layer * n_heads + head) * count + key]! *= multiple;
      }
    }
    arrays["sources"] = { shape: [n_layers, n_heads, count], data: sources };
  }

  async #promoted(direction: string, { run, named }: Found): Promise<Promoted> {
    const { name, indices } = parseAddress(direction) ?? ({ name: direction, indices: [] } as Address);
    const vector = this.weights.has(name) ? this.weights.part(name, indices) : cut((await this.#values(run, [name]))[name]!, indices);
    const { d_model } = this.model.cfg;
    if (String(vector.shape) !== String([d_model])) throw new EngineError(`${direction} has the shape [${vector.shape}], not [${d_model}].`);
    const isCentred = this.model.normalizations["ln_final"]!.kind === "LN";
    const mean = isCentred ? (vector.data as Float32Array).reduce((sum, one) => sum + one, 0) / d_model : 0;
    const weight = this.weights.get("ln_final.w").data;
    const scaled = Float64Array.from(vector.data, (one, entry) => (one - mean) * weight[entry]!);
    const logits = Float32Array.from(this.weights.times(scaled, "unembed.W_U"));
    const most = largest(logits, PROMOTED), least = largest(logits.map((one) => -one), PROMOTED);
    for (const id of [...most, ...least]) named.add(id);
    const written = (ids: number[]) => ids.map((id) => ({ id, logit: logits[id]! }));
    return { direction, most: written(most), least: written(least) };
  }

  /** How heads attend: on random tokens that repeat, as computed when the site was made; how far and widely, on this text. */
  async #scores(ids: readonly number[]): Promise<Answer<SweepFacts>> {
    const { facts, arrays } = this.site.scores;
    const { n_layers, n_heads } = this.model.cfg;
    const names = this.#ofBlocks("attn.hook_pattern");
    const values = await this.#values(await this.#open(ids, {}), names);
    const count = ids.length;
    const distance = new Float32Array(n_layers * n_heads), entropy = new Float32Array(n_layers * n_heads);
    for (const [layer, name] of names.entries())
      for (let head = 0; head < n_heads; head++) {
        let [far, wide] = [0, 0];
        for (let query = 0; query < count; query++)
          for (let key = 0; key <= query; key++) {
            const share = values[name]!.data[(head * count + query) * count + key]!;
            far += share * (query - key);
            if (share > 0) wide -= share * Math.log(share);
          }
        distance[layer * n_heads + head] = far / count;
        entropy[layer * n_heads + head] = wide / count;
      }
    const shape = [n_layers, n_heads];
    const known = Object.fromEntries(Object.entries(arrays).map(([name, one]) => [name, tensorOf(one)]));
    return { facts, arrays: { ...known, distance: { shape, data: distance }, entropy: { shape, data: entropy } } };
  }
}

interface Found {
  request: RunRequest;
  ids: readonly number[];
  run: Run;
  position: number;
  top: number;
  row: Float32Array;
  token: number;
  against: number;
  facts: Partial<RunFacts>;
  arrays: Record<string, Tensor>;
  named: Set<number>;
}

/** The shortest of several times that a call takes, in seconds. */
async function fastest(call: () => Promise<unknown>): Promise<number> {
  let found = Infinity;
  for (let time = 0; time < TIMES; time++) {
    const started = performance.now();
    await call();
    found = Math.min(found, performance.now() - started);
  }
  return found / 1000;
}

/** A seed for a draw that may be any. */
const anySeed = () => crypto.getRandomValues(new Uint32Array(1))[0]!;

/** Some rows of [n, d]. */
function rows({ shape, data }: Tensor, places: readonly number[]): Tensor {
  const width = shape[1]!;
  const found = new Float32Array(places.length * width);
  places.forEach((place, row) => found.set(data.subarray(place * width, (place + 1) * width), row * width));
  return { shape: [places.length, width], data: found };
}

/** By how much an output is a multiple of what its head gathered; 0 if it is not a multiple of it. */
function multipleOf(output: ArrayLike<number>, gathered: Float64Array): number {
  let [square, product, own] = [0, 0, 0];
  for (let d = 0; d < gathered.length; d++) {
    square += gathered[d]! ** 2;
    product += output[d]! * gathered[d]!;
    own += output[d]! ** 2;
  }
  const share = product / (square > 0 ? square : 1);
  let error = 0;
  for (let d = 0; d < gathered.length; d++) error += (output[d]! - share * gathered[d]!) ** 2;
  return Math.sqrt(error) <= 1e-4 * (Math.sqrt(own) + Math.sqrt(square)) ? share : 0;
}
