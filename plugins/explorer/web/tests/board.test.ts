import { describe, expect, it } from "vitest";
import { around, columnsOf, FOLDED_FROM, headsOf, rowsOf } from "../src/board/layout";
import { mainSources, strongest } from "../src/lib/lines";

describe("rows", () => {
  it("are all tokens of a short text", () => {
    expect(rowsOf(3, new Set())).toEqual([0, 1, 2].map((position) => ({ kind: "token", position })));
  });

  it("cover each token once, in order, whatever is kept", () => {
    for (const count of [FOLDED_FROM, 61, 100, 1000])
      for (const step of [1, 2, 3, 7, 50, 2000]) {
        const kept = new Set([0, count - 1]);
        for (let one = 0; one < count; one += step) kept.add(one);
        const rows = rowsOf(count, kept);
        const covered = rows.flatMap((row) =>
          row.kind === "token" ? [row.position] : Array.from({ length: row.to - row.from + 1 }, (_, place) => row.from + place),
        );
        expect(covered).toEqual(Array.from({ length: count }, (_, position) => position));
        for (const row of rows) if (row.kind === "fold") expect(row.to).toBeGreaterThan(row.from);
      }
  });

  it("have neighbours within the text", () => {
    expect([...around([0, 9], 2, 10)].sort()).toEqual([0, 1, 2, 7, 8, 9]);
  });
});

describe("columns", () => {
  it("do not overlap, whatever the model and the room", () => {
    for (const states of [2, 5, 6, 13, 25, 49])
      for (const room of [328, 480, 700, 958, 1280, 1900])
        for (const focused of [0, 1, states - 1]) {
          const { columns, tokenWidth, width } = columnsOf(states, room, focused);
          let end = tokenWidth;
          for (const column of columns) {
            expect(column.left).toBeGreaterThanOrEqual(end);
            end = column.left + column.width;
          }
          expect(width).toBe(end);
          expect(columns.some((column) => column.state === focused && column.detail === "number") || columns[0]!.detail === "word").toBe(true);
          if (room < 480) expect([columns.length, width <= room]).toEqual([1, true]);
          else expect(columns.length).toBe(states);
        }
  });

  it("fit a desk's screen up to 48 blocks", () => {
    for (const states of [6, 13, 25, 49]) expect(columnsOf(states, 1248, 3).width).toBeLessThanOrEqual(1260);
  });

  it("give every head a place", () => {
    for (const count of [1, 4, 12, 25]) for (const width of [14, 60, 150]) {
      const { columns, hasNumbers } = headsOf(count, width);
      expect(columns).toBeGreaterThan(0);
      if (hasNumbers) expect(columns).toBe(count);
    }
  });
});

describe("lines", () => {
  const sources = { shape: [1, 2, 3], data: Float32Array.from([0, -5, 0.1, 2, 0, 0]) };

  it("keep the strongest effects, with their places", () => {
    expect(strongest(sources, [[0, 0], [1, 1], [2, 2]])).toEqual([
      { layer: 0, head: 0, group: 1, effect: -5 },
      { layer: 0, head: 1, group: 0, effect: 2 },
    ]);
    expect(mainSources(sources, 2)).toEqual([1, 0]);
  });

  it("add up the tokens of a group", () => {
    const [first] = strongest(sources, [[0, 0], [1, 2]]);
    expect(first).toMatchObject({ head: 0, group: 1 });
    expect(first!.effect).toBeCloseTo(-4.9, 6);
  });
});
