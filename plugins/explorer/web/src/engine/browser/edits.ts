import { fits } from "../../lib/address";
import { EngineError, type Edit, type HookPoint, type Tensor } from "../types";
import type { Change, Changes } from "./session";

/** What edits need of a model. */
export interface Source {
  changeable: readonly string[];
  points: readonly HookPoint[]; // all of them
  encode(text: string): number[];
  read(ids: readonly number[], name: string): Promise<Tensor>; // in a run without edits
}

const INDICES = { positions: ["pos", "query_pos"], heads: ["head", "kv_head"], neurons: ["d_mlp"], keys: ["key_pos"] } as const;

/** The changes of edits, one after the other, on a text, of which the first `prompt` tokens were not generated. */
export async function resolved(source: Source, edits: readonly Edit[], ids: readonly number[], prompt: number): Promise<Changes> {
  const changes: Changes = new Map();
  for (const edit of edits) {
    for (const { name, axes } of matching(source, edit)) {
      if (prompt < ids.length && (edit.operation === "freeze" || edit.operation === "patch") && edit.from === undefined)
        throw new EngineError(`The browser cannot continue a text with the edit '${edit.operation}'; use 'onnxlens explore' on your machine.`);
      if (!source.changeable.includes(name)) throw new EngineError(`${name} cannot be changed in the browser; use 'onnxlens explore' on your machine.`);
      const shape = axes.map(({ size }) => size ?? ids.length);
      let change = changes.get(name);
      if (!change) changes.set(name, (change = neutral(shape)));
      await apply(source, edit, name, axes.map((axis) => axis.name), shape, ids.slice(0, prompt), change);
    }
  }
  return changes;
}

/**
 * An edit with all its values, as `Intervention.to_dict` writes it.
 *
 * @param of the name and the hash of the model that values are read from
 */
export async function written(source: Source, edit: Edit, ids: readonly number[], of: readonly [string, string]): Promise<Record<string, unknown>> {
  const { from, ...entries } = edit;
  const found: Record<string, unknown> = entries;
  for (const index of Object.keys(INDICES) as (keyof typeof INDICES)[]) if (typeof edit[index] === "number") found[index] = [edit[index]];
  const isOfRun = edit.value === undefined && (edit.operation === "mean" || edit.operation === "freeze");
  if (!from && !isOfRun) return found;
  const value: Record<string, unknown> = {};
  for (const { name, axes } of matching(source, edit)) {
    const axis = positionAxis(axes.map((one) => one.name));
    if (from) {
      const { one, position } = await read(source, from, name, axis);
      value[name] = position === undefined ? [nested(one)] : nested(one);
    } else {
      const own = await source.read(ids, name);
      value[name] = [nested(edit.operation === "mean" ? mean(own, axis) : own)];
    }
  }
  found["value"] = value;
  if (from?.position === undefined) found["source"] = of;
  else if (edit.operation === "patch") found["operation"] = "replace"; // a value at one position goes to others
  return found;
}

/** The hook points that an edit names: one, or all that fit a pattern with * and ?. */
function matching({ points }: Source, { hook }: Edit): HookPoint[] {
  const found = points.filter(({ name }) => fits(hook, name));
  if (!found.length) throw new EngineError(`Unknown hook point ${hook}.`);
  return found;
}

function neutral(shape: readonly number[]): Change {
  const size = shape.reduce((product, one) => product * one, 1);
  return { shape: [1, ...shape], where: new Uint8Array(size), factor: new Float32Array(size).fill(1), value: new Float32Array(size) };
}

async function apply(source: Source, edit: Edit, name: string, axes: readonly string[], shape: readonly number[], ids: readonly number[], change: Change): Promise<void> {
  const chosen = axes.map((axis, place) => {
    const index = (Object.keys(INDICES) as (keyof typeof INDICES)[]).find((one) => (INDICES[one] as readonly string[]).includes(axis));
    return listed(index === undefined ? undefined : edit[index], shape[place]!, index ?? "");
  });
  const factor = edit.operation === "scale" ? (edit.factor ?? 1) : edit.operation === "add" ? 1 : 0;
  const value = await values(source, edit, name, axes, shape, ids);
  const visit = (axis: number, place: number): void => {
    if (axis === shape.length) {
      // One edit after another: factor (a x + b) + value.
      change.where[place] = 1;
      change.factor[place]! *= factor;
      change.value[place] = change.value[place]! * factor + (value ? value(place) : 0);
      return;
    }
    for (const one of chosen[axis]!) visit(axis + 1, place * shape[axis]! + one);
  };
  visit(0, 0);
}

/** The entries that indices choose: a number, numbers, or a part such as "2:5"; negative ones count from the end. */
function listed(given: number | readonly number[] | string | undefined, size: number, what: string): number[] {
  const all = Array.from({ length: size }, (_, one) => one);
  if (given === undefined || given === null) return all;
  if (typeof given === "string") {
    const [start, end] = given.split(":").map((one) => (one === "" ? undefined : Number(one)));
    return given.includes(":") ? all.slice(start ?? 0, end) : listed(Number(given), size, what);
  }
  return (typeof given === "number" ? [given] : [...given]).map((one) => {
    const found = one < 0 ? one + size : one;
    if (!(found >= 0 && found < size)) throw new EngineError(`${what} has ${one}, and there are ${size}.`);
    return found;
  });
}

/** What an edit puts or adds, by the place in the hook point; null for nothing. */
async function values(source: Source, edit: Edit, name: string, axes: readonly string[], shape: readonly number[], ids: readonly number[]): Promise<((place: number) => number) | null> {
  const axis = positionAxis(axes);
  if (edit.operation === "zero" || edit.operation === "scale") return null;
  const times = edit.operation === "add" ? (edit.factor ?? 1) : 1;
  if (edit.from) {
    const { one, position, count } = await read(source, edit.from, name, axis);
    if (position !== undefined) return spread(shape, axis, (rest) => times * one.data[rest]!);
    if (String(one.shape) !== String(shape)) throw new EngineError(`The text that ${name} is patched from has ${count} tokens, and this one ${ids.length}.`);
    return (place) => times * one.data[place]!;
  }
  if (edit.value !== undefined) return broadcast(edit.value, shape, times);
  const own = await source.read(ids, name);
  if (edit.operation === "freeze" || edit.operation === "patch") return (place) => own.data[place]!;
  if (edit.operation !== "mean") throw new EngineError(`The edit ${edit.operation} of ${name} needs a value.`);
  const { data } = mean(own, axis);
  return spread(shape, axis, (rest) => data[rest]!);
}

const positionAxis = (axes: readonly string[]): number => axes.findIndex((one) => (INDICES.positions as readonly string[]).includes(one));

/** The values that `from` of an edit names: of all positions, or those of one, without that axis; and how many tokens its text has. */
async function read(source: Source, { text, ids, minus, position }: NonNullable<Edit["from"]>, name: string, axis: number): Promise<{ one: Tensor; position: number | undefined; count: number }> {
  const first = ids ?? source.encode(text ?? "");
  const found = await source.read(first, name);
  if (position === undefined || position === null) {
    if (minus !== undefined) throw new EngineError("'from' of an edit needs a position where it has minus.");
    return { one: found, position: undefined, count: first.length };
  }
  const one = row(found, axis, position);
  if (minus !== undefined) {
    const other = row(await source.read(source.encode(minus), name), axis, position);
    one.data.forEach((_, rest) => (one.data[rest]! -= other.data[rest]!));
  }
  return { one, position, count: first.length };
}

/** The mean over positions, which remain as an axis of one. */
function mean(tensor: Tensor, axis: number): Tensor {
  const shape = tensor.shape.map((size, one) => (one === axis ? 1 : size));
  const rows = Array.from({ length: tensor.shape[axis]! }, (_, position) => row(tensor, axis, position).data);
  return { shape, data: Float32Array.from(rows[0]!, (_, rest) => rows.reduce((total, one) => total + one[rest]!, 0) / rows.length) };
}

/** A tensor as nested lists. */
function nested({ shape: [size, ...rest], data }: Tensor): unknown {
  if (size === undefined) return data[0];
  const step = data.length / size;
  return Array.from({ length: size }, (_, one) => nested({ shape: rest, data: data.subarray(one * step, (one + 1) * step) }));
}

/** The entries at a position, without that axis. */
function row(tensor: Tensor, axis: number, position: number): Tensor {
  const { shape, data } = tensor;
  const size = shape[axis]!;
  const at = position < 0 ? position + size : position;
  if (!(at >= 0 && at < size)) throw new EngineError(`Position ${position} of 'from' is outside of its text, which has ${size} tokens.`);
  const inner = shape.slice(axis + 1).reduce((product, one) => product * one, 1);
  const outer = shape.slice(0, axis).reduce((product, one) => product * one, 1);
  const found = new Float32Array(outer * inner);
  for (let one = 0; one < outer; one++) for (let rest = 0; rest < inner; rest++) found[one * inner + rest] = data[(one * size + at) * inner + rest]!;
  return { shape: shape.filter((_, one) => one !== axis), data: found };
}

/** A value for each place from one that does not depend on the position. */
function spread(shape: readonly number[], axis: number, value: (rest: number) => number): (place: number) => number {
  const inner = shape.slice(axis + 1).reduce((product, one) => product * one, 1);
  return (place) => value(Math.floor(place / (inner * shape[axis]!)) * inner + (place % inner));
}

/** A number or nested list as NumPy broadcasts it: its axes are the last ones. */
function broadcast(value: unknown, shape: readonly number[], times: number): (place: number) => number {
  if (typeof value === "number") return () => times * value;
  const sizes: number[] = [];
  for (let one = value; Array.isArray(one); one = one[0]) sizes.push(one.length);
  const flat = (value as unknown[]).flat(Infinity) as number[];
  const last = shape.slice(shape.length - sizes.length);
  if (sizes.length > shape.length || sizes.some((size, axis) => size !== 1 && size !== last[axis])) throw new EngineError(`A value of shape [${sizes}] does not fit [${shape}].`);
  return (place) => {
    let index = 0, step = 1;
    for (let axis = last.length - 1; axis >= 0; axis--) {
      const at = place % last[axis]!;
      place = Math.floor(place / last[axis]!);
      if (sizes[axis] !== 1) index += at * step;
      step *= sizes[axis]!;
    }
    return times * flat[index]!;
  };
}
