/** The places of values in the order of the values; those that are not there (NaN) come last, and equal ones stay in their order. */
export function ranking(values: ArrayLike<number>, isDescending: boolean): number[] {
  const places = Array.from({ length: values.length }, (_, place) => place);
  const sign = isDescending ? -1 : 1;
  return places.sort((a, b) => {
    const [one, other] = [values[a]!, values[b]!];
    if (Number.isNaN(one) || Number.isNaN(other)) return Number(Number.isNaN(one)) - Number(Number.isNaN(other)) || a - b;
    return sign * (one - other) || a - b;
  });
}
