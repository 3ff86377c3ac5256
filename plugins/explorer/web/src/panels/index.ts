import type { Component } from "svelte";
import type { Selection } from "../lib/selection";
import Cell from "./Cell.svelte";
import Head from "./Head.svelte";

/**
 * The panel of each kind of selection. A panel gets the selection as its property; the explorer comes from
 * `useExplorer`.
 */
export const PANELS: { [Kind in Selection["kind"]]?: Component<{ selection: Extract<Selection, { kind: Kind }> }> } = {
  cell: Cell,
  head: Head,
};

/** The tools of the menu, by name: panels that belong to no place of the board. */
export const TOOLS: Record<string, Component> = {};
