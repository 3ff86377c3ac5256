import { mount } from "svelte";
import App from "./App.svelte";
import { ServerEngine } from "./engine/server";
import { Explorer } from "./explorer.svelte";
import { read } from "./lib/state";
import "./tokens.css";

const first = read(location.hash);
const explorer = new Explorer(new ServerEngine(first.key ?? null), first, first.key ?? null);
mount(App, { target: document.getElementById("app")!, props: { explorer } });
void explorer.start(first.text !== undefined || first.ids !== undefined);
