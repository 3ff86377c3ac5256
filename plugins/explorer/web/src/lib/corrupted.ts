/** A word of a text: its letters and where it begins. */
interface Word {
  text: string;
  start: number;
}

/** A text with one word replaced. */
export interface Corruption {
  text: string;
  was: string; // the word
  now: string;
}

const MOST = 12;

/**
 * Texts that differ from a text in one word, the most telling first: candidates for the corrupted text of a patching.
 *
 * A name that comes twice is replaced by another name at its last place ("John gave" becomes "Mary gave"); then other
 * names and words by each other. Whether one has equally many tokens, the tokenizer says.
 */
export function corruptions(text: string): Corruption[] {
  const words: Word[] = [...text.matchAll(/\p{L}+/gu)].map((found) => ({ text: found[0], start: found.index }));
  const isName = (word: Word) => /^\p{Lu}\p{Ll}+$/u.test(word.text) && !beginsSentence(text, word.start);
  const count = (word: Word) => words.filter((one) => one.text === word.text).length;
  const names = words.filter(isName);
  const repeated = names.filter((word) => count(word) > 1);
  const found = new Map<string, Corruption>();
  const replace = (from: Word[], by: Word[]) => {
    for (const word of [...from].reverse())
      for (const other of by) {
        const changed = text.slice(0, word.start) + other.text + text.slice(word.start + word.text.length);
        if (changed !== text && !found.has(changed)) found.set(changed, { text: changed, was: word.text, now: other.text });
      }
  };
  replace(repeated, names);
  replace(names, names);
  const others = words.filter((word) => !isName(word) && !beginsSentence(text, word.start));
  replace(others, others);
  return [...found.values()].slice(0, MOST);
}

/** Whether a place is the beginning of a text or comes after the end of a sentence. */
function beginsSentence(text: string, start: number): boolean {
  return /(^|[.!?]["”’)]?)\s*["“‘(]?$/u.test(text.slice(0, start));
}
