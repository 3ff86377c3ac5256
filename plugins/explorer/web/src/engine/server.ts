import { parse } from "./safetensors";
import {
  EngineError,
  Superseded,
  type Answer,
  type ContinueRequest,
  type Engine,
  type Generated,
  type Model,
  type ModelName,
  type RunFacts,
  type RunRequest,
  type SweepFacts,
  type SweepRequest,
  type Tokenization,
  type ViewRequest,
} from "./types";

/** What a connection brings; one that breaks is an `EngineError`, one that was given up is `Superseded`. */
async function whole<T>(part: Promise<T>, signal?: AbortSignal): Promise<T> {
  try {
    return await part;
  } catch {
    if (signal?.aborted) throw new Superseded("cancelled");
    throw new EngineError(""); // the page has a sentence for a server that does not answer
  }
}

/** The engine of `onnxlens explore`: a server on this machine. */
export class ServerEngine implements Engine {
  #tab = crypto.randomUUID();
  constructor(private token: string | null) {}

  async models(): Promise<ModelName[]> {
    return (await (await this.#ask("models")).json()).models;
  }

  async model(name?: string): Promise<Model> {
    return (await this.#ask("model", name === undefined ? {} : { model: name })).json();
  }

  async tokenize(request: { model?: string; text?: string; ids?: number[] }): Promise<Tokenization> {
    return (await this.#ask("tokenize", request)).json();
  }

  async run(request: RunRequest, signal?: AbortSignal): Promise<Answer<RunFacts>> {
    // A newer board of this tab replaces one that waits; reads of a panel do not replace each other.
    const kind = request.reads.includes("sources") ? "board" : "";
    return parse<RunFacts>(await whole((await this.#ask("run", request, signal, kind)).arrayBuffer(), signal));
  }

  async sweep(request: SweepRequest, signal?: AbortSignal): Promise<Answer<SweepFacts>> {
    return parse<SweepFacts>(await whole((await this.#ask("sweep", request, signal)).arrayBuffer(), signal));
  }

  async view(request: ViewRequest, signal?: AbortSignal): Promise<string> {
    return whole((await this.#ask("view", request, signal)).text(), signal);
  }

  async *continue(request: ContinueRequest, signal?: AbortSignal): AsyncIterable<Generated> {
    const response = await this.#ask("continue", request, signal);
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
      for (;;) {
        const { done, value } = await whole(reader.read(), signal);
        if (done) return;
        const lines = (rest + value).split("\n");
        rest = lines.pop()!;
        for (const line of lines) {
          const found = JSON.parse(line);
          if (found.error) throw new EngineError(found.error);
          yield found;
        }
      }
    } finally {
      await reader.cancel().catch(() => {}); // so that the server stops, too, if it has not
    }
  }

  async #ask(path: string, body?: unknown, signal?: AbortSignal, kind = ""): Promise<Response> {
    const headers: Record<string, string> = {};
    if (kind) headers["x-onnxlens-tab"] = `${this.#tab}-${kind}`;
    if (this.token) headers["x-onnxlens-token"] = this.token;
    const response = await whole(
      fetch(`api/${path}`, {
        method: body === undefined ? "GET" : "POST",
        headers: body === undefined ? headers : { ...headers, "content-type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
      }),
      signal,
    );
    if (response.status === 409) throw new Superseded("superseded");
    if (!response.ok) {
      const { error } = await response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
      throw new EngineError(error);
    }
    return response;
  }
}
