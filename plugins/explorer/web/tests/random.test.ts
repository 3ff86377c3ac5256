import { describe, expect, it } from "vitest";
import { Random } from "../src/engine/browser/random";

describe("random numbers", () => {
  // numpy.random.default_rng(seed).random(), three times each.
  it.each([
    [0, [0.6369616873214543, 0.2697867137638703, 0.04097352393619469]],
    [7, [0.625095466604667, 0.8972138009695755, 0.7756856902451935]],
    [4294967295, [0.2519435680449965, 0.21906579628685663, 0.28728472043517017]],
    [1099511627781, [0.004739459374490829, 0.3725845824112115, 0.5872294266977701]], // more than 32 bits
  ])("of seed %d are NumPy's", (seed, expected) => {
    const random = new Random(seed);
    expect(expected.map(() => random.random())).toEqual(expected);
  });
});
