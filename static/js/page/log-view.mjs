// @ts-check
import { count, plural } from "../client/format.mjs";
import { focusRow } from "./log-keys.mjs";
import { asText, selected } from "./log-text.mjs";
import { LogWindow } from "./log-window.mjs";
import { Matcher } from "./matcher.mjs";
import { write } from "./panel.mjs";
import { Sieve } from "./sieve.mjs";

/** How long is filtered in one frame. */
const BUDGET_MS = 6;

/** @typedef {{ box: HTMLElement, jump: HTMLButtonElement, nothing: HTMLElement }} Parts the elements of one log */

/** One log: what is kept, what a filter lets through, and the rows of it. */
export class LogView {
  store;
  sieve;
  window;
  box;
  name;
  #jump;
  #nothing;
  #schedule;
  /** The lines that the visitor marked, by their places in the store. @type {Set<number>} */
  #marks = new Set();

  /**
   * @param {Parts} parts
   * @param {import("./store.mjs").Store} store
   * @param {() => void} schedule asks for `draw` at the next frame
   * @param {string} name of its feed
   */
  constructor({ box, jump, nothing }, store, schedule, name) {
    this.box = box;
    this.name = name;
    this.store = store;
    this.#jump = jump;
    this.#nothing = nothing;
    this.#schedule = schedule;
    this.sieve = new Sieve(store, new Matcher());
    this.sieve.onMore = schedule;
    this.sieve.onStopped = (why) => box.dispatchEvent(new CustomEvent("filter-stopped", { bubbles: true, detail: why }));
    this.window = new LogWindow(box, this.sieve, schedule, (id) => this.#marks.has(id));
    jump.addEventListener("click", () => this.follow());
  }

  /** Back to what comes. */
  follow() {
    // The button goes away: the keyboard's place must not.
    this.box.focus();
    this.window.jump();
    // At once: the button that was just pressed must not wait for the next frame.
    this.tell();
    this.#schedule();
  }

  /**
   * Shows what a filter lets through.
   * @param {string} query
   * @param {number} context how many lines around each
   * @returns {boolean} false: it is no filter
   */
  sift(query, context) {
    // Who looks back, and no longer filters, looks for what is around a line.
    const { following, topId } = this.window;
    this.sieve.context = context;
    if (!this.sieve.ask(query)) return false;
    this.window.reset(following || this.sieve.filtering ? undefined : topId);
    return true;
  }

  /** Makes the rows anew, that are to look otherwise. */
  remake() {
    const { following, topId } = this.window;
    this.window.reset(following ? undefined : topId);
  }

  /** @param {readonly import("./store.mjs").Named[]} [feeds] whose chunks come, in a log of several */
  clear(feeds) {
    this.#marks.clear();
    this.store.clear(feeds);
    this.sieve.clear();
    this.window.clear();
  }

  /** All that is kept, with what the visitor marked. */
  kept() {
    const { store } = this;
    return Array.from({ length: store.end - store.first }, (_, i) => {
      const id = store.first + i;
      return { ...store.raw(id), starred: this.#marks.has(id) };
    });
  }

  /**
   * @param {ReturnType<LogView["kept"]>[number]} kept
   * @param {number} source the place of its feed
   */
  put({ starred, ...raw }, source) {
    this.store.restore(raw, source);
    if (starred) this.#marks.add(this.store.end - 1);
  }

  /** @returns {boolean} whether there is more to draw */
  draw() {
    this.sieve.work(BUDGET_MS, () => performance.now());
    return this.window.draw() || this.sieve.due;
  }

  /** How many lines are shown. */
  get lines() {
    return this.sieve.end - this.sieve.first;
  }

  /** Says what there is below, or why there is nothing. */
  tell() {
    const { first, end } = this.store;
    const { following, waiting } = this.window;
    this.#jump.hidden = following;
    const label = waiting === 0 ? "Jump to newest" : `Jump to newest (${count(waiting)} new)`;
    write(this.#jump, label);
    this.box.dataset.waiting = String(waiting);
    this.#nothing.hidden = this.lines !== 0;
    write(this.#nothing, first === end ? "Nothing read yet." : this.sieve.behind ? "Filtering…" : "No line matches the filter.");
  }

  /**
   * @param {HTMLElement} row
   * @returns {string} what was done
   */
  toggleMark(row) {
    const id = Number(row.dataset.id);
    if (!this.#marks.delete(id)) this.#marks.add(id);
    const on = this.#marks.has(id);
    row.classList.toggle("marked", on);
    return on ? "Line marked." : "Mark removed.";
  }

  /**
   * Shows the next line that is marked, and after the last one the first.
   * @param {1 | -1} step
   * @returns {Promise<string>} why there is none, or ""
   */
  async toMark(step) {
    const from = document.activeElement;
    // A marked line that the filter hides is none to go to.
    await this.sieve.settled();
    const now = document.activeElement;
    // Who types elsewhere by now stays there. A row that went has left the focus with the page.
    if (now !== from && now !== document.body && !this.box.contains(now)) return "";
    const marks = [...this.#marks].filter((id) => id >= this.store.first).sort((a, b) => a - b);
    this.#marks = new Set(marks);
    const shown = marks.filter((id) => this.sieve.entry(this.sieve.at(id))?.id === id);
    const active = this.#focused();
    const here = active !== undefined ? Number(active.dataset.id) : (this.window.topId ?? 0) - step;
    const next = step === 1 ? shown.find((id) => id > here) ?? shown[0] : shown.filter((id) => id < here).at(-1) ?? shown.at(-1);
    if (next === undefined) {
      return marks.length > 0 ? "The filter hides all marked lines." : "No line is marked. Select one with the arrow keys and press M, or click its number.";
    }
    const row = this.window.show(this.sieve.at(next));
    if (row !== undefined) focusRow(row);
    this.#schedule();
    return "";
  }

  /**
   * What there is to copy, without escapes: what is selected, the row that has the focus, or all that is shown.
   * @param {boolean} times
   * @returns {Promise<{ text: string, lines: string }>}
   */
  async copied(times) {
    await this.sieve.settled();
    const active = this.#focused();
    const place = active === undefined ? undefined : Number(active.dataset.index);
    const [from, end] = selected(this.box) ?? (place === undefined ? [this.sieve.first, this.sieve.end] : [place, place + 1]);
    return { text: asText(this.sieve, times, from, end), lines: plural(end - from, "line") };
  }

  /** The row that has the focus. */
  #focused() {
    const row = [...this.box.children].find((row) => row.contains(document.activeElement));
    return row instanceof HTMLElement ? row : undefined;
  }
}
