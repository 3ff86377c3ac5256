const KEPT = 60_000; // milliseconds: a browser may begin to read the file a while after the click

/** Lets the reader save a file. */
export function save(name: string, content: string | Uint8Array<ArrayBuffer>, type: string): void {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  [link.href, link.download] = [address, name];
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), KEPT);
}
