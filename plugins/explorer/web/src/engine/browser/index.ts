import { simd } from "wasm-feature-detect";
import { BOARD, EngineError, Superseded, type Answer, type ContinueRequest, type Engine, type Generated, type Model, type ModelName, type RunFacts, type RunRequest, type SweepFacts, type SweepRequest, type Tokenization, type ViewRequest } from "../types";
import { parametersOf } from "../../lib/cost";
import { parse } from "../safetensors";
import { download, downloadJson } from "./files";
import { inside } from "./inside";
import type { Site } from "./site";
import type { Asked, Said } from "./worker";

interface Waiting {
  done: (value: unknown) => void;
  failed: (error: unknown) => void;
  token?: (value: Generated) => void;
}

type Request = Exclude<Asked, { kind: "cancel" | "files" }> extends infer One ? (One extends { id: number } ? Omit<One, "id"> : never) : never;

/** The engine of a site: the model runs in the browser, in a worker. */
export class BrowserEngine implements Engine {
  #waiting = new Map<number, Waiting>();
  #next = 0;
  #opened = new Set<string>();
  #refused = new Map<string, EngineError>(); // by path, the models that cannot run on this device
  #boards = new Map<string, Promise<Answer<RunFacts>>>(); // by their file; they were computed when the site was made

  /**
   * @param site what the site has
   * @param worker runs `worker.ts`
   * @param progress called while a model is loaded, with bytes; with equal numbers when all are there
   * @param failed called when a model cannot be loaded
   */
  constructor(
    private readonly site: Site,
    private readonly worker: Worker,
    progress: (loaded: number, size: number) => void,
    private readonly failed: (error: unknown) => void,
  ) {
    this.worker.addEventListener("message", ({ data }: MessageEvent<Said>) => {
      if (data.kind === "progress") return progress(data.loaded, data.size);
      const waiting = this.#waiting.get(data.id);
      if (!waiting) return;
      if (data.kind === "token") return waiting.token?.(data.value as Generated);
      this.#waiting.delete(data.id);
      if (data.kind === "done") waiting.done(data.value);
      else waiting.failed(new EngineError(data.error));
    });
    this.worker.addEventListener("error", (event) => {
      for (const { failed } of this.#waiting.values()) failed(new EngineError(`The model could not be started in this browser: ${event.message || "the worker failed"}.`));
      this.#waiting.clear();
    });
  }

  async models(): Promise<ModelName[]> {
    return this.site.models.map(({ name }) => ({ name, isOpen: this.#opened.has(name) }));
  }

  /** Describes a model at once; its files are loaded meanwhile. */
  async model(name?: string): Promise<Model> {
    const { path, size } = this.#found(name);
    const model: Model = await downloadJson(`${path}/model.json`);
    if (!this.#opened.has(model.name)) {
      this.#opened.add(model.name);
      const lack = await lackOf(model, size);
      if (lack) this.#refused.set(path, lack);
      this.#ask({ kind: "open", path }).catch((error) => this.failed(error)); // boards that are computed stay
    }
    return model;
  }

  async tokenize({ model, ...request }: { model?: string; text?: string; ids?: number[] }): Promise<Tokenization> {
    return (await this.#ask({ kind: "tokenize", path: this.#path(model), request })) as Tokenization;
  }

  async run(request: RunRequest, signal?: AbortSignal): Promise<Answer<RunFacts>> {
    const { path, boards } = this.#found(request.model);
    const number = isBoard(request) ? boards.indexOf(request.text!) : -1;
    if (number >= 0) {
      const board = await this.#board(`${path}/board-${number}.safetensors`).catch(() => null);
      if (board) return board; // else the model computes it
    }
    return (await this.#ask({ kind: "run", path: this.#path(request.model), request: plain(request) }, signal)) as Answer<RunFacts>;
  }

  async sweep(request: SweepRequest, signal?: AbortSignal): Promise<Answer<SweepFacts>> {
    return (await this.#ask({ kind: "sweep", path: this.#path(request.model), request: plain(request) }, signal)) as Answer<SweepFacts>;
  }

  async *continue(request: ContinueRequest, signal?: AbortSignal): AsyncIterable<Generated> {
    const tokens: Generated[] = [];
    let wake = () => {};
    let isDone = false;
    const asked = this.#ask({ kind: "continue", path: this.#path(request.model), request: plain(request) }, signal, (token) => (tokens.push(token), wake()));
    const ended = asked.finally(() => ((isDone = true), wake()));
    ended.catch(() => {}); // awaited below
    for (;;) {
      while (tokens.length) yield tokens.shift()!;
      if (isDone) break;
      await new Promise<void>((done) => (wake = done));
    }
    await ended;
  }

  async view(request: ViewRequest): Promise<string> {
    throw new EngineError(`The visualizer ${request.visualizer} is a plugin in Python; use 'onnxlens explore' on your machine.`);
  }

  #board(file: string): Promise<Answer<RunFacts>> {
    let found = this.#boards.get(file);
    if (!found) {
      this.#boards.set(file, (found = download(file).then((content) => parse<RunFacts>(content))));
      found.catch(() => this.#boards.delete(file));
    }
    return found;
  }

  #found(name: string | undefined): Site["models"][number] {
    const found = name === undefined ? this.site.models[0] : this.site.models.find((one) => one.name === name);
    if (!found) throw new EngineError(`This site has no model ${name}; it has ${this.site.models.map((one) => one.name).join(", ")}.`);
    return { ...found, path: new URL(found.path, document.baseURI).href };
  }

  #path(name: string | undefined): string {
    return this.#found(name).path;
  }

  #ask(request: Request, signal?: AbortSignal, token?: (value: Generated) => void): Promise<unknown> {
    const id = this.#next++;
    return new Promise((done, failed) => {
      if (signal?.aborted) return failed(new Superseded("cancelled"));
      const refused = this.#refused.get(request.path);
      if (refused) return failed(refused);
      this.#waiting.set(id, { done, failed, ...(token ? { token } : {}) });
      signal?.addEventListener("abort", () => {
        if (!this.#waiting.delete(id)) return;
        this.worker.postMessage({ id: this.#next++, kind: "cancel", of: id });
        failed(new Superseded("cancelled"));
      });
      this.worker.postMessage({ id, ...request });
    });
  }
}

/** Why a model cannot run on this device, as far as is known before it is loaded; null where nothing speaks against it. */
async function lackOf(model: Model, size: number): Promise<EngineError | null> {
  const rest = "What was computed when the page was made is shown.";
  if (!globalThis.WebAssembly || !(await simd())) return new EngineError(`This browser has no WebAssembly with SIMD, which the model needs; use a current browser, or 'onnxlens explore' on your machine. ${rest}`);
  const { deviceMemory } = navigator as { deviceMemory?: number }; // in GiB; browsers say at most 8, or nothing
  const needed = 2 * 4 * parametersOf(model) + size + 2 ** 28; // float32 in two copies while it is opened, the files, and the page
  if (deviceMemory !== undefined && deviceMemory < 8 && needed > deviceMemory * 2 ** 29)
    return new EngineError(`This model needs about ${(needed / 1e9).toFixed(1)} GB of memory in the browser, and this device has ${deviceMemory} GB in all. ${rest}`);
  return null;
}

/** Whether a request is the one that the page makes first of a text. */
function isBoard({ text, reads, position = -1, token, against, edits, top = 5 }: RunRequest): boolean {
  const isPlain = !edits?.length && position === -1 && token == null && against == null && top === 5;
  return text !== undefined && isPlain && reads.every((read) => BOARD.includes(read));
}

/** A request without Svelte's proxies, which cannot be sent to a worker. */
const plain = <T>(request: T): T => JSON.parse(JSON.stringify(request)) as T;

/** The engine of a site, or of a page with a model inside; null where the page is neither. */
export async function browserEngine(progress: (loaded: number, size: number) => void, failed: (error: unknown) => void): Promise<BrowserEngine | null> {
  const parts = await inside();
  if (parts) return new BrowserEngine(parts.site, parts.worker, progress, failed);
  const text = document.getElementById("site")?.textContent;
  if (!text) return null;
  void navigator.serviceWorker?.register("./sw.js").catch(() => {}); // without it, the page works while the site is there
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  return new BrowserEngine(JSON.parse(text) as Site, worker, progress, failed);
}
