import { mount } from "svelte";
import App from "./App.svelte";
import { ServerEngine } from "./engine/server";
import { read } from "./lib/state";
import "./tokens.css";

const { token } = read(location.hash);
mount(App, { target: document.getElementById("app")!, props: { engine: new ServerEngine(token ?? null) } });
