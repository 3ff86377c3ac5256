import { flushSync } from "svelte";

const WIDE = 1040; // pixels of a sheet: A4 across, less the margins of `print.css`

/** Counts changes of the colours: what is drawn on a canvas reads it, so as to be drawn anew. */
export const scheme = $state({ changes: 0 });

/** Follows the colours that the reader prefers, and prepares the page for paper while it is printed. */
export function followScheme(): void {
  const root = document.documentElement;
  const change = () => flushSync(() => void scheme.changes++);
  const paper = (isPaper: boolean) => {
    if (root.classList.contains("paper") === isPaper) return;
    const boards = [...document.querySelectorAll("section.board .scroll")].map((one) => one.scrollWidth);
    // The board was laid out for the window.
    root.style.setProperty("--paper-zoom", String(Math.min(1, WIDE / Math.max(1, ...boards))));
    root.classList.toggle("paper", isPaper);
    change();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", change);
  matchMedia("print").addEventListener("change", (event) => paper(event.matches));
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
}
