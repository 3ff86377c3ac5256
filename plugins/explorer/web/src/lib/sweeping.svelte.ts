import type { Answer, SweepFacts, SweepRequest } from "../engine/types";
import type { Explorer } from "../explorer.svelte";
import { Resource } from "./resource.svelte";

const PAUSE = 400; // milliseconds: while somebody types, sweeps wait so that the board need not

type Asked = Omit<SweepRequest, "text" | "ids" | "model">;

/** A sweep for a panel, over the text up to the position that predicts: at once where it is quick, else when asked for. */
export class Sweeping {
  #resource: Resource<SweepRequest, Answer<SweepFacts>>;
  #started = $state(false);
  #request: () => SweepRequest | null;

  /**
   * @param wanted the sweep
   * @param isQuick whether it takes so little time that it need not be asked for
   */
  constructor(
    explorer: Explorer,
    wanted: () => Asked,
    private readonly isQuick: () => boolean,
  ) {
    this.#request = () => {
      const facts = explorer.answer?.facts;
      if (!facts || this.isWaiting) return null;
      const ids = facts.tokens.slice(0, facts.position + 1).map((one) => one.id);
      return { ...explorer.inModel, ids, edits: explorer.edits, ...wanted() };
    };
    this.#resource = new Resource(this.#request, async (request, signal) => {
      await pause(PAUSE, signal);
      return explorer.engine.sweep(request, signal);
    });
  }

  /** Whether it takes long and was not asked for yet. */
  get isWaiting(): boolean {
    return !this.#started && !this.isQuick();
  }

  get isLoading(): boolean {
    return this.#resource.isLoading;
  }

  get error(): string {
    return this.#resource.error;
  }

  /** The answer for the text, edits and tokens that the board shows; null until it is there. */
  get answer(): Answer<SweepFacts> | null {
    const { current } = this.#resource;
    return current && JSON.stringify(current.key) === JSON.stringify(this.#request()) ? current.value : null;
  }

  start(): void {
    this.#started = true;
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}
