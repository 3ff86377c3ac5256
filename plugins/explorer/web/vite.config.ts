import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte()],
  base: "./",
  worker: { format: "iife" }, // as a blob, from a disk, browsers start no modules
  build: { outDir: "../built", emptyOutDir: true, assetsInlineLimit: 0, modulePreload: { polyfill: false } },
});
