import { describe, expect, it } from "vitest";
import type { Edit, Model } from "../src/engine/types";
import { active, asCommand, asPython, describe as words, editAt, isSwitchedOff, placeOf, switchOff, withEdit, type PageEdit } from "../src/lib/edits";
import { text } from "../src/lang/index.svelte";
import type { Selection } from "../src/lib/selection";

const model = { cfg: { n_layers: 5 } } as Model;
const t = (key: string, values?: Record<string, string | number>) => text("en", key, values);
const PLACES: Selection[] = [
  { kind: "head", layer: 4, head: 1 },
  { kind: "mlp", layer: 2 },
  { kind: "neuron", layer: 2, neuron: 7 },
  { kind: "cell", state: 5, position: 3 },
  { kind: "token", position: 0 },
];

describe("edits", () => {
  it.each(PLACES)("switch off a $kind, and on again", (chosen) => {
    const off = switchOff([], chosen, model);
    expect([off.length, isSwitchedOff(off, chosen, model)]).toEqual([1, true]);
    expect(switchOff(off, chosen, model)).toEqual([]);
    expect(words(off[0]!, t)).toMatch(/ off$/);
  });

  it("keep what is elsewhere, and their order", () => {
    const place = placeOf(PLACES[0]!, model)!;
    const others: PageEdit[] = [{ hook: "a", operation: "zero" }, { ...place, operation: "scale", factor: 2 }, { hook: "b", operation: "zero" }];
    const changed = withEdit(others, place, ["scale"], { ...place, operation: "scale", factor: -1 });
    expect(changed.map((one) => [one.hook, one.factor])).toEqual([["a", undefined], [place.hook, -1], ["b", undefined]]);
    expect(withEdit(changed, place, ["scale"], null).map((one) => one.hook)).toEqual(["a", "b"]);
    expect(editAt(changed, place, ["zero"])).toBeUndefined();
  });

  it("that are switched off are not made", () => {
    const list: PageEdit[] = [{ hook: "a", operation: "zero", off: true }, { hook: "b", operation: "zero" }];
    expect(active(list)).toEqual([{ hook: "b", operation: "zero" }]);
  });

  it("are written as Python and as a command", () => {
    const edits: Edit[] = [
      { hook: "blocks.0.attn.hook_z", operation: "scale", heads: 1, factor: 0.5 },
      { hook: "blocks.1.hook_resid_pre", operation: "add", factor: 2, from: { text: 'a "b"', minus: "c", position: -1 } },
    ];
    const code = asPython(edits, "tiny", [1, 2], [{ id: 1, label: "a\n", bytes: "" }]);
    expect(code).toContain("Intervention.scale(\"blocks.0.attn.hook_z\", 0.5, heads=1)");
    expect(code).toContain('lens.run_with_cache("a \\"b\\"", names_filter="blocks.1.hook_resid_pre")');
    expect(code.split("\n").filter((line) => line.includes("#"))).toEqual(['text = [1, 2]  # "a\\n"']);
    expect(asCommand("it's", "tiny")).toBe("onnxlens predict -m 'tiny' --intervene edits.json 'it'\\''s'");
  });
});
