import type { Generated } from "../engine/types";
import type { Explorer } from "../explorer.svelte";
import { chainOf, NEUTRAL, type Shape } from "../lib/sampling";
import { within, type Options } from "../lib/settings.svelte";

/** A text of the tree of continuations: its parent's tokens and one more. */
export interface Node {
  ids: number[];
  text: string;
  label: string; // of the token that was added
  share: number | null; // its probability by the model
  children: Node[];
}

interface Snapshot {
  text: string;
  ids: number[] | null;
}

/** The sliders of sampling. */
class Sliders implements Shape {
  constructor(private readonly options: Options) {}

  get temperature(): number {
    return this.options.get("temperature", NEUTRAL.temperature, within(0, 100));
  }
  set temperature(value: number) {
    this.options.set("temperature", value, NEUTRAL.temperature);
  }
  get top_k(): number {
    return this.options.get("top_k", NEUTRAL.top_k, within(0, Infinity));
  }
  set top_k(value: number) {
    this.options.set("top_k", value, NEUTRAL.top_k);
  }
  get top_p(): number {
    return this.options.get("top_p", NEUTRAL.top_p, within(1e-6, 1));
  }
  set top_p(value: number) {
    this.options.set("top_p", value, NEUTRAL.top_p);
  }
  get min_p(): number {
    return this.options.get("min_p", NEUTRAL.min_p, within(0, 1));
  }
  set min_p(value: number) {
    this.options.set("min_p", value, NEUTRAL.min_p);
  }
}

/** Continues the text, keeps what was generated as a tree, and undoes. */
export class Generation {
  /** The sliders; they make the chain unless a chain was typed. */
  readonly shape: Shape;
  usedSeed = $state<number | null>(null);
  count = $state(20);
  isRunning = $state(false);
  roots = $state.raw<Node[]>([]);

  #explorer: Explorer;
  #undone: Snapshot[] = $state.raw([]);
  #done: Snapshot[] = $state.raw([]);
  #running: AbortController | null = null;

  constructor(explorer: Explorer) {
    this.#explorer = explorer;
    this.shape = new Sliders(explorer.options);
  }

  /** The chain that was typed; empty where the sliders make it. */
  get typedChain(): string {
    return this.#explorer.options.get("chain", "");
  }
  set typedChain(value: string) {
    this.#explorer.options.set("chain", value, "");
  }

  /** The seed of draws; null for any. */
  get seed(): number | null {
    return this.#explorer.options.get<number | null>("seed", null, (value) => Number.isSafeInteger(value) && (value as number) >= 0);
  }
  set seed(value: number | null | undefined) {
    this.#explorer.options.set<number | null>("seed", value ?? null, null);
  }

  get chain(): string {
    return this.typedChain.trim() || chainOf(this.shape);
  }

  get canUndo(): boolean {
    return this.#done.length > 0;
  }

  get canRedo(): boolean {
    return this.#undone.length > 0;
  }

  /** The token ids of the text now. */
  get ids(): number[] {
    return this.#explorer.answer?.facts.tokens.map((token) => token.id) ?? [];
  }

  /** Remembers the text before it changes. */
  remember(): void {
    const { text, ids } = this.#explorer;
    const last = this.#done.at(-1);
    if (last && last.text === text && String(last.ids) === String(ids)) return;
    this.#done = [...this.#done, { text, ids }];
    this.#undone = [];
  }

  undo(): void {
    this.#step("#done");
  }

  redo(): void {
    this.#step("#undone");
  }

  #step(from: "#done" | "#undone"): void {
    const { text, ids } = this.#explorer;
    const stack = from === "#done" ? this.#done : this.#undone;
    const back = stack.at(-1);
    if (!back) return;
    if (from === "#done") [this.#done, this.#undone] = [stack.slice(0, -1), [...this.#undone, { text, ids }]];
    else [this.#undone, this.#done] = [stack.slice(0, -1), [...this.#done, { text, ids }]];
    this.#show(back);
  }

  /** Appends one token, such as a candidate that the reader takes. */
  append(id: number, text: string, label: string, share: number | null): void {
    this.remember();
    const ids = this.ids;
    this.#add(ids, this.#explorer.text, { id, text, label, share });
    this.#explorer.setIds([...ids, id], this.#explorer.text + text);
  }

  /** Generates tokens and appends them as they come. */
  async generate(count: number): Promise<void> {
    this.stop();
    this.remember();
    const explorer = this.#explorer;
    const mine = (this.#running = new AbortController());
    this.isRunning = true;
    let [ids, text] = [this.ids, explorer.text];
    const request = { ...explorer.base, ...(ids.length ? { ids, text: undefined } : {}), edits: explorer.edits };
    try {
      const tokens = explorer.engine.continue({ ...request, max_new_tokens: count, sampler: this.chain, seed: this.seed }, mine.signal);
      for await (const token of tokens) {
        if (mine.signal.aborted) break;
        this.usedSeed = token.seed;
        this.#add(ids, text, { id: token.id, text: token.text, label: token.label, share: Math.exp(token.logprob) });
        [ids, text] = [[...ids, token.id], text + token.text];
        explorer.setIds(ids, text);
      }
    } catch (error) {
      if (!mine.signal.aborted) explorer.fail(error);
    } finally {
      if (this.#running === mine) this.isRunning = false;
    }
  }

  stop(): void {
    this.#running?.abort();
    this.isRunning = false;
  }

  /** Goes to a text of the tree. */
  visit(node: Node): void {
    this.stop();
    this.remember();
    this.#explorer.setIds(node.ids, node.text);
  }

  /** Adds a token below the text that it continues, which begins a tree if it is in none. */
  #add(ids: number[], text: string, token: Pick<Generated, "id" | "text" | "label"> & { share: number | null }): void {
    const roots = structuredClone(this.roots);
    let parent = find(roots, ids);
    if (!parent) roots.push((parent = { ids, text, label: "", share: null, children: [] }));
    if (!parent.children.some((child) => child.ids.at(-1) === token.id))
      parent.children.push({ ids: [...ids, token.id], text: text + token.text, label: token.label, share: token.share, children: [] });
    this.roots = roots;
  }

  #show({ text, ids }: Snapshot): void {
    if (ids) this.#explorer.setIds(ids, text);
    else this.#explorer.type(text);
  }
}

/** The node of a text in trees, if it is in one. */
export function find(nodes: Node[], ids: readonly number[]): Node | undefined {
  const written = String(ids);
  for (const node of nodes) {
    if (String(node.ids) === written) return node;
    if (!ids.slice(0, node.ids.length).every((id, place) => id === node.ids[place])) continue;
    const found = find(node.children, ids);
    if (found) return found;
  }
  return undefined;
}
