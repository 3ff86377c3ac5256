/**
 * The texts of the page. A folder beside this file holds a language: JSON files of texts by key, with values in braces.
 * A folder that has all keys of `en` adds a language.
 */

export type Values = Record<string, string | number>;
export type Translate = (key: string, values?: Values) => string;

const files = import.meta.glob<Record<string, string>>("./*/*.json", { eager: true, import: "default" });

/** All texts by language and key. */
export const LANGUAGES: Record<string, Record<string, string>> = {};
for (const [path, texts] of Object.entries(files)) Object.assign((LANGUAGES[path.split("/")[1]!] ??= {}), texts);

/** The chosen language, by its code. */
export const language = $state({ code: "en" });

/** The language that the browser prefers among those that there are. */
export function preferred(languages: readonly string[]): string {
  return languages.map((one) => one.slice(0, 2)).find((one) => one in LANGUAGES) ?? "en";
}

/** A text in a language, with its values; in English where the language lacks it. */
export function text(code: string, key: string, values: Values = {}): string {
  const found = LANGUAGES[code]?.[key] ?? LANGUAGES.en![key];
  if (found === undefined) throw new Error(`There is no text ${key}.`);
  return found.replace(/\{(\w+)\}/g, (hole, name) => String(values[name] ?? hole));
}

/** A text in the chosen language. */
export const t: Translate = (key, values) => text(language.code, key, values);
