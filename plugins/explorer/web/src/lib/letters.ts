import type { Token } from "../engine/types";

/** A letter of a text: its bytes, in hexadecimal, and the places of the tokens that these are in. */
export interface Letter {
  text: string; // empty where the bytes are no letter
  bytes: string[];
  tokens: number[]; // one for each byte
}

/** The letters of tokens, by their bytes: UTF-8 writes a letter as one to four of them, which need not be in one token. */
export function lettersOf(tokens: readonly Token[]): Letter[] {
  const bytes: { hex: string; token: number }[] = [];
  for (const [place, token] of tokens.entries())
    for (let i = 0; i < token.bytes.length; i += 2) bytes.push({ hex: token.bytes.slice(i, i + 2), token: place });
  const letters: Letter[] = [];
  for (let i = 0; i < bytes.length; ) {
    const size = sizeOf(Number.parseInt(bytes[i]!.hex, 16));
    let part = bytes.slice(i, i + size);
    let text = decoded(part.map((one) => one.hex));
    if (text === null) [part, text] = [bytes.slice(i, i + 1), decoded([bytes[i]!.hex]) ?? ""];
    letters.push({ text, bytes: part.map((one) => one.hex), tokens: part.map((one) => one.token) });
    i += part.length;
  }
  return letters;
}

/** Whether a letter is made of several tokens. */
export const isSplit = (letter: Letter): boolean => new Set(letter.tokens).size > 1;

/** Bytes that are written in hexadecimal. */
export function bytesOf(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(hex.match(/../g) ?? [], (one) => Number.parseInt(one, 16));
}

/** The text of bytes in hexadecimal, with those that are no whole letter as escapes. */
export function textOf(hex: string): string {
  const bytes = bytesOf(hex);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return Array.from(bytes, (one) => (one >= 0x20 && one < 0x7f ? String.fromCharCode(one) : `\\x${one.toString(16).padStart(2, "0")}`)).join("");
  }
}

/** How many bytes a letter has that begins with this one. */
function sizeOf(first: number): number {
  if (first >= 0xf0) return 4;
  if (first >= 0xe0) return 3;
  return first >= 0xc0 ? 2 : 1;
}

function decoded(hex: readonly string[]): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(hex, (one) => Number.parseInt(one, 16)));
  } catch {
    return null;
  }
}
