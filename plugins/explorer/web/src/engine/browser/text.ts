import { Tokenizer } from "@huggingface/tokenizers";
import { EngineError, type Merge, type Token, type Tokenization, type Word } from "../types";
import { bytesOf } from "../../lib/letters";
import type { SiteModel } from "./site";

interface Document {
  model: { type: string; merges?: (string | [string, string])[]; ignore_merges?: boolean };
  decoder?: { type: string } | null;
}

/** The tokenizer of a model. Texts of tokens come from the site, which has them as Python writes them. */
export class Text {
  #tokenizer: Tokenizer;
  #ranks: Map<string, number> | null;

  constructor(
    private readonly site: SiteModel,
    document: Document,
    config: object,
  ) {
    this.#tokenizer = new Tokenizer(document, config);
    const { model, decoder } = document;
    const hasMerges = model.type === "BPE" && !model.ignore_merges && decoder?.type === "ByteLevel";
    const pairs = hasMerges ? (model.merges ?? []).map((one) => (typeof one === "string" ? one : one.join(" "))) : null;
    this.#ranks = pairs && new Map(pairs.map((pair, rank) => [pair, rank]));
  }

  /** The ids of a text; an empty one starts from a token that is not in it. */
  encode(text: string): number[] {
    if (/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text)) throw new EngineError("The text has half of a character pair, which no tokenizer reads.");
    const ids = this.#tokenizer.encode(text).ids;
    if (ids.length || this.site.start === null) return ids;
    return [this.site.start];
  }

  token(id: number): Token {
    return { id, label: this.label(id), bytes: this.site.bytes[id]! };
  }

  label(id: number): string {
    return this.site.labels[id]!;
  }

  tokenization(text: string | undefined, ids: readonly number[]): Tokenization {
    return { tokens: ids.map((id) => this.token(id)), words: this.#words(text ?? this.decode(ids), ids), limit: this.site.model.cfg.n_ctx };
  }

  decode(ids: readonly number[]): string {
    return new TextDecoder().decode(bytesOf(ids.map((id) => this.site.bytes[id]!).join("")));
  }

  /** A decoder of tokens that come one by one: text as far as it is certain. */
  stream(): (id: number) => string {
    let waiting = ""; // bytes that may be the beginning of a letter
    return (id) => {
      waiting += this.site.bytes[id]!;
      const text = new TextDecoder().decode(bytesOf(waiting));
      if (text.endsWith("\ufffd")) return "";
      waiting = "";
      return text;
    };
  }

  /** The words of a text with the merges that made their tokens; none where the ids are not the tokens of the text. */
  #words(text: string, ids: readonly number[]): Word[] {
    if (!text || !this.#ranks || String(this.encode(text)) !== String(ids)) return [];
    const added = this.#tokenizer.get_added_tokens_decoder();
    const words: Word[] = [];
    let pieces: string[] = []; // of the part between added tokens, as the tokenizer cuts it
    let first = 0;
    while (first < ids.length) {
      if (added.has(ids[first]!)) {
        words.push({ text: added.get(ids[first]!)!.content, tokens: [first], merges: [] });
        first++;
        continue;
      }
      if (!pieces.length) {
        let end = first;
        while (end < ids.length && !added.has(ids[end]!)) end++;
        pieces = this.#tokenizer.pre_tokenizer!.pre_tokenize(this.decode(ids.slice(first, end)));
      }
      const piece = pieces.shift()!;
      const steps = this.#steps(piece);
      const size = steps.at(-1)?.pieces.length ?? [...piece].length;
      words.push({ text: new TextDecoder().decode(bytesOf(hexOf(piece))), tokens: Array.from({ length: size }, (_, place) => first + place), merges: steps });
      first += size;
    }
    return words;
  }

  /** Byte-pair encoding: the pair that was learned first becomes one, wherever it stands in the word. */
  #steps(word: string): Merge[] {
    let pieces = [...word];
    const steps: Merge[] = [];
    for (;;) {
      let best = Infinity;
      for (let place = 0; place + 1 < pieces.length; place++) best = Math.min(best, this.#ranks!.get(`${pieces[place]} ${pieces[place + 1]}`) ?? Infinity);
      if (best === Infinity) return steps;
      const joined: string[] = [];
      let pair: [string, string] = ["", ""];
      for (let place = 0; place < pieces.length; place++) {
        const next = pieces[place + 1];
        if (next !== undefined && this.#ranks!.get(`${pieces[place]} ${next}`) === best) {
          pair = [pieces[place]!, next];
          joined.push(pieces[place++]! + next);
        } else joined.push(pieces[place]!);
      }
      pieces = joined;
      steps.push({ rank: best, pair: [hexOf(pair[0]), hexOf(pair[1])], pieces: pieces.map(hexOf) });
    }
  }
}

/** The byte of each letter of a byte-level vocabulary: printable ones stand for themselves. Radford et al. 2019, GPT-2. */
const BYTES = (() => {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const found = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) found.set(String.fromCharCode(printable(byte) ? byte : next++), byte);
  return found;
})();

const hexOf = (piece: string) => [...piece].map((letter) => BYTES.get(letter)!.toString(16).padStart(2, "0")).join("");
