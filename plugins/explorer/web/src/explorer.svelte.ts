import { getContext, setContext } from "svelte";
import {
  BOARD,
  EngineError,
  Superseded,
  type Answer,
  type Edit,
  type Engine,
  type Model,
  type ModelName,
  type RunFacts,
  type RunRequest,
  type TextRequest,
} from "./engine/types";
import { Generation } from "./generation/generation.svelte";
import { language, LANGUAGES, preferred, t } from "./lang/index.svelte";
import { active, type PageEdit } from "./lib/edits";
import { filled, LONG, unknown, withRoom } from "./lib/guesses";
import { at } from "./lib/numbers";
import { Resource } from "./lib/resource.svelte";
import type { Selection } from "./lib/selection";
import { Options } from "./lib/settings.svelte";
import { EMPTY, write, type State } from "./lib/state";

/** A request without its text. */
export type Wanted = Omit<RunRequest, "text" | "ids" | "model">;

const KEPT = 64; // answers, so that going back loads nothing

/** The state of the page and what can be done to it. Views read it and call its methods; nothing else holds state that others need. */
export class Explorer {
  text = $state("");
  ids = $state.raw<number[] | null>(null);
  /** All edits, also those that are switched off for now. */
  allEdits = $state.raw<PageEdit[]>([]);
  position = $state<number | null>(null);
  token = $state<number | null>(null);
  against = $state<number | null>(null);
  other = $state<string | null>(null);
  otherModel = $state<string | null>(null);
  selection = $state.raw<Selection | null>(null);
  isChosen = $state(true); // whether the page chose the selection, not the reader

  /** The step of the tour, from 0; null outside of it. */
  tour = $state<number | null>(null);

  models = $state.raw<ModelName[]>([]);
  model = $state.raw<Model | null>(null);
  /** The board: of the text with its edits. */
  answer = $state.raw<Answer<RunFacts> | null>(null);
  /** The same without edits, where there are any. */
  unchanged = $state.raw<Answer<RunFacts> | null>(null);
  /** The board of the other text or model, where there is one. */
  compared = $state.raw<Answer<RunFacts> | null>(null);
  /** How many boards have been shown, so that whoever waits for the next one can tell. */
  boards = $state(0);
  failure = $state("");
  /** Whether the board is that of an earlier text, since this one cannot be run. */
  isStale = $state(false);
  /** The step at which the reader left the tour. */
  leftTour = 0;
  /** Which values the board shows, where there are edits: those with them, without them, or the difference. */
  shows = $state<"after" | "before" | "difference">("after");
  /** The head under the pointer, whose lines are lit. */
  hovered = $state.raw<{ layer: number; head: number } | null>(null);

  /** What is set in tools and panels. */
  readonly options = new Options();
  readonly generation: Generation = new Generation(this);
  #modelName: string | null;
  #running: AbortController | null = null;
  #kept = new Map<string, Promise<Answer<RunFacts>>>();
  #chosenLanguage: string | null;

  constructor(
    readonly engine: Engine,
    first: Partial<State>,
    private readonly key: string | null, // the server's token, which stays in the link
  ) {
    this.#chosenLanguage = first.language && first.language in LANGUAGES ? first.language : null;
    language.code = this.#chosenLanguage ?? preferred(navigator.languages);
    this.#modelName = first.model ?? null;
    this.#take(first);
  }

  /** Opens the model, and shows the first board. */
  async start(hasText: boolean): Promise<void> {
    try {
      [this.models, this.model] = await Promise.all([this.engine.models(), this.engine.model(this.#modelName ?? undefined)]);
    } catch (error) {
      this.fail(error);
      return;
    }
    if (!hasText) this.text = this.model.examples[0] ?? "";
    await this.update();
  }

  /** The edits that are made. */
  get edits(): Edit[] {
    return active(this.allEdits);
  }

  /** The text to run, with its edits. */
  get request(): TextRequest {
    return { ...this.base, edits: this.edits };
  }

  /** The same without edits. */
  get base(): TextRequest {
    return this.ids ? { ...this.inModel, ids: this.ids } : { ...this.inModel, text: this.text };
  }

  /** The model that is open, for a request; nothing for the first one. */
  get inModel(): { model?: string } {
    return this.#modelName === null ? {} : { model: this.#modelName };
  }

  /** The tokens that the board shows, in their model, for a request. */
  get shown(): { model?: string; ids: number[] } {
    return { ...this.inModel, ids: this.answer!.facts.tokens.map((one) => one.id) };
  }

  /** The state that the address of the page holds. */
  get state(): State {
    return {
      ...EMPTY,
      text: this.text,
      ids: this.ids,
      model: this.#modelName,
      position: this.position,
      token: this.token,
      against: this.against,
      selection: this.isChosen ? null : this.selection,
      edits: this.allEdits,
      other: this.other,
      otherModel: this.otherModel,
      tour: this.tour,
      options: this.options.all,
      language: this.#chosenLanguage,
    };
  }

  /** What the reader looks at: the selection, and the step of the tour. */
  get place(): string {
    return JSON.stringify([this.isChosen ? null : this.selection, this.tour]);
  }

  /** The address of the page with everything on it. */
  get address(): string {
    return write(this.state) + (this.key ? `&key=${this.key}` : "");
  }

  /** The names of the answer and of its rival, for texts. */
  get names(): { answer: string; rival: string } {
    const { answer } = this;
    return answer ? { answer: this.label(answer.facts.token), rival: this.label(answer.facts.against) } : { answer: "", rival: "" };
  }

  /** A token of the vocabulary that the answer names, for a reader. */
  label(id: number): string {
    return visible(this.answer?.facts.labels[id] ?? this.unchanged?.facts.labels[id] ?? `#${id}`);
  }

  /** The token at a position of the text, for a reader. */
  name(position: number): string {
    return visible(this.answer?.facts.tokens[position]?.label ?? "");
  }

  /** Runs the text anew, after anything of the state changed. */
  async update(): Promise<void> {
    this.#running?.abort();
    const mine = (this.#running = new AbortController());
    const asked = { reads: this.#board(this.text), position: this.position ?? -1, token: this.token, against: this.against };
    try {
      const base = this.edits.length ? withRoom(await this.#run({ ...this.base, ...asked }, mine.signal)) : null;
      // Edits are judged by what was the answer without them.
      const pair = base ? { token: base.facts.token, against: base.facts.against } : {};
      const found = withRoom(await this.#run({ ...this.request, ...asked, ...pair }, mine.signal));
      if (mine.signal.aborted) return;
      [this.answer, this.unchanged, this.failure, this.boards, this.isStale] = [found, base, "", this.boards + 1, false];
      if (!base) this.shows = "after";
      this.compared = this.isComparing ? withRoom(await this.#run(this.#comparison(found.facts), mine.signal)) : null;
      if (mine.signal.aborted) return;
      if (this.isChosen || !this.#fits(found)) this.#choose(found);
    } catch (error) {
      if (mine.signal.aborted) return;
      this.isStale = this.answer !== null;
      this.fail(error);
    }
  }

  get isComparing(): boolean {
    return this.other !== null || this.otherModel !== null;
  }

  /** Shows another text, another model, or both beside the first; null for the same as there. */
  compare(other: string | null, otherModel: string | null): void {
    [this.other, this.otherModel] = [other, otherModel];
    void this.update();
  }

  /** The run of the other text or model. In the same model it is about the same two tokens. */
  #comparison({ token, against }: RunFacts): RunRequest {
    const text = this.other === null ? this.base : { ...(this.base.model ? { model: this.base.model } : {}), text: this.other };
    const reads = this.#board(this.other ?? this.text);
    return this.otherModel === null ? { ...text, reads, token, against } : { ...text, model: this.otherModel, reads };
  }

  /** What the board reads of a text: guesses of a long one are loaded where they are shown. */
  #board(text: string): string[] {
    return text.length <= LONG ? BOARD : BOARD.filter((name) => name !== "guesses");
  }

  /** Loads the guesses of some positions of a board that does not have them yet. */
  async loadGuesses(which: "answer" | "unchanged" | "compared", positions: readonly number[]): Promise<void> {
    const board = this[which];
    const missing = board ? unknown(board, positions) : [];
    if (!board || !missing.length) return;
    const { position, token, against } = board.facts;
    const model = (which === "compared" ? this.otherModel : null) ?? this.base.model;
    const edits = which === "answer" ? this.edits : [];
    const ids = board.facts.tokens.map((one) => one.id);
    try {
      const found = await this.#run({ ...(model ? { model } : {}), ids, edits, reads: ["guesses"], positions: missing, position, token, against });
      const now = this[which];
      if (now?.facts.tokens === board.facts.tokens) this[which] = filled(now, found, missing); // else another text came
    } catch (error) {
      this.fail(error);
    }
  }

  /** Reads of the run that the board shows, for a panel: addresses and derived values. */
  read(request: RunRequest, signal?: AbortSignal): Promise<Answer<RunFacts>> {
    return this.#run(request, signal);
  }

  /**
   * Loads reads for a component whenever they change, of the board's own run: the same tokens, edits, position and
   * answer. Null loads nothing.
   */
  reads(wanted: () => Wanted | null): Resource<RunRequest, Answer<RunFacts>> {
    return new Resource(
      () => {
        const asked = wanted();
        return asked && this.answer ? this.here(asked) : null;
      },
      (request, signal) => this.#run(request, signal),
      (error) => this.fail(error),
    );
  }

  /** A request about the board's own run. */
  here(asked: Wanted): RunRequest {
    const { position, token, against } = this.answer!.facts;
    return { ...this.shown, edits: this.edits, position, token, against, ...asked };
  }

  /** Shows an error as a sentence. */
  fail(error: unknown): void {
    if (error instanceof Superseded) return;
    if (!(error instanceof EngineError)) throw error;
    this.failure = error.message || t("no-server");
  }

  type(text: string): void {
    [this.text, this.ids, this.position, this.token, this.against] = [text, null, null, null, null];
    void this.update();
  }

  /** Takes another list of tokens, which need not be the tokens of their text. */
  setIds(ids: number[], text: string): void {
    [this.ids, this.text, this.position, this.token, this.against] = [ids, text, null, null, null];
    void this.update();
  }

  setEdits(edits: PageEdit[]): void {
    this.allEdits = edits;
    if (this.selection) this.isChosen = false;
    void this.update();
  }

  /** Explains another prediction: at another position, of another token, or against another one; null for the page's choice. */
  explain(wanted: { position?: number | null; token?: number | null; against?: number | null }): void {
    if (wanted.position !== undefined && wanted.position !== this.position) [this.position, this.token, this.against] = [wanted.position, null, null];
    if (wanted.token !== undefined) [this.token, this.against] = [wanted.token, null];
    if (wanted.against !== undefined) this.against = wanted.against;
    void this.update();
  }

  select(chosen: Selection): void {
    [this.selection, this.isChosen, this.failure] = [chosen, false, ""];
  }

  async openModel(name: string): Promise<void> {
    try {
      const model = await this.engine.model(name);
      [this.#modelName, this.model, this.ids, this.allEdits] = [name, model, null, []];
      [this.position, this.token, this.against, this.isChosen] = [null, null, null, true];
      await this.update();
    } catch (error) {
      this.fail(error);
    }
  }

  setLanguage(code: string): void {
    language.code = this.#chosenLanguage = code;
  }

  /** Takes the state of an address, such as after going back in the browser. */
  async go(state: Partial<State>): Promise<void> {
    if (state.language && state.language in LANGUAGES) this.setLanguage(state.language);
    if (state.model && state.model !== this.model?.name) {
      try {
        this.model = await this.engine.model(state.model);
      } catch (error) {
        this.fail(error);
        return;
      }
      this.#modelName = state.model;
    }
    this.#take(state);
    await this.update();
  }

  #take(state: Partial<State>): void {
    if (state.text !== undefined) this.text = state.text;
    this.ids = state.ids ?? null;
    this.allEdits = state.edits ?? [];
    [this.position, this.token, this.against] = [state.position ?? null, state.token ?? null, state.against ?? null];
    this.tour = state.tour ?? null;
    this.options.all = state.options ?? {};
    [this.other, this.otherModel] = [state.other ?? null, state.otherModel ?? null];
    [this.selection, this.isChosen] = [state.selection ?? null, !state.selection];
  }

  /** Runs a request, or returns the answer that is kept or on its way. */
  async #run(request: RunRequest, signal?: AbortSignal): Promise<Answer<RunFacts>> {
    const written = JSON.stringify(request);
    const kept = this.#kept.get(written);
    this.#kept.delete(written);
    const found = kept ?? this.engine.run(request, signal);
    this.#kept.set(written, found); // the most recently used comes last
    if (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value!);
    try {
      return await found;
    } catch (error) {
      if (this.#kept.get(written) === found) this.#kept.delete(written);
      const wasGivenUp = kept && error instanceof Superseded && !signal?.aborted; // by who asked first
      if (wasGivenUp) return this.#run(request, signal);
      throw error;
    }
  }

  #fits(found: Answer<RunFacts>): boolean {
    const chosen = this.selection;
    if (chosen === null) return false;
    if (chosen.kind === "value" || chosen.kind === "tool") return true;
    const [layers, heads, positions] = found.arrays["sources"]!.shape as [number, number, number];
    const inside = (value: number | undefined, size: number) => value === undefined || (value >= 0 && value < size);
    if (chosen.kind === "norm") return inside(chosen.position, positions);
    if (chosen.kind === "token") return inside(chosen.position, positions);
    if (chosen.kind === "cell") return chosen.state <= layers && inside(chosen.position, positions);
    if (!inside(chosen.layer, layers)) return false;
    if (chosen.kind !== "head") return inside(chosen.position, positions);
    return inside(chosen.head, heads) && inside(chosen.query, positions) && inside(chosen.key, positions);
  }

  /** Selects the head with the largest direct effect. */
  #choose(found: Answer<RunFacts>): void {
    const heads = found.arrays["effects.heads"]!;
    const [layers, count] = heads.shape as [number, number];
    let best = { layer: 0, head: 0 };
    for (let layer = 0; layer < layers; layer++)
      for (let head = 0; head < count; head++)
        if (Math.abs(at(heads, layer, head)) > Math.abs(at(heads, best.layer, best.head))) best = { layer, head };
    [this.selection, this.isChosen] = [{ kind: "head", ...best }, true];
  }
}

/** A token's text with its spaces and line breaks visible. */
export function visible(label: string): string {
  return label.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

const CONTEXT = Symbol("explorer");

/** Hands the explorer to all components below. */
export const provide = (explorer: Explorer) => setContext(CONTEXT, explorer);

/** The explorer; to be called while a component is set up. */
export const useExplorer = () => getContext<Explorer>(CONTEXT);
