import { describe, expect, it } from "vitest";
import { LANGUAGES, preferred, text } from "../src/lang/index.svelte";

const files = import.meta.glob<string>("../src/**/*.{svelte,ts}", { query: "?raw", import: "default", eager: true });
const sources = Object.values(files).join("\n");

describe("languages", () => {
  it("have the same texts with the same holes", () => {
    const holes = (one: string) => [...one.matchAll(/\{(\w+)\}/g)].map((found) => found[1]).sort();
    const english = LANGUAGES.en!;
    for (const texts of Object.values(LANGUAGES)) {
      expect(Object.keys(texts).sort()).toEqual(Object.keys(english).sort());
      for (const [key, value] of Object.entries(texts)) expect([key, holes(value)]).toEqual([key, holes(english[key]!)]);
    }
  });

  it("have every text that the page names, and no others", () => {
    const named = [...sources.matchAll(/\bt\("([\w-]+)"/g)].map((found) => found[1]!);
    const parts = [...sources.matchAll(/\bt\(`([\w-]+)\$\{/g)].map((found) => found[1]!); // keys with an ending
    expect(named.filter((key) => !(key in LANGUAGES.en!))).toEqual([]);
    const isUsed = (key: string) => sources.includes(`"${key}"`) || key === "language-name" || parts.some((part) => key.startsWith(part));
    expect(Object.keys(LANGUAGES.en!).filter((key) => !isUsed(key))).toEqual([]);
  });

  it("are chosen by the browser, and English where it has none of them", () => {
    expect([preferred(["zh-CN", "en"]), preferred(["fr", "en-GB"]), preferred(["fr"])]).toEqual(["zh", "en", "en"]);
    expect(text("zh", "block", { block: 3 })).toBe("第 3 层");
  });
});
