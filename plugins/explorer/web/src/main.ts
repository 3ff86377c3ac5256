import { mount } from "svelte";
import App from "./App.svelte";
import { browserEngine } from "./engine/browser";
import { recordedEngine } from "./engine/recorded";
import { ServerEngine } from "./engine/server";
import type { Engine } from "./engine/types";
import { followScheme } from "./lib/scheme.svelte";
import { loading } from "./lib/loading.svelte";
import { Explorer } from "./explorer.svelte";
import { read } from "./lib/state";
import "./tokens.css";
import "./export/print.css";

const PATIENCE = 150; // milliseconds

/** The engine of this page: that of a saved file, of a site, or of the server that the page came from. */
async function engineOf(key: string | null): Promise<{ engine: Engine; isSaved: boolean }> {
  const recorded = await recordedEngine();
  if (recorded) return { engine: recorded, isSaved: true };
  const local = await browserEngine((loaded, size) => loading.report(loaded, size), (error) => loading.fail(error));
  return { engine: local ?? new ServerEngine(key), isSaved: false };
}

async function begin(): Promise<void> {
  const first = read(location.hash);
  const { engine, isSaved } = await engineOf(first.key ?? null);
  Object.assign(window, { onnxlensEngine: engine }); // for the console of the browser
  const explorer = new Explorer(engine, first, first.key ?? null);
  followScheme();
  const started = explorer.start(first.text !== undefined || first.ids !== undefined);
  // The page is painted once, with its board, where the engine answers at once.
  await Promise.race([started, new Promise((done) => setTimeout(done, PATIENCE))]);
  mount(App, { target: document.getElementById("app")!, props: { explorer, isSaved } });
  await started;
}

void begin();
