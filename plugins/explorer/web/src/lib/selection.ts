/** What is selected: what the drawer shows. Positions, layers and heads count from 0. */
export type Selection =
  | { kind: "token"; position: number } // its pieces, id, embedding
  | { kind: "cell"; state: number; position: number } // the stream at a depth
  | { kind: "block"; layer: number; position?: number }
  | { kind: "norm"; name: string; position?: number } // such as blocks.0.ln1
  | { kind: "head"; layer: number; head: number; query?: number; key?: number }
  | { kind: "mlp"; layer: number; position?: number }
  | { kind: "neuron"; layer: number; neuron: number; position?: number }
  | { kind: "value"; address: string } // one number and its arithmetic
  | { kind: "tool"; name: string }; // a tool that belongs to no place of the board

const ORDER = {
  token: ["position"],
  cell: ["state", "position"],
  block: ["layer", "position"],
  head: ["layer", "head", "query", "key"],
  mlp: ["layer", "position"],
  neuron: ["layer", "neuron", "position"],
} as const;

/** A selection as text for the address of the page, such as `head:4,1,13,2`. */
export function writeSelection(chosen: Selection): string {
  switch (chosen.kind) {
    case "value":
      return `value:${chosen.address}`;
    case "tool":
      return `tool:${chosen.name}`;
    case "norm":
      return `norm:${[chosen.name, ...(chosen.position === undefined ? [] : [chosen.position])].join(",")}`;
    default: {
      const numbers = ORDER[chosen.kind].map((name) => (chosen as unknown as Record<string, number | undefined>)[name] ?? "");
      return `${chosen.kind}:${numbers.join(",").replace(/,+$/, "")}`;
    }
  }
}

/** Reads what `writeSelection` returned; null for other text. */
export function readSelection(text: string): Selection | null {
  const [, kind, rest] = /^(\w+):(.+)$/s.exec(text) ?? [];
  if (kind === undefined || rest === undefined) return null;
  if (kind === "value") return { kind, address: rest };
  if (kind === "tool") return { kind, name: rest };
  const parts = rest.split(",");
  if (kind === "norm") {
    const position = parts[1] === undefined ? {} : { position: Number(parts[1]) };
    return Number.isInteger(position.position ?? 0) ? { kind, name: parts[0]!, ...position } : null;
  }
  if (!(kind in ORDER)) return null;
  const names: readonly string[] = ORDER[kind as keyof typeof ORDER];
  const found: Record<string, string | number> = { kind };
  for (const [place, part] of parts.entries()) {
    if (part === "") continue;
    if (!/^\d+$/.test(part) || names[place] === undefined) return null;
    found[names[place]] = Number(part);
  }
  const optional = kind === "token" || kind === "cell" ? [] : ["position", "query", "key"];
  return names.every((name) => name in found || optional.includes(name)) ? (found as unknown as Selection) : null;
}

/** The selections above one, from the widest; for the breadcrumb. */
export function parents(chosen: Selection): Selection[] {
  switch (chosen.kind) {
    case "head": {
      const { layer, head } = chosen;
      const block: Selection = { kind: "block", layer };
      return chosen.key === undefined ? [block] : [block, { kind: "head", layer, head }];
    }
    case "mlp":
      return [{ kind: "block", layer: chosen.layer, position: chosen.position }];
    case "neuron": {
      const { layer, position } = chosen;
      return [
        { kind: "block", layer, position },
        { kind: "mlp", layer, position },
      ];
    }
    case "norm": {
      const layer = /^blocks\.(\d+)\./.exec(chosen.name)?.[1];
      return layer === undefined ? [] : [{ kind: "block", layer: Number(layer), position: chosen.position }];
    }
    case "value": {
      const [, layer, rest] = /^blocks\.(\d+)\.(.+)$/.exec(chosen.address) ?? [];
      if (layer === undefined) return [];
      const block: Selection = { kind: "block", layer: Number(layer) };
      return rest!.startsWith("mlp.") ? [block, { kind: "mlp", layer: Number(layer) }] : [block];
    }
    default:
      return [];
  }
}
