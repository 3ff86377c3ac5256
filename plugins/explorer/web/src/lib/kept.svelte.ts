/**
 * The value of a function; while that is null, the last one that it had. So a panel stays as it was, all of one run,
 * until all of the next is there.
 */
export function kept<T>(compute: () => T | null): { readonly current: T | null } {
  let last: T | null = null;
  const found = $derived.by(() => (last = compute() ?? last));
  return {
    get current() {
      return found;
    },
  };
}
