import { mount } from "svelte";
import App from "./App.svelte";
import { recordedEngine } from "./engine/recorded";
import { ServerEngine } from "./engine/server";
import { followScheme } from "./lib/scheme.svelte";
import { Explorer } from "./explorer.svelte";
import { read } from "./lib/state";
import "./tokens.css";
import "./export/print.css";

async function begin(): Promise<void> {
  const first = read(location.hash);
  const recorded = await recordedEngine();
  const engine = recorded ?? new ServerEngine(first.key ?? null);
  Object.assign(window, { onnxlensEngine: engine }); // for the console of the browser
  const explorer = new Explorer(engine, first, first.key ?? null);
  followScheme();
  mount(App, { target: document.getElementById("app")!, props: { explorer, isSaved: recorded !== null } });
  await explorer.start(first.text !== undefined || first.ids !== undefined);
}

void begin();
