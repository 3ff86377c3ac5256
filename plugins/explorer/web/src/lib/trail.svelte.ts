import type { Explorer } from "../explorer.svelte";
import type { Selection } from "./selection";

/** How the reader came to the numbers that are explained: from what, to which address. */
class Trail {
  #steps = $state.raw<{ from: Selection; to: string }[]>([]);

  /** Shows the arithmetic of a number. */
  open(explorer: Explorer, address: string): void {
    const from = explorer.selection;
    if (from) this.#steps = [...this.#steps.slice(-49), { from, to: address }];
    explorer.select({ kind: "value", address });
  }

  /** Where the reader came from to this number; null if by no step. */
  origin(address: string): Selection | null {
    const last = this.#steps.at(-1);
    return last?.to === address ? last.from : null;
  }

  /** Goes back one step. */
  back(explorer: Explorer): void {
    const last = this.#steps.at(-1);
    if (!last) return;
    this.#steps = this.#steps.slice(0, -1);
    explorer.select(last.from);
  }
}

export const trail = new Trail();
