/**
 * NumPy's default generator: PCG64 seeded by a SeedSequence, so that a seed draws the same numbers as in Python.
 * https://numpy.org/doc/stable/reference/random/bit_generators/pcg64.html; O'Neill 2014, PCG.
 */
const M32 = 0xffffffffn, M64 = (1n << 64n) - 1n, M128 = (1n << 128n) - 1n;
const MULTIPLIER = (2549297995355413924n << 64n) | 4865540595714422341n;

/** Draws numbers in [0, 1), as `numpy.random.default_rng(seed).random()`. */
export class Random {
  #state: bigint;
  #increment: bigint;

  constructor(seed: number) {
    const words = seeded(BigInt(seed), 8);
    const wide = (first: number) => (BigInt(words[first + 1]!) << 32n) | BigInt(words[first]!);
    const state = (wide(0) << 64n) | wide(2);
    const sequence = (wide(4) << 64n) | wide(6);
    this.#increment = ((sequence << 1n) | 1n) & M128;
    this.#state = 0n;
    this.#step();
    this.#state = (this.#state + state) & M128;
    this.#step();
  }

  random(): number {
    this.#step();
    const mixed = ((this.#state >> 64n) ^ this.#state) & M64;
    const turn = this.#state >> 122n;
    const bits = turn ? ((mixed >> turn) | (mixed << (64n - turn))) & M64 : mixed;
    return Number(bits >> 11n) / 2 ** 53;
  }

  #step(): void {
    this.#state = (this.#state * MULTIPLIER + this.#increment) & M128;
  }
}

/** The 32-bit words that `numpy.random.SeedSequence(seed).generate_state(count)` returns. */
function seeded(seed: bigint, count: number): number[] {
  const entropy: bigint[] = [];
  for (let rest = seed; rest > 0n || !entropy.length; rest >>= 32n) entropy.push(rest & M32);
  let constant = 0x43b0d7e5n;
  const hash = (value: bigint): bigint => {
    value = (value ^ constant) & M32;
    constant = (constant * 0x931e8875n) & M32;
    value = (value * constant) & M32;
    return value ^ (value >> 16n);
  };
  const mix = (one: bigint, other: bigint): bigint => {
    const found = (one * 0xca01f9ddn - other * 0x4973f715n) & M32;
    return found ^ (found >> 16n);
  };
  const pool = Array.from({ length: 4 }, (_, place) => hash(entropy[place] ?? 0n));
  for (let from = 0; from < 4; from++) for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mix(pool[to]!, hash(pool[from]!));
  for (const more of entropy.slice(4)) for (let to = 0; to < 4; to++) pool[to] = mix(pool[to]!, hash(more));
  constant = 0x8b51f9ddn;
  return Array.from({ length: count }, (_, place) => {
    let value = pool[place % 4]! ^ constant;
    constant = (constant * 0x58f38dedn) & M32;
    value = (value * constant) & M32;
    return Number(value ^ (value >> 16n));
  });
}
