/** Runs a model beside the page, so that the page stays quick. Each message is a request; see `index.ts`. */
import { EngineError, type ContinueRequest, type RunRequest, type SweepRequest } from "../types";
import { Local } from "./engine";
import { download, downloadJson, take } from "./files";
import { failed, Session, useWasm } from "./session";
import type { SiteModel } from "./site";
import { Text } from "./text";
import { Weights } from "./weights";

export type Asked =
  | { id: number; kind: "files"; files: Record<string, ArrayBuffer>; wasm: ArrayBuffer }
  | { id: number; kind: "open"; path: string }
  | { id: number; kind: "tokenize"; path: string; request: { text?: string; ids?: number[] } }
  | { id: number; kind: "run"; path: string; request: RunRequest }
  | { id: number; kind: "sweep"; path: string; request: SweepRequest }
  | { id: number; kind: "continue"; path: string; request: ContinueRequest }
  | { id: number; kind: "cancel"; of: number };

export type Said =
  | { id: number; kind: "done"; value: unknown }
  | { id: number; kind: "token"; value: unknown }
  | { id: number; kind: "error"; error: string }
  | { id: number; kind: "progress"; loaded: number; size: number };

const opened = new Map<string, Promise<Local>>();
const cancelled = new Set<number>();
let turn: Promise<void> = Promise.resolve(); // one request after the other: a session runs one at a time

const say = (said: Said) => postMessage(said);

async function open(id: number, path: string): Promise<Local> {
  const site: SiteModel = { model: await downloadJson(`${path}/model.json`), ...(await downloadJson(`${path}/details.json`)) };
  const total = Object.values(site.files).reduce((sum, file) => sum + file.size, 0);
  let loaded = 0;
  const progress = (bytes: number) => say({ id, kind: "progress", loaded: (loaded += bytes), size: total });
  const file = (name: string) => download(`${path}/${name}`, site.files[name], progress);
  const json = (name: string) => downloadJson(`${path}/${name}`, site.files[name], progress);
  const [document, config] = [await json("tokenizer.json"), await json("tokenizer_config.json")];
  const gradients = site.model.has_gradients ? await file("model_gradients.onnx") : null;
  const graphs = { whole: await file("explorer.onnx"), lens: await file("lens.onnx"), gradients };
  const data = await file("model.onnx_data");
  const session = await Session.open(site, graphs, data);
  return new Local(site, new Text(site, document, config), new Weights(data, site.weights), session);
}

function model(id: number, path: string): Promise<Local> {
  let found = opened.get(path);
  if (!found) {
    opened.set(path, (found = open(id, path)));
    found.catch(() => opened.delete(path)); // so that another request tries again
  }
  return found;
}

async function answer(asked: Exclude<Asked, { kind: "cancel" | "files" }>): Promise<void> {
  const { id } = asked;
  if (cancelled.delete(id)) return;
  try {
    const local = await model(id, asked.path);
    if (asked.kind === "open") return say({ id, kind: "done", value: local.model });
    if (asked.kind === "tokenize") return say({ id, kind: "done", value: local.tokenize(asked.request) });
    if (asked.kind === "run") return say({ id, kind: "done", value: await local.run(asked.request) });
    if (asked.kind === "sweep") return say({ id, kind: "done", value: await local.sweep(asked.request) });
    for await (const token of local.continue(asked.request)) {
      if (cancelled.delete(id)) return;
      say({ id, kind: "token", value: token });
    }
    say({ id, kind: "done", value: null });
  } catch (error) {
    say({ id, kind: "error", error: (error instanceof EngineError ? error : failed(error)).message });
  }
}

// ONNX Runtime starts its threads from this same file, under a name of its own, and speaks to them itself.
if (!self.name.startsWith("em-pthread"))
  addEventListener("message", ({ data }: MessageEvent<Asked>) => {
    if (data.kind === "cancel") {
      cancelled.add(data.of);
      return;
    }
    if (data.kind === "files") {
      take(data.files);
      useWasm(data.wasm);
      return;
    }
    turn = turn.then(() => answer(data));
  });
