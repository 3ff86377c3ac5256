/** A value that is set in a tool or panel. */
export type Setting = string | number | boolean | null;
export type Settings = Readonly<Record<string, Setting>>;

/** What is set in tools and panels, by name, as far as it differs from how they begin. The address of the page holds it. */
export class Options {
  all = $state.raw<Settings>({});

  /**
   * A setting.
   *
   * @param standard how it begins
   * @param fits whether a value can be used; a link may have any
   */
  get<Value extends Setting>(name: string, standard: Value, fits: (value: Setting) => boolean = (value) => typeof value === typeof standard): Value {
    const found = this.all[name];
    return found !== undefined && fits(found) ? (found as Value) : standard;
  }

  set<Value extends Setting>(name: string, value: Value, standard: Value): void {
    if (value === (this.all[name] ?? standard)) return;
    const { [name]: _, ...others } = this.all;
    this.all = value === standard ? others : { ...others, [name]: value };
  }
}

/** Whether a value is a number of a range, for `Options.get`. */
export const within = (low: number, high: number) => (value: Setting) => typeof value === "number" && value >= low && value <= high;

/** Whether a value is one of several, for `Options.get`. */
export const among = (choices: readonly Setting[]) => (value: Setting) => choices.includes(value);
