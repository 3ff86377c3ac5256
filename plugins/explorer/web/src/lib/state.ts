import type { Edit } from "../engine/types";

/** What is selected: a head, a pair of tokens of a head, or the guesses at a place of the stream. */
export type Selection =
  | { kind: "head"; layer: number; head: number; key?: number }
  | { kind: "cell"; state: number; position: number };

export interface State {
  text: string;
  selection: Selection | null;
  edits: Edit[];
  language: string | null;
}

/** The state in the part of the address after `#`. */
export function write(state: State): string {
  const entries = new URLSearchParams();
  entries.set("text", state.text);
  const chosen = state.selection;
  if (chosen?.kind === "head") entries.set("head", [chosen.layer, chosen.head, chosen.key ?? ""].join("."));
  if (chosen?.kind === "cell") entries.set("cell", `${chosen.state}.${chosen.position}`);
  if (state.edits.length) entries.set("edits", JSON.stringify(state.edits));
  if (state.language) entries.set("lang", state.language);
  return "#" + entries.toString();
}

/** Reads what `write` returned; entries that cannot be read are left out. */
export function read(hash: string): Partial<State> & { token?: string } {
  const entries = new URLSearchParams(hash.replace(/^#/, ""));
  const found: Partial<State> & { token?: string } = {};
  const text = entries.get("text");
  if (text !== null) found.text = text;
  const [layer, head, key] = (entries.get("head") ?? "").split(".").map((part) => (part === "" ? NaN : Number(part)));
  if (Number.isInteger(layer) && Number.isInteger(head)) {
    found.selection = { kind: "head", layer: layer!, head: head!, ...(Number.isInteger(key) ? { key: key! } : {}) };
  }
  const [state, position] = (entries.get("cell") ?? "").split(".").map((part) => (part === "" ? NaN : Number(part)));
  if (Number.isInteger(state) && Number.isInteger(position)) {
    found.selection = { kind: "cell", state: state!, position: position! };
  }
  try {
    const edits = JSON.parse(entries.get("edits") ?? "[]");
    if (Array.isArray(edits)) found.edits = edits;
  } catch {
    // a link that was cut: without edits
  }
  const token = entries.get("token");
  if (token) found.token = token;
  found.language = entries.get("lang");
  return found;
}
