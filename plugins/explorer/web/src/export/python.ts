import type { Edit, Model, RunFacts } from "../engine/types";
import { parseAddress, type Index } from "../lib/address";
import { asPython, quoted } from "../lib/edits";
import type { Selection } from "../lib/selection";

/** What is shown. */
export interface View {
  model: Model;
  facts: RunFacts;
  edits: readonly Edit[];
  selection: Selection | null;
  addresses: readonly string[]; // of what is selected
}

/** Analyses of tools, by name: what to import, and the lines that call it. */
const TOOLS: Record<string, (view: View) => { imports: string[]; lines: string[] }> = {
  heads: ({ facts }) => ({
    imports: ["ablate_heads", "head_scores"],
    lines: [
      `ablation = ablate_heads(lens, np.array([text]), logit_difference(${facts.token}, ${facts.against}))`,
      "print(-ablation.effects)  # the metric with each head less that without it, [layers, heads]",
      "scores = head_scores(lens)",
      "print(scores.induction)",
    ],
  }),
  surprisal: () => ({ imports: ["surprisal"], lines: ["surprisals = surprisal(lens, text)", "print(surprisals.values)  # nats, of each token but the first"] }),
  gradient: ({ facts }) => ({
    imports: ["gradient_times_input"],
    lines: [
      `gradients = gradient_times_input(lens, text, logit_difference(${facts.token}, ${facts.against}, position=${facts.position}))`,
      "print(gradients.scores)",
    ],
  }),
};

/** Python code that computes what the page shows: the board, and what is selected. */
export function snippet(view: View): string {
  const { model, facts, edits, selection, addresses } = view;
  const { token, against, position, tokens } = facts;
  const tool = selection?.kind === "tool" ? TOOLS[selection.name]?.(view) : undefined;
  const imports = ["attribute_logit", "attribute_sources", "logit_lens", ...(tool?.imports ?? [])].sort();
  const named = addresses.flatMap((one) => parseAddress(one) ?? []);
  const names = [...new Set(named.map((one) => one.name))];
  const values = named.map((one, place) => `    ${quoted(addresses[place]!)}: cache[${quoted(one.name)}]${subscript(one.indices)},`);
  const lines = [
    asPython(edits, model.name, tokens.map((one) => one.id), tokens).trimEnd(),
    "",
    `from onnxlens.analysis import ${imports.join(", ")}`,
    ...(tool?.lines.some((line) => line.includes("np.")) ? ["import numpy as np"] : []),
    ...(tool?.lines.some((line) => line.includes("logit_difference")) ? ["from onnxlens.metrics import logit_difference"] : []),
    "",
    "with lens.hooks(interventions=interventions):",
    "    guesses = logit_lens(lens, text, top=5)",
    `    attribution = attribute_logit(lens, text, ${token}, ${against}, position=${position})`,
    `    sources = attribute_sources(lens, text, ${token}, ${against}, position=${position})`,
    ...(names.length ? [`    _, cache = lens.run_with_cache(text, names_filter=[${names.map(quoted).join(", ")}], remove_batch_dim=True)`] : []),
    ...(tool?.lines ?? []).map((line) => `    ${line}`),
    "print(guesses.ids[:, :, 0])  # the best guesses, [states, positions]",
    "print(attribution.heads)  # the direct effect of each head, [layers, heads]",
    "print(attribution.mlps)  # of each MLP, [layers]",
    "print(sources.values)  # of each head through each token, [layers, heads, positions]",
    ...(values.length ? ["values = {  # of what is selected", ...values, "}", "for name, value in values.items():", "    print(name, value)"] : []),
  ];
  return lines.join("\n") + "\n";
}

/** An index of NumPy. */
function subscript(indices: readonly Index[]): string {
  if (!indices.length) return "";
  return `[${indices.map((one) => (typeof one === "number" ? String(one) : `${one.from ?? ""}:${one.to ?? ""}`)).join(", ")}]`;
}
