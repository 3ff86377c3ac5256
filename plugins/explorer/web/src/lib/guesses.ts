import type { Answer, RunFacts, Tensor } from "../engine/types";

/** From how many letters on a text is run without the guesses of all its positions: they are asked for as they are shown. */
export const LONG = 240;

const IDS = "guesses.ids", SHARES = "guesses.probabilities";

/** The names of the states of the stream: before each block, and after the last. */
export function stateNames(layers: number): string[] {
  return Array.from({ length: layers + 1 }, (_, state) => (state < layers ? `${state}_pre` : "final_post"));
}

/** An answer with room for guesses at all positions: ids of -1 where they are not known. */
export function withRoom(answer: Answer<RunFacts>, top = 5): Answer<RunFacts> {
  if (answer.arrays[IDS]) return answer;
  const [layers, , positions] = answer.arrays["sources"]!.shape as [number, number, number];
  const shape = [layers + 1, positions, top];
  const size = (layers + 1) * positions * top;
  const arrays = { ...answer.arrays, [IDS]: { shape, data: new Int32Array(size).fill(-1) }, [SHARES]: { shape, data: new Float32Array(size) } };
  return { facts: { ...answer.facts, states: stateNames(layers) }, arrays };
}

/** Those of some positions whose guesses are not known. */
export function unknown(answer: Answer<RunFacts>, positions: readonly number[]): number[] {
  const { data, shape } = answer.arrays[IDS]!;
  return positions.filter((position) => data[position * shape[2]!] === -1);
}

/** An answer with the guesses of another one at some positions. */
export function filled(answer: Answer<RunFacts>, found: Answer<RunFacts>, positions: readonly number[]): Answer<RunFacts> {
  const arrays = { ...answer.arrays };
  for (const name of [IDS, SHARES]) {
    const { data, shape } = arrays[name]!;
    const [states, count, top] = shape as [number, number, number];
    const copy = data.slice();
    const from: Tensor = found.arrays[name]!;
    for (let state = 0; state < states; state++)
      for (const [place, position] of positions.entries())
        for (let one = 0; one < top; one++)
          copy[(state * count + position) * top + one] = from.data[(state * positions.length + place) * top + one]!;
    arrays[name] = { shape, data: copy };
  }
  return { facts: { ...answer.facts, labels: { ...answer.facts.labels, ...found.facts.labels } }, arrays };
}
