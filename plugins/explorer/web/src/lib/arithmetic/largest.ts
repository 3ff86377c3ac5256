/** The place of the largest value; of equal ones the first. */
export function argmax(values: ArrayLike<number>): number {
  let found = 0;
  for (let place = 1; place < values.length; place++) if (values[place]! > values[found]!) found = place;
  return found;
}

/** The places of the largest values, the largest first, and of equal ones the first; minus infinity and NaN have none. */
export function largest(values: ArrayLike<number>, count: number): number[] {
  let least = -Infinity;
  if (count < values.length / 4) {
    // Numbers alone are sorted much faster than places, and few of them are needed.
    const sorted = new Float64Array(values.length);
    for (let i = 0; i < values.length; i++) sorted[i] = values[i]! > -Infinity ? values[i]! : -Infinity;
    least = sorted.sort()[values.length - Math.max(count, 1)]!;
  }
  const found: number[] = [];
  for (let i = 0; i < values.length; i++) if (values[i]! >= least && values[i]! > -Infinity) found.push(i);
  return found.sort((a, b) => values[b]! - values[a]! || a - b).slice(0, count);
}
