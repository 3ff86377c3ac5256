import type { Component } from "svelte";
import type { Selection } from "../lib/selection";
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
export const PANELS: { [Kind in Selection["kind"]]?: Component<{ selection: Extract<Selection, { kind: Kind }> }> } = {
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
export const TOOLS: Record<string, Component> = {};
