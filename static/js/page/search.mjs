// @ts-check
import { strip } from "./ansi.mjs";

/** Finds text in what is kept, a little at a time, and goes on with what comes. */
export class Search {
  #store;
  #query = "";
  /** What was looked at already. */
  #next = 0;
  /** @type {number[]} the entries that have it, oldest first; those no longer kept go from the front */
  #found = [];
  /** The entry that is shown. @type {number | undefined} */
  current;

  /** @param {import("./store.mjs").Store | import("./sieve.mjs").Sieve} store */
  constructor(store) {
    this.#store = store;
  }

  get query() {
    return this.#query;
  }

  /** @param {string} query */
  ask(query) {
    this.#query = query.toLowerCase();
    this.#next = this.#store.first;
    this.#found = [];
    this.current = undefined;
  }

  /** Whether there is something left to look at. */
  get due() {
    return this.#query !== "" && this.#next < this.#store.end;
  }

  /**
   * @param {number} budget how many milliseconds to look
   * @param {() => number} now
   */
  work(budget, now) {
    const store = this.#store;
    const until = now() + budget;
    this.#next = Math.max(this.#next, store.first);
    let looked = 0;
    while (this.due) {
      if (strip(store.text(this.#next)).toLowerCase().includes(this.#query)) this.#found.push(this.#next);
      this.#next += 1;
      looked += 1;
      if (looked % 64 === 0 && now() > until) return;
    }
  }

  #forget() {
    let gone = 0;
    while (gone < this.#found.length && /** @type {number} */ (this.#found[gone]) < this.#store.first) gone += 1;
    if (gone > 0) this.#found.splice(0, gone);
  }

  /** How many entries have it. */
  get count() {
    this.#forget();
    return this.#found.length;
  }

  /** Which of them is shown, from 1; 0 for none. */
  get place() {
    this.#forget();
    return this.current === undefined ? 0 : this.#found.indexOf(this.current) + 1;
  }

  /**
   * The next one in a direction, and from the last to the first and back.
   * @param {1 | -1} step 1: newer
   * @param {number} from where to begin when none is shown yet
   * @returns {number | undefined} an entry
   */
  go(step, from) {
    this.#forget();
    const start = this.current ?? from;
    const newer = this.#found.findIndex((index) => index > start);
    const before = this.#found.findIndex((index) => index >= start);
    const older = before === -1 ? this.#found.length - 1 : before - 1;
    this.current = step === 1 ? this.#found[Math.max(newer, 0)] : this.#found.at(older);
    return this.current;
  }
}
