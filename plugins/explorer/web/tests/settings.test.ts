import { describe, expect, it } from "vitest";
import { among, Options, within } from "../src/lib/settings.svelte";

describe("options", () => {
  it("keep what differs from how they begin", () => {
    const options = new Options();
    expect(options.get("temperature", 1)).toBe(1);
    options.set("temperature", 0.5, 1);
    options.set("numbers", true, false);
    expect(options.all).toEqual({ temperature: 0.5, numbers: true });
    options.set("temperature", 1, 1);
    expect(options.all).toEqual({ numbers: true });
  });

  it("are as they begin where a link has something else", () => {
    const options = new Options();
    options.all = { temperature: "hot", top_p: -3, sweep: "moon", numbers: 1, stage: null };
    expect(options.get("temperature", 1)).toBe(1);
    expect(options.get("top_p", 1, within(0, 1))).toBe(1);
    expect(options.get("sweep", "a", among(["a", "b"]))).toBe("a");
    expect(options.get("numbers", false)).toBe(false);
    expect(options.get("stage", "shares")).toBe("shares");
  });
});
