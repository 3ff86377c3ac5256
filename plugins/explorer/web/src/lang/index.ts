import en from "./en.json";
import zh from "./zh.json";

/** All languages, by their codes; a file beside this one and an entry here add another. */
export const LANGUAGES: Record<string, { name: string; texts: Record<string, string> }> = {
  en: { name: "English", texts: en },
  zh: { name: "简体中文", texts: zh },
};

export type Key = keyof typeof en;

/** The language that the browser prefers among those that there are. */
export function preferred(languages: readonly string[]): string {
  return languages.map((one) => one.slice(0, 2)).find((one) => one in LANGUAGES) ?? "en";
}

/** A text in a language, with values in its holes. */
export function text(language: string, key: Key, values: Record<string, string | number> = {}): string {
  const found = LANGUAGES[language]?.texts[key] ?? en[key];
  return found.replace(/\{(\w+)\}/g, (hole, name) => String(values[name] ?? hole));
}
