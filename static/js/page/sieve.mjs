// @ts-check
import { strip } from "./ansi.mjs";
import { hasPattern, parseFilter } from "./filter.mjs";

/** @typedef {import("./store.mjs").Entry} Entry */
/** @typedef {Entry & { id: number, context: boolean }} Line an entry by its place among those shown, `index`, and its
 *   place in the store, `id`; `context` if it is shown only for what is next to it */

/** How much is asked of a worker at once. */
const ASKED_LINES = 1000;
const ASKED_TEXT = 250_000;
/** How long is spent in asking on, in milliseconds. */
const ASKING_MS = 6;

/**
 * What is shown of a store: all of it, or what a filter lets through with the lines around it. It is numbered like the
 * store itself, and looks at what comes a little at a time: with a matcher, what has a regular expression elsewhere.
 */
export class Sieve {
  #store;
  /** @type {import("./filter.mjs").Test | undefined} */
  #test;
  /** How many lines before and after are shown with each that is let through. */
  context = 0;
  /** Why the filter is none. */
  error = "";
  /** What is let through: twice the index in the store, and one more for what is there as context. @type {number[]} */
  #shown = [];
  /** The number of the oldest in `#shown`. */
  #base = 0;
  #next = 0;
  /** How many lines after a match are still to be shown. */
  #after = 0;
  #matcher;
  /** What the matcher is asked for, if it is. */
  #query = "";
  /** Who waits until the lines before a certain one have been looked at. @type {{ before: number, resolve: () => void }[]} */
  #waiting = [];
  /** The matcher has answered: there is more to show. */
  onMore = () => {};
  /** The filter was given up. @type {(why: string) => void} */
  onStopped = () => {};

  /**
   * @param {import("./store.mjs").Store} store
   * @param {import("./matcher.mjs").Matcher} [matcher]
   */
  constructor(store, matcher) {
    this.#store = store;
    this.#matcher = matcher;
  }

  get filtering() {
    return this.#test !== undefined;
  }

  /**
   * @param {string} query
   * @returns {boolean} false: it is no filter, and the one before stays
   */
  ask(query) {
    const { test, error } = parseFilter(query);
    this.error = error;
    if (error !== "") return false;
    this.#test = test;
    this.#query = this.#matcher !== undefined && hasPattern(query) ? query : "";
    this.clear();
    return true;
  }

  /** Looks at everything again. */
  clear() {
    this.#matcher?.drop();
    this.#shown = [];
    this.#base = 0;
    this.#after = 0;
    this.#next = this.#store.first;
    this.#wake();
  }

  /** Nothing is looked at any more. */
  leave() {
    this.#matcher?.end();
  }

  /** Whether not everything has been looked at. */
  get behind() {
    return this.filtering && this.#next < this.#store.end;
  }

  /** Whether there is something left to look at now. */
  get due() {
    return this.behind && this.#matcher?.busy !== true;
  }

  /** Resolves when all that is there now has been looked at. */
  async settled() {
    const before = this.#store.end;
    if (this.#query === "") this.work(Infinity, () => 0);
    else if (this.#next < before) await new Promise((/** @type {(value: void) => void} */ resolve) => this.#waiting.push({ before, resolve }));
  }

  #wake() {
    this.#waiting = this.#waiting.filter(({ before, resolve }) => {
      const done = !this.filtering || this.#next >= before;
      if (done) resolve();
      return !done;
    });
  }

  get first() {
    if (!this.filtering) return this.#store.first;
    let gone = 0;
    while (gone < this.#shown.length && /** @type {number} */ (this.#shown[gone]) >> 1 < this.#store.first) gone += 1;
    if (gone > 0) {
      this.#shown.splice(0, gone);
      this.#base += gone;
    }
    return this.#base;
  }

  get end() {
    return this.filtering ? this.#base + this.#shown.length : this.#store.end;
  }

  /**
   * @param {number} budget how many milliseconds to look
   * @param {() => number} now
   */
  work(budget, now) {
    const until = now() + budget;
    const store = this.#store;
    this.#next = Math.max(this.#next, store.first);
    if (this.#query !== "") return this.#ask(until, now);
    // A regular expression may take long over one line: the clock is looked at after each.
    while (this.due) {
      this.#look(this.#next, this.#test?.(this.#line(this.#next)) === true);
      this.#next += 1;
      if (now() > until) return;
    }
  }

  /**
   * Has the matcher look.
   * @param {number} until
   * @param {() => number} now
   */
  #ask(until, now) {
    const { end } = this.#store;
    if (!this.due) return;
    const from = this.#next;
    const texts = [];
    let length = 0;
    for (let id = from; id < end && texts.length < ASKED_LINES && length < ASKED_TEXT && now() <= until; id += 1) {
      const text = this.#line(id);
      length += text.length;
      texts.push(text);
    }
    this.#matcher?.ask({
      question: { query: this.#query, texts },
      answered: (hits) => {
        for (const [place, hit] of hits.entries()) this.#look(from + place, hit);
        this.#next = from + hits.length;
        this.#wake();
        this.onMore();
        this.work(ASKING_MS, () => performance.now());
      },
      stopped: (why) => {
        this.ask("");
        this.onStopped(why);
      },
    });
  }

  /** What is looked at of a line: `$` is where the visitor sees its end. @param {number} id */
  #line(id) {
    return strip(this.#store.text(id)).replace(/\r?\n$/, "");
  }

  /**
   * @param {number} id
   * @param {boolean} hit
   */
  #look(id, hit) {
    // What is missing is missing from what is filtered too.
    if (this.#store.isMark(id)) {
      this.#shown.push(id * 2);
    } else if (hit) {
      const last = this.#shown.at(-1);
      const from = Math.max(this.#store.first, id - this.context, last === undefined ? 0 : (last >> 1) + 1);
      for (let before = from; before < id; before += 1) this.#shown.push(before * 2 + 1);
      this.#shown.push(id * 2);
      this.#after = this.context;
    } else if (this.#after > 0) {
      this.#after -= 1;
      this.#shown.push(id * 2 + 1);
    }
  }

  /**
   * @param {number} index
   * @returns {Line | undefined} undefined: it is not kept
   */
  entry(index) {
    const place = this.#place(index);
    if (place === undefined) return undefined;
    const entry = this.#store.entry(place >> 1);
    return entry === undefined ? undefined : { ...entry, index, id: place >> 1, context: (place & 1) === 1 };
  }

  /** @param {number} index of a line that is kept */
  text(index) {
    const place = this.#place(index);
    return place === undefined ? "" : this.#store.text(place >> 1);
  }

  /** @param {number} index */
  #place(index) {
    return this.filtering ? this.#shown[index - this.#base] : index * 2;
  }

  /** The first that is shown of those from `id` on. @param {number} id */
  at(id) {
    if (!this.filtering) return id;
    const found = this.#shown.findIndex((place) => place >> 1 >= id);
    return this.#base + (found === -1 ? this.#shown.length : found);
  }

  /** What is shown, as it came. */
  async blob() {
    if (!this.filtering) return this.#store.blob();
    await this.settled();
    return this.#store.blobOf(this.#shown.map((place) => place >> 1));
  }
}
