import type { PageEdit } from "./edits";
import type { Settings } from "./settings.svelte";
import { readSelection, writeSelection, type Selection } from "./selection";

/** Everything that the address of the page holds. */
export interface State {
  text: string;
  ids: number[] | null; // the tokens, where they are not those of the text
  model: string | null;
  position: number | null; // that predicts; null for the last one
  token: number | null; // the answer; null for the most probable token
  against: number | null; // the rival; null for the most probable other word
  selection: Selection | null; // null for the one that the page chooses
  edits: PageEdit[];
  other: string | null; // a second text, to compare and to take values from
  otherModel: string | null;
  tour: number | null; // the step of the tour
  options: Settings; // what is set in tools and panels
  language: string | null;
}

export const EMPTY: Omit<State, "text"> = {
  ids: null,
  model: null,
  position: null,
  token: null,
  against: null,
  selection: null,
  edits: [],
  other: null,
  otherModel: null,
  tour: null,
  options: {},
  language: null,
};

const NUMBERS = ["position", "token", "against", "tour"] as const;
const TEXTS = ["model", "other", "otherModel"] as const;

/** The state in the part of the address after `#`. */
export function write(state: State): string {
  const entries = new URLSearchParams();
  entries.set("text", state.text);
  if (state.ids) entries.set("ids", state.ids.join("."));
  for (const name of TEXTS) if (state[name] !== null) entries.set(name, state[name]);
  for (const name of NUMBERS) if (state[name] !== null) entries.set(name, String(state[name]));
  if (state.selection) entries.set("at", writeSelection(state.selection));
  if (state.edits.length) entries.set("edits", JSON.stringify(state.edits));
  if (Object.keys(state.options).length) entries.set("options", JSON.stringify(state.options));
  if (state.language) entries.set("lang", state.language);
  return "#" + entries.toString().replaceAll("%3A", ":").replaceAll("%2C", ","); // which need no escape here
}

/** Reads what `write` returned; entries that cannot be read are left out. `key` is the server's token of a link. */
export function read(hash: string): Partial<State> & { key?: string } {
  const entries = new URLSearchParams(hash.replace(/^#/, ""));
  const found: Partial<State> & { key?: string } = {};
  const text = entries.get("text");
  if (text !== null) found.text = text;
  const ids = entries.get("ids");
  if (ids && /^\d+(\.\d+)*$/.test(ids)) found.ids = ids.split(".").map(Number);
  for (const name of TEXTS) {
    const value = entries.get(name);
    if (value) found[name] = value;
  }
  for (const name of NUMBERS) {
    const value = entries.get(name);
    if (value !== null && /^\d+$/.test(value)) found[name] = Number(value);
  }
  const selection = readSelection(entries.get("at") ?? "");
  if (selection) found.selection = selection;
  const edits = parsed(entries.get("edits"));
  if (Array.isArray(edits) && edits.length) found.edits = edits;
  const options = parsed(entries.get("options"));
  if (options && typeof options === "object" && !Array.isArray(options)) found.options = options as Settings;
  const key = entries.get("key");
  if (key) found.key = key;
  const language = entries.get("lang");
  if (language) found.language = language;
  return found;
}

/** JSON; null in a link that was cut. */
function parsed(text: string | null): unknown {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}
