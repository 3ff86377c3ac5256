import type { Edit, Model } from "../../engine/types";
import { axesOf, fits } from "../address";

/** Whether an edit changes one number of a hook point, in a text of so many tokens. */
export function touches(edit: Edit, model: Model, name: string, indices: readonly number[], positions: number): boolean {
  if (!fits(edit.hook, name)) return false;
  const axes = axesOf(model, name);
  if (!axes) return false;
  const limits: Record<string, [Edit["positions"], number]> = {
    pos: [edit.positions, positions],
    query_pos: [edit.positions, positions],
    key_pos: [edit.keys, positions],
    head: [edit.heads, model.cfg.n_heads],
    kv_head: [edit.heads, model.cfg.n_key_value_heads ?? model.cfg.n_heads],
    d_mlp: [edit.neurons, model.cfg.d_mlp],
  };
  return axes.every((axis, place) => {
    const [wanted, size] = limits[axis.name] ?? [undefined, 0];
    return wanted === undefined || wanted === null || covers(wanted, indices[place]!, size);
  });
}

/** Whether an index, or several, or a part such as `2:5`, has an entry of an axis; negative ones count from the end. */
function covers(wanted: number | number[] | string, entry: number, size: number): boolean {
  const from = (index: number) => (index < 0 ? index + size : index);
  if (typeof wanted === "string") {
    const [start, end, step] = wanted.split(":").map((one) => (one.trim() === "" ? null : Number(one)));
    if (!wanted.includes(":")) return from(start ?? 0) === entry;
    const first = Math.max(from(start ?? 0), 0);
    return entry >= first && entry < (end === null || end === undefined ? size : from(end)) && (entry - first) % (step ?? 1) === 0;
  }
  return (Array.isArray(wanted) ? wanted : [wanted]).some((one) => from(one) === entry);
}
