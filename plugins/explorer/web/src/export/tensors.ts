import type { Model } from "../engine/types";
import { ALL, axesOf, formatAddress, parseAddress, type Index } from "../lib/address";
import { keyHead } from "../lib/arithmetic/attention";
import { stateHook } from "../lib/edits";
import type { Selection } from "../lib/selection";

/** The axes of derived values, by the name of the array. */
const DERIVED: Record<string, string[]> = {
  "next.logits": ["token_id"],
  "next.ids": ["rank"],
  "guesses.ids": ["state", "pos", "rank"],
  "guesses.probabilities": ["state", "pos", "rank"],
  "effects.heads": ["layer", "head"],
  "effects.mlps": ["layer"],
  sources: ["layer", "head", "pos"],
  ranks: ["state"],
  "ranks.probabilities": ["state"],
  norms: ["state", "pos"],
  neurons: ["layer", "neuron"],
};

/** The addresses of what a selection shows. */
export function addressesOf(chosen: Selection | null, model: Model, position: number): string[] {
  if (!chosen) return [];
  const has = (name: string) => model.hook_points.some((point) => point.name === name);
  const some = (...found: [name: string, ...indices: Index[]][]) => found.filter(([name]) => has(name)).map(([name, ...indices]) => formatAddress(name, ...indices));
  switch (chosen.kind) {
    case "token":
      return some(["hook_embed", chosen.position], ["hook_pos_embed", chosen.position], ["blocks.0.hook_resid_pre", chosen.position]);
    case "cell":
      return some([stateHook(chosen.state, model), chosen.position]);
    case "block": {
      const at: Index[] = chosen.position === undefined ? [] : [chosen.position];
      const names = ["hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post"];
      return some(...names.map((name): [string, ...Index[]] => [`blocks.${chosen.layer}.${name}`, ...at]));
    }
    case "norm": {
      const norm = model.normalizations[chosen.name];
      const names = [...(norm ? [norm.reads] : []), `${chosen.name}.hook_scale`, `${chosen.name}.hook_normalized`];
      return some(...names.map((name): [string, ...Index[]] => [name, chosen.position ?? position]));
    }
    case "head": {
      const { layer, head } = chosen;
      const attn = `blocks.${layer}.attn`;
      const shared = keyHead({ model }, head);
      const own = (name: string, which: number): [string, ...Index[]] => [`${attn}.${name}`, ALL, which];
      return some(
        [`${attn}.hook_pattern`, head], [`${attn}.hook_attn_scores`, head],
        own("hook_q", head), own("hook_rot_q", head), own("hook_k", shared), own("hook_rot_k", shared), own("hook_v", shared), own("hook_z", head), own("hook_result", head),
      );
    }
    case "mlp": {
      const names = ["mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post", "hook_mlp_out"];
      return some(...names.map((name): [string, ...Index[]] => [`blocks.${chosen.layer}.${name}`, chosen.position ?? position]));
    }
    case "neuron":
      return some(...["mlp.hook_pre", "mlp.hook_post"].map((name): [string, ...Index[]] => [`blocks.${chosen.layer}.${name}`, ALL, chosen.neuron]));
    case "value":
      return has(parseAddress(chosen.address)?.name ?? "") ? [chosen.address] : [];
    case "tool":
      return [];
  }
}

/** The axes of an array of an answer, and the place at which each begins. */
export function labelled(name: string, dimensions: number, model: Model): { axes: string[]; starts: number[] } {
  const address = parseAddress(name);
  const all = address && axesOf(model, address.name);
  const kept = (all ?? []).flatMap(({ name: axis }, place) => {
    const index = address?.indices[place];
    return typeof index === "number" ? [] : [{ axis, start: index?.from ?? 0 }];
  });
  const names = DERIVED[name] ?? (kept.length === dimensions ? kept.map((one) => one.axis) : Array.from({ length: dimensions }, () => "entry"));
  // Axes of one name, such as those of a weight, are told apart.
  const axes = names.map((one, place) => (names.filter((other) => other === one).length > 1 ? `${one}_${place}` : one));
  return { axes, starts: kept.length === dimensions ? kept.map((one) => one.start) : names.map(() => 0) };
}
