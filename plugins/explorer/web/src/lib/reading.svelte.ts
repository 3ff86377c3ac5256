import type { Answer, RunFacts, RunRequest } from "../engine/types";
import type { Explorer } from "../explorer.svelte";
import type { Resource } from "./resource.svelte";

export type Wanted = Omit<RunRequest, "text" | "ids" | "model">;

/** What a panel reads of the board's run; to be made while a component is set up. */
export class Reading {
  #resource: Resource<RunRequest, Answer<RunFacts>>;

  /** @param wanted what to read; null for nothing */
  constructor(
    private readonly explorer: Explorer,
    private readonly wanted: () => Wanted | null,
  ) {
    this.#resource = explorer.reads(wanted);
  }

  /** The answer to what is wanted now; null until it is there. */
  get answer(): Answer<RunFacts> | null {
    const [loaded, wanted, facts] = [this.#resource.current, this.wanted(), this.explorer.answer?.facts];
    if (!loaded || !wanted || !facts) return null;
    const { position, token, against } = facts;
    const now = { ids: facts.tokens.map((one) => one.id), edits: this.explorer.edits, position, token, against, ...wanted };
    return JSON.stringify({ ...loaded.key, ...now }) === JSON.stringify(loaded.key) ? loaded.value : null;
  }

  /** A sentence, where it could not be read. */
  get error(): string {
    return this.#resource.error;
  }
}
