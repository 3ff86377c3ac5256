import type { Edit, Model, Token } from "../engine/types";
import type { Translate } from "../lang/index.svelte";
import type { Selection } from "./selection";

/** An edit in the list of the page, which may be switched off for now. */
export type PageEdit = Edit & { off?: true };

/** The edits that are made, without what the page adds. */
export function active(edits: readonly PageEdit[]): Edit[] {
  return edits.filter((edit) => !edit.off).map(({ off: _, ...edit }) => edit);
}

/** Where an edit is made. */
export type Place = Pick<Edit, "hook" | "heads" | "neurons" | "positions" | "keys">;

/** The place of what is selected; null where it has none. */
export function placeOf(chosen: Selection, model: Model): Place | null {
  switch (chosen.kind) {
    case "head":
      return { hook: `blocks.${chosen.layer}.attn.hook_z`, heads: chosen.head };
    case "mlp":
      return { hook: `blocks.${chosen.layer}.hook_mlp_out` };
    case "neuron":
      return { hook: `blocks.${chosen.layer}.mlp.hook_post`, neurons: chosen.neuron };
    case "cell":
      return { hook: stateHook(chosen.state, model), positions: chosen.position };
    case "token":
      return { hook: stateHook(0, model), positions: chosen.position };
    default:
      return null;
  }
}

/** The hook point of the stream before block `state`, or after the last one. */
export function stateHook(state: number, model: Model): string {
  const layers = model.cfg.n_layers;
  return state < layers ? `blocks.${state}.hook_resid_pre` : `blocks.${layers - 1}.hook_resid_post`;
}

const isSame = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other);
const where = ({ hook, heads, neurons, positions, keys }: Place) => [hook, heads, neurons, positions, keys];

/** The edit of a kind at a place, where there is one. */
export function editAt(edits: readonly PageEdit[], place: Place, operations: readonly Edit["operation"][]): PageEdit | undefined {
  return edits.find((edit) => operations.includes(edit.operation) && isSame(where(edit), where(place)));
}

/** The edits with another one in place of those of its kinds at its place; null takes these away. */
export function withEdit(edits: readonly PageEdit[], place: Place, operations: readonly Edit["operation"][], edit: Edit | null): PageEdit[] {
  const old = editAt(edits, place, operations);
  if (!old) return edit ? [...edits, edit] : [...edits];
  return edits.flatMap((one) => (one !== old ? [one] : edit ? [edit] : []));
}

/** Whether what is selected is switched off. */
export function isSwitchedOff(edits: readonly PageEdit[], chosen: Selection, model: Model): boolean {
  const place = placeOf(chosen, model);
  const found = place && editAt(edits, place, ["zero"]);
  return found !== undefined && found !== null && !found.off;
}

/** The edits after what is selected was switched off, or on again. */
export function switchOff(edits: readonly PageEdit[], chosen: Selection, model: Model): PageEdit[] {
  const place = placeOf(chosen, model);
  if (place === null) return [...edits];
  return withEdit(edits, place, ["zero"], isSwitchedOff(edits, chosen, model) ? null : { ...place, operation: "zero" });
}

/** The edit that takes a state of another text into this one. */
export function patchEdit(state: number, position: number, text: string, from: number, model: Model): Edit {
  return { hook: stateHook(state, model), operation: "patch", positions: position, from: { text, position: from } };
}

/** An edit in words. */
export function describe(edit: Edit, t: Translate): string {
  const layer = Number(/^blocks\.(\d+)\./.exec(edit.hook)?.[1] ?? 0);
  const what = edit.hook.endsWith("attn.hook_z") || edit.hook.endsWith("hook_pattern")
    ? t("head-name", { layer, head: String(edit.heads ?? "*") })
    : edit.hook.endsWith("hook_mlp_out")
      ? t("title-mlp", { layer })
      : edit.hook.endsWith("mlp.hook_post")
        ? t("title-neuron", { layer, neuron: String(edit.neurons ?? "*") })
        : edit.hook.includes("hook_resid")
          ? t("edit-stream", { layer: edit.hook.endsWith("post") ? layer + 1 : layer })
          : edit.hook;
  const place = edit.positions === undefined || edit.hook.endsWith("hook_pattern") ? what : t("edit-at", { what, position: String(edit.positions) });
  switch (edit.operation) {
    case "zero":
      return t("edit-zero", { what: place });
    case "scale":
      return t("edit-scale", { what: place, factor: String(edit.factor ?? 1) });
    case "mean":
      return t("edit-mean", { what: place });
    case "freeze":
      return t("edit-freeze", { what });
    case "replace":
      return edit.hook.endsWith("hook_pattern") ? t("edit-cell", { what, query: String(edit.positions), key: String(edit.keys ?? "*") }) : t("edit-replace", { what: place });
    case "patch":
      return t("edit-patch", { what: place, text: edit.from?.text ?? "…" });
    case "add":
      return t("edit-add", { what: place, text: edit.from?.text ?? "…", minus: edit.from?.minus ?? "…", factor: String(edit.factor ?? 1) });
  }
}

/** The edits as Python code that makes the same run. */
export function asPython(edits: readonly Edit[], model: string, ids: readonly number[], tokens: readonly Token[]): string {
  const lines = ["import onnxlens", "", `lens = onnxlens.load(${quoted(model)})`, `text = [${ids.join(", ")}]  # ${comment(tokens)}`, "interventions = []"];
  for (const edit of edits) {
    const place = [
      ...(["heads", "neurons", "positions", "keys"] as const).filter((name) => edit[name] !== undefined).map((name) => `${name}=${literal(edit[name])}`),
    ].join(", ");
    const hook = quoted(edit.hook);
    const args = (...parts: string[]) => [...parts, place].filter(Boolean).join(", ");
    const read = (text: string) => `lens.run_with_cache(${text}, names_filter=${hook})[1]`;
    if (edit.operation === "zero") lines.push(`interventions.append(onnxlens.Intervention.zero(${args(hook)}))`);
    else if (edit.operation === "scale") lines.push(`interventions.append(onnxlens.Intervention.scale(${args(hook, String(edit.factor ?? 1))}))`);
    else if (edit.operation === "mean") lines.push(`interventions.append(onnxlens.Intervention.mean(${args(hook, read("text"))}))`);
    else if (edit.operation === "freeze") lines.push(`interventions.append(onnxlens.Intervention.freeze(${args(read("text"), hook)}))`);
    else if (edit.from) {
      const at = (text: string) => `${read(quoted(text))}[${hook}][0, ${edit.from!.position ?? -1}]`;
      const text = edit.from.text ?? "";
      if (edit.operation === "patch" && edit.from.position === undefined) lines.push(`interventions.append(onnxlens.Intervention.patch(${args(hook, read(quoted(text)))}))`);
      else {
        lines.push(`value = ${at(text)}${edit.from.minus === undefined ? "" : ` - ${at(edit.from.minus)}`}`);
        const made = edit.operation === "add" ? `add(${args(hook, "value", `factor=${edit.factor ?? 1}`)})` : `replace(${args(hook, "value")})`;
        lines.push(`interventions.append(onnxlens.Intervention.${made})`);
      }
    } else {
      const factor = edit.operation === "add" ? [`factor=${edit.factor ?? 1}`] : [];
      lines.push(`interventions.append(onnxlens.Intervention.${edit.operation}(${args(hook, literal(edit.value), ...factor)}))`);
    }
  }
  lines.push("print(lens.predict(text, interventions=interventions))");
  return lines.join("\n") + "\n";
}

/** The command that makes the same run with a file of the edits. */
export function asCommand(text: string, model: string): string {
  return `onnxlens predict -m ${shell(model)} --intervene edits.json ${shell(text)}`;
}

/** A word of a shell command. Control characters are escaped, so that the command stays on its line. */
export function shell(text: string): string {
  if (/[\x00-\x1f\x7f]/.test(text)) {
    const escape = (one: string) => (one === "\n" ? "\\n" : one === "\t" ? "\\t" : /[\\']/.test(one) ? `\\${one}` : `\\x${one.charCodeAt(0).toString(16).padStart(2, "0")}`);
    return `$'${text.replace(/[\x00-\x1f\x7f\\']/g, escape)}'`;
  }
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A Python string. JSON's escapes are Python's, too. */
export const quoted = (text: string) => JSON.stringify(text);

const literal = (value: unknown): string => (Array.isArray(value) ? `[${value.map(literal).join(", ")}]` : typeof value === "string" ? `slice(${value.split(":").map((one) => one || "None").join(", ")})` : String(value));
const comment = (tokens: readonly Token[]) => JSON.stringify(tokens.map((token) => token.label).join(""));
