/** What was loaded last, with the key that it was loaded for. */
export interface Loaded<K, V> {
  key: K;
  value: V;
}

/**
 * Loads a value whenever its key changes; to be called while a component is set up.
 *
 * `current` stays the last loaded one until the next has arrived, so show what belongs to `current.key`. A key of null
 * loads nothing. Keys are compared as JSON. After an error there is no current one, and `failed` is called.
 */
export class Resource<K, V> {
  current = $state.raw<Loaded<K, V> | null>(null);
  error = $state("");
  isLoading = $state(false);

  constructor(key: () => K | null, load: (key: K, signal: AbortSignal) => Promise<V>, failed: (error: unknown) => void = () => {}) {
    let last = "";
    let running: AbortController | null = null;
    const begin = (wanted: K): void => {
      running?.abort();
      const mine = (running = new AbortController());
      this.isLoading = true;
      load(wanted, mine.signal).then(
        (value) => {
          if (mine.signal.aborted) return;
          [this.current, this.error, this.isLoading] = [{ key: wanted, value }, "", false];
        },
        (error) => {
          if (mine.signal.aborted) return;
          // What was loaded before belongs to another key.
          [this.current, this.error, this.isLoading] = [null, error.message, false];
          failed(error);
        },
      );
    };
    $effect(() => {
      const wanted = key();
      const written = JSON.stringify(wanted);
      if (wanted === null || written === last) return;
      last = written;
      begin(wanted);
    });
    $effect(() => () => running?.abort());
  }
}
