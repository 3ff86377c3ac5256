import type { Model, Token } from "../../engine/types";
import { formatAddress, type Index } from "../address";
import type { Quantity, Read } from "./types";

/** The values of a run as rules need them, each read once. */
export class Values {
  #arrays = new Map<string, ArrayLike<number>>();
  #next: { wanted: Set<string>; done: Promise<void> } | null = null; // the request that is being put together

  constructor(
    readonly model: Model,
    readonly tokens: readonly Token[],
    private readonly read: Read,
  ) {}

  get positions(): number {
    return this.tokens.length;
  }

  /** Whether the model has such a hook point. */
  hasPoint(name: string): boolean {
    return this.model.hook_points.some((one) => one.name === name);
  }

  /** Whether the model has such a weight. */
  hasWeight(name: string): boolean {
    return this.model.weights.some((one) => one.name === name);
  }

  /** Loads what is at addresses, so that `array` and `number` have it. What is asked for at once is one request. */
  load(...addresses: (string | null)[]): Promise<void> {
    const missing = addresses.filter((one): one is string => one !== null && !this.#arrays.has(one));
    if (!missing.length) return Promise.resolve();
    if (!this.#next) {
      const wanted = new Set<string>();
      const done = Promise.resolve().then(async () => {
        this.#next = null;
        const found = await this.read([...wanted]);
        for (const address of wanted) {
          const tensor = found[address];
          if (!tensor) throw new Error(`The engine did not answer with ${address}, which was asked for.`);
          this.#arrays.set(address, tensor.data);
        }
      });
      this.#next = { wanted, done };
    }
    for (const one of missing) this.#next.wanted.add(one);
    return this.#next.done;
  }

  /** The numbers at an address that was loaded. */
  array(address: string): ArrayLike<number> {
    return this.#arrays.get(address)!;
  }

  /** The one number at an address that was loaded. */
  number(address: string): number {
    return this.array(address)[0]!;
  }

  /** The one number at an address that was loaded, as an operand. */
  quantity(address: string): Quantity {
    return { value: this.number(address), address };
  }

  /** Loads a vector, and returns its numbers as operands; `entry` gives the address of each. */
  async vector(name: string, indices: readonly Index[], entry: (i: number) => Index[]): Promise<Quantity[]> {
    const address = formatAddress(name, ...indices);
    await this.load(address);
    return Array.from(this.array(address), (value, i) => ({ value, address: formatAddress(name, ...entry(i)) }));
  }
}
