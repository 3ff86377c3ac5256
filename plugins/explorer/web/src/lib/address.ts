import type { Model } from "../engine/types";

/** What an address takes of an axis: one entry, or a part of it; null for an open end. */
export type Index = number | { from: number | null; to: number | null };

/** An address of a tensor or of a part of one; see `engine/types.ts`. */
export interface Address {
  name: string;
  indices: Index[];
}

/** All of an axis. */
export const ALL: Index = Object.freeze({ from: null, to: null });

const INDEX = /^(?:(\d+)|(\d*):(\d*))$/;

/** Reads an address; null for text that is none. */
export function parseAddress(text: string): Address | null {
  const [, name, inside] = /^([^\s[\],]+)(?:\[([^[\]]*)\])?$/.exec(text) ?? [];
  if (name === undefined) return null;
  if (inside === undefined) return { name, indices: [] };
  const indices: Index[] = [];
  for (const part of inside.split(",")) {
    const [, entry, from, to] = INDEX.exec(part.trim()) ?? [];
    if (entry !== undefined) indices.push(Number(entry));
    else if (from !== undefined) indices.push({ from: bound(from), to: bound(to!) });
    else return null;
  }
  return indices.every(isCountable) ? { name, indices } : null;
}

/** Whether a name fits a name, or a pattern with `*` and `?`. */
export function fits(glob: string, name: string): boolean {
  const pattern = glob.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  return new RegExp(`^${pattern}$`, "s").test(name);
}

/** Writes an address, such as `blocks.0.attn.hook_q[3,1,:]`. */
export function formatAddress(name: string, ...indices: readonly Index[]): string {
  return indices.length ? `${name}[${indices.map(formatIndex).join(",")}]` : name;
}

/** The axes that a name has in a model: of a hook point or weight, of the logits, or of a normalisation's output. */
export function axesOf(model: Model, name: string): { name: string; size: number | null }[] | null {
  const point = model.hook_points.find((one) => one.name === name);
  if (point) return point.axes.filter((axis) => axis.name !== "batch");
  const weight = model.weights.find((one) => one.name === name);
  if (weight) return weight.shape.map((size) => ({ name: "entry", size }));
  const position = { name: "pos", size: null };
  if (name === "logits" || name === "probabilities") return [position, { name: "d_vocab", size: model.cfg.d_vocab }];
  if (name in model.normalizations) return [position, { name: "d_model", size: model.cfg.d_model }];
  return null;
}

/** An address of one number of a model, in a text of so many tokens; null if it is no such address. */
export function parseValue(model: Model, text: string, positions: number): { name: string; indices: number[] } | null {
  const found = parseAddress(text);
  const axes = found && axesOf(model, found.name);
  if (!found || !axes || axes.length !== found.indices.length) return null;
  const fits = (index: Index, axis: number): index is number => typeof index === "number" && index < (axes[axis]!.size ?? positions);
  return found.indices.every(fits) ? { name: found.name, indices: found.indices as number[] } : null;
}

const bound = (text: string) => (text === "" ? null : Number(text));

function formatIndex(index: Index): string {
  return typeof index === "number" ? String(index) : `${index.from ?? ""}:${index.to ?? ""}`;
}

function isCountable(index: Index): boolean {
  const ends = typeof index === "number" ? [index] : [index.from ?? 0, index.to ?? 0];
  return ends.every(Number.isSafeInteger);
}
