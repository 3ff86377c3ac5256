/** How much of a model has been loaded, in bytes, where it runs in the browser. */
class Loading {
  loaded = $state(0);
  size = $state(0);
  error = $state("");

  get isLoading(): boolean {
    return this.loaded < this.size;
  }

  fail(error: unknown): void {
    [this.loaded, this.size, this.error] = [0, 0, error instanceof Error ? error.message : String(error)];
  }

  report(loaded: number, size: number): void {
    [this.loaded, this.size, this.error] = [loaded, size, ""];
  }
}

export const loading = new Loading();
