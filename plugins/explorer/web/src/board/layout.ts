/** A row of the board: a token, or tokens that are folded into one row. */
export type Row = { kind: "token"; position: number } | { kind: "fold"; from: number; to: number }; // `to` is the last one

/** From how many tokens on a text is folded. */
export const FOLDED_FROM = 60;

/**
 * The rows of a text of `count` tokens: all of them if they are few; else those in `kept`, and a row for each gap between
 * them. A gap of one token is that token.
 */
export function rowsOf(count: number, kept: ReadonlySet<number>): Row[] {
  if (count < FOLDED_FROM) return Array.from({ length: count }, (_, position) => ({ kind: "token", position }));
  const rows: Row[] = [];
  let gap = 0;
  const close = (end: number) => {
    if (gap === 1) rows.push({ kind: "token", position: end - 1 });
    else if (gap > 1) rows.push({ kind: "fold", from: end - gap, to: end - 1 });
    gap = 0;
  };
  for (let position = 0; position < count; position++) {
    if (!kept.has(position)) {
      gap++;
      continue;
    }
    close(position);
    rows.push({ kind: "token", position });
  }
  close(count);
  return rows;
}

/** A set of positions with their neighbours, within a text of `count` tokens. */
export function around(positions: Iterable<number>, distance: number, count: number): Set<number> {
  const found = new Set<number>();
  for (const position of positions)
    for (let one = Math.max(0, position - distance); one <= Math.min(count - 1, position + distance); one++) found.add(one);
  return found;
}

/** How a state of the stream is drawn: with a word and its number, with a word, or as a tint. */
export type Detail = "number" | "word" | "tint";

/** A column of the board: a state of the stream. Lengths in pixels. */
export interface Column {
  state: number;
  left: number;
  width: number;
  detail: Detail;
}

export interface Columns {
  columns: Column[];
  tokenWidth: number;
  width: number; // of everything
}

const NUMBERED = 92, WORD = 46, TINT = 11; // the least widths of a cell
const WIDEST = 160; // of a cell, where there is more room than the gaps take
const GAP = { most: 110, least: 40, narrow: 16, tint: 4 };

/**
 * Places the columns in a room. Few blocks get words and numbers; more get words; where even these have no room, all are
 * tinted but those around the focused state, which have words (a lens). On a phone there is one column, the focused one.
 */
export function columnsOf(states: number, room: number, focused: number): Columns {
  const tokenWidth = room < 480 ? 104 : 118;
  const place = (widths: { width: number; detail: Detail }[], gap: number, shown = widths.map((_, state) => state)): Columns => {
    let left = tokenWidth;
    const columns = shown.map((state, at) => {
      const column = { state, left, ...widths[at]! };
      left += column.width + gap;
      return column;
    });
    return { columns, tokenWidth, width: left - gap };
  };
  if (room < 480) {
    const gap = Math.max(GAP.narrow, Math.min(GAP.most, room - tokenWidth - NUMBERED - 40));
    const one = place([{ width: Math.max(NUMBERED, room - tokenWidth - gap), detail: "number" }], 0, [focused]);
    one.columns[0]!.left += gap;
    one.width += gap;
    return one;
  }
  const each = (room - tokenWidth) / states;
  const gaps = Math.max(1, states - 1);
  if (each >= NUMBERED + GAP.least) {
    const gap = Math.min(GAP.most, Math.floor((room - tokenWidth - states * NUMBERED) / gaps));
    const width = Math.min(WIDEST, Math.max(NUMBERED, Math.floor((room - tokenWidth - gaps * gap) / states)));
    return place(Array.from({ length: states }, () => ({ width, detail: "number" })), gap);
  }
  if (each >= WORD + GAP.narrow) {
    const width = Math.floor(each - GAP.narrow);
    return place(Array.from({ length: states }, () => ({ width, detail: width >= NUMBERED - 14 ? "number" : "word" })), GAP.narrow);
  }
  const lens = (state: number) => Math.abs(state - focused) <= 1;
  const inLens = Array.from({ length: states }, (_, state) => state).filter(lens).length;
  const rest = (room - tokenWidth - inLens * NUMBERED - gaps * GAP.tint) / Math.max(1, states - inLens);
  const tint = Math.max(TINT, Math.min(40, Math.floor(rest)));
  return place(
    Array.from({ length: states }, (_, state) => (lens(state) ? { width: NUMBERED, detail: "number" } : { width: tint, detail: "tint" })),
    GAP.tint,
  );
}

/** How the heads of a block are laid out in a width: how many in a row, and whether numbers fit. */
export function headsOf(count: number, width: number): { columns: number; hasNumbers: boolean } {
  if (width / count >= 30) return { columns: count, hasNumbers: true };
  const columns = Math.max(1, Math.min(count, Math.floor(width / 11)));
  return { columns, hasNumbers: false };
}
