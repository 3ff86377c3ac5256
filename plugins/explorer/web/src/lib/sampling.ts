/** Temperature and truncation over the full vocabulary, fast enough for a slider: the logits are sorted once. */

export interface Sorted {
  ids: Int32Array; // by logit, the largest first; of equals, the lower id first
  logits: Float64Array; // in that order
}

/** What the sliders set; each as in the sampler of that name. */
export interface Shape {
  temperature: number; // 0: always the most probable token
  top_k: number; // 0 for all
  top_p: number; // 1 for all
  min_p: number; // 0 for all
}

export const NEUTRAL: Shape = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 };

export interface Shaped {
  shares: Float64Array; // probabilities in the order of `Sorted`, after truncation
  kept: number; // how many tokens are left: the first ones
  entropy: number; // of what is left, in nats
}

/** Sorts logits. */
export function sorted(logits: ArrayLike<number>): Sorted {
  const ids = Int32Array.from({ length: logits.length }, (_, id) => id).sort((a, b) => logits[b]! - logits[a]! || a - b);
  return { ids, logits: Float64Array.from(ids, (id) => logits[id]!) };
}

/**
 * The distribution after temperature, top-k (Fan et al. 2018), top-p (Holtzman et al. 2020) and min-p (Nguyen et al.
 * 2024), in this order. Each of them keeps the first tokens of the sorted ones; tokens that tie with the last one of
 * top-k stay, too.
 */
export function shape({ logits }: Sorted, { temperature, top_k, top_p, min_p }: Shape): Shaped {
  const shares = new Float64Array(logits.length);
  if (temperature === 0) {
    shares[0] = 1;
    return { shares, kept: 1, entropy: 0 };
  }
  let kept = logits.length;
  if (top_k > 0 && top_k < kept) {
    kept = top_k;
    while (kept < logits.length && logits[kept] === logits[top_k - 1]) kept++;
  }
  let total = 0;
  for (let place = 0; place < kept; place++) total += shares[place] = Math.exp((logits[place]! - logits[0]!) / temperature);
  if (top_p < 1) {
    let mass = 0;
    for (let place = 0; place < kept; place++)
      if ((mass += shares[place]!) >= top_p * total) {
        shares.fill(0, place + 1, kept);
        [kept, total] = [place + 1, mass];
        break;
      }
  }
  if (min_p > 0) {
    let left = 1;
    while (left < kept && shares[left]! >= min_p) left++; // the largest is exp(0) = 1
    shares.fill(0, left, kept);
    kept = left;
    total = 0;
    for (let place = 0; place < kept; place++) total += shares[place]!;
  }
  let entropy = 0;
  for (let place = 0; place < kept; place++) {
    const share = (shares[place]! /= total);
    if (share > 0) entropy -= share * Math.log(share);
  }
  return { shares, kept, entropy };
}

/** The chain of samplers that does the same. */
export function chainOf({ temperature, top_k, top_p, min_p }: Shape): string {
  if (temperature === 0) return "greedy";
  const stages = [
    ...(temperature === 1 ? [] : [`temperature=${temperature}`]),
    ...(top_k > 0 ? [`top_k=${top_k}`] : []),
    ...(top_p < 1 ? [`top_p=${top_p}`] : []),
    ...(min_p > 0 ? [`min_p=${min_p}`] : []),
  ];
  return [...stages, "multinomial"].join(" | ");
}
