/** A matrix whose neighbouring cells were joined: each holds the largest of its values by size, with its sign. */
export interface Pooled {
  rows: number;
  columns: number;
  rowSize: number; // of the matrix's rows in a row here; the last one can have fewer
  columnSize: number;
  places: Int32Array; // of each cell's value in the matrix
}

/** Joins neighbouring cells of a matrix so that it has at most so many rows and columns. Values that are not there (NaN, minus infinity) lose to all others. */
export function pooled(values: ArrayLike<number>, rows: number, columns: number, mostRows: number, mostColumns: number): Pooled {
  const rowSize = Math.max(1, Math.ceil(rows / Math.max(1, mostRows)));
  const columnSize = Math.max(1, Math.ceil(columns / Math.max(1, mostColumns)));
  const [high, wide] = [Math.ceil(rows / rowSize), Math.ceil(columns / columnSize)];
  const places = new Int32Array(high * wide).fill(-1);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const cell = Math.floor(row / rowSize) * wide + Math.floor(column / columnSize);
      const place = row * columns + column;
      if (places[cell] === -1 || size(values[place]!) > size(values[places[cell]!]!)) places[cell] = place;
    }
  return { rows: high, columns: wide, rowSize, columnSize, places };
}

const size = (value: number) => (Number.isFinite(value) ? Math.abs(value) : -1);

/** Values for so many columns: where there are more values than columns, each column has the largest of its own by size. */
export function pooledRow(values: ArrayLike<number>, columns: number): { values: number[]; size: number } {
  const { places, columnSize } = pooled(values, 1, values.length, 1, columns);
  return { values: Array.from(places, (place) => values[place]!), size: columnSize };
}
