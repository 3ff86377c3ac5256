/** Values for so many columns: where there are more values than columns, each column has the largest of its own by size. */
export function pool(values: readonly number[], columns: number): { values: number[]; size: number } {
  const size = Math.max(1, Math.ceil(values.length / columns));
  if (size === 1) return { values: [...values], size };
  const found: number[] = [];
  for (let start = 0; start < values.length; start += size) {
    found.push(values.slice(start, start + size).reduce((most, one) => (Math.abs(one) > Math.abs(most) ? one : most)));
  }
  return { values: found, size };
}
