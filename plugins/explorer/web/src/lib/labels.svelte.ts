import { SvelteMap } from "svelte/reactivity";
import { visible, type Explorer } from "../explorer.svelte";

/** Tokens of the vocabulary in words; those that no answer named are asked for, many at once. */
export class Labels {
  #known = new SvelteMap<number, string>();
  #wanted = new Set<number>();

  constructor(private readonly explorer: Explorer) {}

  /** A token for a reader; its number until its text is there. */
  of(id: number): string {
    const named = this.explorer.label(id);
    if (named !== `#${id}`) return named;
    const found = this.#known.get(id);
    if (found !== undefined) return found;
    if (!this.#wanted.size) queueMicrotask(() => void this.#load());
    this.#wanted.add(id);
    return named;
  }

  async #load(): Promise<void> {
    const ids = [...this.#wanted].slice(0, 64);
    try {
      const { tokens } = await this.explorer.engine.tokenize({ ...this.explorer.inModel, ids });
      for (const one of tokens) this.#known.set(one.id, visible(one.label));
    } catch {
      for (const id of ids) this.#known.set(id, `#${id}`); // a reader can do with its number
    }
    for (const id of ids) this.#wanted.delete(id);
    if (this.#wanted.size) await this.#load();
  }
}
