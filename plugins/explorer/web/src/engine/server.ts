import { parse } from "./safetensors";
import {
  EngineError,
  Superseded,
  type Answer,
  type ContinueRequest,
  type Engine,
  type Generated,
  type Model,
  type RunFacts,
  type RunRequest,
  type Token,
} from "./types";

/** The engine of `onnxlens explore`: a server on this machine. */
export class ServerEngine implements Engine {
  #tab = crypto.randomUUID();
  constructor(private token: string | null) {}

  async models(): Promise<Model[]> {
    return (await (await this.#ask("models")).json()).models;
  }

  async tokenize(text: string): Promise<{ tokens: Token[]; limit: number }> {
    return (await this.#ask("tokenize", { text })).json();
  }

  async run(request: RunRequest, signal?: AbortSignal): Promise<Answer<RunFacts>> {
    // Reads for the drawer must not replace those for the board, so each kind of read is a queue of its own.
    const kind = request.reads.includes("guesses") ? "board" : "drawer";
    return parse<RunFacts>(await (await this.#ask("run", request, kind, signal)).arrayBuffer());
  }

  async sweep(request: Omit<RunRequest, "reads" | "top" | "position">): Promise<Answer<{ baseline: number; token: number }>> {
    return parse(await (await this.#ask("sweep", request, "sweep")).arrayBuffer());
  }

  async *continue(request: ContinueRequest): AsyncIterable<Generated> {
    const response = await this.#ask("continue", request, "continue");
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const found = JSON.parse(line);
        if (found.error) throw new EngineError(found.error);
        yield found;
      }
    }
  }

  async #ask(path: string, body?: unknown, kind = "", signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = { "x-onnxlens-tab": kind && `${this.#tab}-${kind}` };
    if (this.token) headers["x-onnxlens-token"] = this.token;
    let response: Response;
    try {
      response = await fetch(`api/${path}`, {
        method: body === undefined ? "GET" : "POST",
        headers: body === undefined ? headers : { ...headers, "content-type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
      });
    } catch (error) {
      if (signal?.aborted) throw new Superseded("cancelled");
      throw new EngineError("");  // the page has a sentence for a server that does not answer
    }
    if (response.status === 409) throw new Superseded("superseded");
    if (!response.ok) {
      const { error } = await response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
      throw new EngineError(error);
    }
    return response;
  }
}
