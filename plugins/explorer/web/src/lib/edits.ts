import type { Edit, Model } from "../engine/types";
import type { Translate } from "../lang/index.svelte";
import type { Selection } from "./selection";

/** The edit that switches off what is selected; null where nothing of it can be. */
export function offEdit(chosen: Selection, model: Model): Edit | null {
  switch (chosen.kind) {
    case "head":
      return { hook: `blocks.${chosen.layer}.attn.hook_z`, operation: "zero", heads: chosen.head };
    case "mlp":
      return { hook: `blocks.${chosen.layer}.hook_mlp_out`, operation: "zero" };
    case "neuron":
      return { hook: `blocks.${chosen.layer}.mlp.hook_post`, operation: "zero", neurons: chosen.neuron };
    case "cell":
      return { hook: stateHook(chosen.state, model), operation: "zero", positions: chosen.position };
    default:
      return null;
  }
}

/** The hook point of the stream before block `state`, or after the last one. */
export function stateHook(state: number, model: Model): string {
  const layers = model.cfg.n_layers;
  return state < layers ? `blocks.${state}.hook_resid_pre` : `blocks.${layers - 1}.hook_resid_post`;
}

const isSame = (one: Edit, other: Edit) => JSON.stringify(one) === JSON.stringify(other);

/** Whether what is selected is switched off. */
export function isSwitchedOff(edits: Edit[], chosen: Selection, model: Model): boolean {
  const off = offEdit(chosen, model);
  return off !== null && edits.some((one) => isSame(one, off));
}

/** The edits after what is selected was switched off, or on again. */
export function switchOff(edits: Edit[], chosen: Selection, model: Model): Edit[] {
  const off = offEdit(chosen, model);
  if (off === null) return edits;
  return isSwitchedOff(edits, chosen, model) ? edits.filter((one) => !isSame(one, off)) : [...edits, off];
}

/** An edit in words. */
export function describe(edit: Edit, t: Translate): string {
  const layer = Number(/^blocks\.(\d+)\./.exec(edit.hook)?.[1] ?? 0);
  if (edit.operation === "zero" && edit.hook.endsWith("attn.hook_z")) return t("off-head", { layer, head: String(edit.heads) });
  if (edit.operation === "zero" && edit.hook.endsWith("hook_mlp_out")) return t("off-mlp", { layer });
  if (edit.operation === "zero" && edit.hook.endsWith("mlp.hook_post")) return t("off-neuron", { layer, neuron: String(edit.neurons) });
  return `${edit.operation} ${edit.hook}${edit.positions === undefined ? "" : ` @ ${edit.positions}`}`;
}
