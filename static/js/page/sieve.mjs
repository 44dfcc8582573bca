// @ts-check
import { strip } from "./ansi.mjs";
import { parseFilter } from "./filter.mjs";

/** @typedef {import("./store.mjs").Entry} Entry */
/** @typedef {Entry & { id: number, context: boolean }} Line an entry by its place among those shown, `index`, and its
 *   place in the store, `id`; `context` if it is shown only for what is next to it */

/**
 * What is shown of a store: all of it, or what a filter lets through with the lines around it. It is numbered like the
 * store itself, and looks at what comes a little at a time.
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

  /** @param {import("./store.mjs").Store} store */
  constructor(store) {
    this.#store = store;
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
    this.clear();
    return true;
  }

  /** Looks at everything again. */
  clear() {
    this.#shown = [];
    this.#base = 0;
    this.#after = 0;
    this.#next = this.#store.first;
  }

  /** Whether there is something left to look at. */
  get due() {
    return this.filtering && this.#next < this.#store.end;
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
    // A regular expression may take long over one line: the clock is looked at after each.
    while (this.due) {
      this.#look(this.#next);
      this.#next += 1;
      if (now() > until) return;
    }
  }

  /** @param {number} id */
  #look(id) {
    // What is missing is missing from what is filtered too.
    if (this.#store.isMark(id)) {
      this.#shown.push(id * 2);
    } else if (this.#test?.(strip(this.#store.text(id))) === true) {
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
  blob() {
    if (!this.filtering) return this.#store.blob();
    this.work(Infinity, () => 0);
    return this.#store.blobOf(this.#shown.map((place) => place >> 1));
  }
}
