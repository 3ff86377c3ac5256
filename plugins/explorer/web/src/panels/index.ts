import type { Component } from "svelte";
import type { Selection } from "../lib/selection";
import Continuations from "../tools/Continuations.svelte";
import Costs from "../tools/Costs.svelte";
import Game from "../tools/Game.svelte";
import Gradient from "../tools/Gradient.svelte";
import Heads from "../tools/Heads.svelte";
import Sampling from "../tools/Sampling.svelte";
import Steer from "../tools/Steer.svelte";
import Surprisal from "../tools/Surprisal.svelte";
import Sweeps from "../tools/Sweeps.svelte";
import Views from "../tools/Views.svelte";
import Block from "./Block.svelte";
import Cell from "./Cell.svelte";
import Head from "./Head.svelte";
import Mlp from "./Mlp.svelte";
import Neuron from "./Neuron.svelte";
import Norm from "./Norm.svelte";
import Token from "./Token.svelte";
import Value from "./Value.svelte";
import "./panels.css";

/**
 * The panel of each kind of selection. A panel gets the selection as its property; the explorer comes from
 * `useExplorer`.
 */
export const PANELS: { [Kind in Exclude<Selection["kind"], "tool">]: Component<{ selection: Extract<Selection, { kind: Kind }> }> } = {
  token: Token,
  cell: Cell,
  block: Block,
  norm: Norm,
  head: Head,
  mlp: Mlp,
  neuron: Neuron,
  value: Value,
};

/** The tools of the menu, by name: panels that belong to no place of the board. */
export const TOOLS: Record<string, Component> = {
  heads: Heads,
  sweeps: Sweeps,
  surprisal: Surprisal,
  gradient: Gradient,
  sampling: Sampling,
  continuations: Continuations,
  game: Game,
  steer: Steer,
  costs: Costs,
  views: Views,
};
