import type { Explorer } from "../explorer.svelte";
import { t } from "../lang/index.svelte";
import type { Selection } from "./selection";

/** A selection in words, for headings and the breadcrumb. */
export function title(chosen: Selection, explorer: Explorer): string {
  const at = (position: number | undefined) => (position === undefined ? "" : ` · ${position} ${explorer.name(position)}`);
  switch (chosen.kind) {
    case "token":
      return t("title-token", { position: chosen.position, token: explorer.name(chosen.position) });
    case "cell": {
      const place = chosen.state === 0 ? t("start") : t("after-block", { block: chosen.state - 1 });
      return t("title-cell", { place, token: explorer.name(chosen.position) });
    }
    case "block":
      return t("block", { block: chosen.layer }) + at(chosen.position);
    case "norm":
      return t("title-norm", { name: chosen.name }) + at(chosen.position);
    case "head": {
      const { layer, head, query, key } = chosen;
      const name = t("head-name", { layer, head });
      if (key === undefined) return name;
      return `${name} · ${t("pair", { query: explorer.name(query ?? explorer.answer!.facts.position), key: explorer.name(key) })}`;
    }
    case "mlp":
      return t("title-mlp", { layer: chosen.layer }) + at(chosen.position);
    case "neuron":
      return t("title-neuron", { layer: chosen.layer, neuron: chosen.neuron }) + at(chosen.position);
    case "value":
      return t("title-value");
    case "tool":
      return t(`tool-${chosen.name}`);
  }
}
