/** A property of a JSON schema, as far as plugins' options use it. */
export interface Property {
  description?: string;
  default?: unknown;
  enum?: string[];
  anyOf?: Property[];
  type?: string;
  items?: Property;
  minimum?: number;
  maximum?: number;
}

/** An option of a plugin: what a form needs to ask for it. */
export interface Option {
  name: string;
  kind: "choice" | "truth" | "whole" | "number" | "texts" | "json" | "text";
  description: string;
  choices: string[];
  low?: number;
  high?: number;
  standard: string; // what is used where nothing is given, for a reader
  isRequired: boolean;
}

const KINDS: Record<string, Option["kind"]> = { boolean: "truth", integer: "whole", number: "number", array: "texts", object: "json" };

/** The options of a schema, in its order. */
export function optionsOf(schema: Record<string, unknown>): Option[] {
  const properties = (schema["properties"] ?? {}) as Record<string, Property>;
  const required = (schema["required"] ?? []) as string[];
  return Object.entries(properties).map(([name, property]) => {
    // An option that may be left out is one of its type and null.
    const one = property.anyOf?.find((each) => each.type !== "null") ?? property;
    const given = property.default;
    return {
      name,
      kind: one.enum ? "choice" : (KINDS[one.type ?? ""] ?? "text"),
      description: property.description ?? "",
      choices: one.enum ?? [],
      low: one.minimum,
      high: one.maximum,
      standard: given === undefined || given === null || String(given) === "" ? "" : typeof given === "object" ? JSON.stringify(given) : String(given),
      isRequired: required.includes(name),
    };
  });
}

/** The value of an option from what was typed: undefined for nothing, and the text itself where it is not of the kind, so that the plugin says so. */
export function valueOf(text: string, kind: Option["kind"]): unknown {
  if (text === "") return undefined;
  switch (kind) {
    case "truth":
      return text === "true" ? true : text === "false" ? false : text;
    case "whole":
    case "number":
      return Number.isFinite(Number(text)) ? Number(text) : text;
    case "texts":
      return text.split("\n").filter((line) => line !== "");
    case "json":
      try {
        return JSON.parse(text);
      } catch {
        return text;
      }
    default:
      return text;
  }
}
