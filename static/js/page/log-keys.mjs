// @ts-check
import { strip } from "./ansi.mjs";
import { byId } from "./panel.mjs";

/**
 * What a log's keys do, each by its name in `KeyboardEvent.key`. They hold while nothing is typed into: with the focus
 * on the log or on nothing. Search has a key of its own in `Finder`.
 *
 * @typedef {object} Does
 * @property {() => void} follow
 * @property {() => void} oldest
 * @property {() => void} pause
 * @property {(name: "wrap" | "time" | "number" | "interval") => void} toggle
 * @property {() => void} fullScreen
 * @property {(row: HTMLElement) => void} mark
 * @property {(step: 1 | -1) => void} toMark
 * @property {(times: boolean) => void} copy
 */

/** The keyboard on a log: its rows are one tab stop, in which the arrows move. */
export class LogKeys {
  #box;
  #does;
  #help = byId("keys", HTMLDialogElement);

  /**
   * @param {HTMLElement} box the log
   * @param {Does} does
   */
  constructor(box, does) {
    this.#box = box;
    this.#does = does;
    document.addEventListener("keydown", (event) => this.#key(event));
    byId("show-keys", HTMLButtonElement).addEventListener("click", () => this.#help.showModal());
    box.addEventListener("click", ({ target }) => {
      const row = target instanceof Element && target.closest(".seq")?.closest(".chunk");
      if (row instanceof HTMLElement) does.mark(row);
    });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const { target, key } = event;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || this.#help.open) return;
    const inLog = target instanceof Node && this.#box.contains(target);
    // On the page that explains, the keys are the page's own: it scrolls.
    if (!inLog && (target !== document.body || document.documentElement.dataset.view !== "log")) return;
    const single = key.length === 1;
    if (single && (this.#box.hasAttribute("data-no-letters") || (event.repeat && "spm".includes(key.toLowerCase())))) return;
    const row = target instanceof Element ? target.closest("#log > *") : null;
    // Caps Lock is no Shift.
    const name = single && event.getModifierState("CapsLock") ? (event.shiftKey ? key.toUpperCase() : key.toLowerCase()) : key;
    const act = this.#action(name, row instanceof HTMLElement ? row : undefined);
    if (act === undefined) return;
    event.preventDefault();
    act();
  }

  /**
   * @param {string} key
   * @param {HTMLElement | undefined} row that has the focus
   * @returns {(() => void) | undefined}
   */
  #action(key, row) {
    const does = this.#does;
    switch (key) {
      case "End": return this.#box.hasChildNodes() ? does.follow : undefined;
      case "Home": return this.#box.hasChildNodes() ? does.oldest : undefined;
      case "ArrowDown": return this.#move(row, 1);
      case "ArrowUp": return this.#move(row, -1);
      case "Enter": return row === undefined ? undefined : () => unfold(row);
      case "Escape": return row === undefined ? undefined : () => this.#box.focus();
      case "m": return row === undefined ? undefined : () => does.mark(row);
      case "[": return () => does.toMark(-1);
      case "]": return () => does.toMark(1);
      case "c": return () => does.copy(false);
      case "C": return () => does.copy(true);
      case "f": return () => byId("filter", HTMLInputElement).focus();
      case "p": return does.pause;
      case "w": return () => does.toggle("wrap");
      case "t": return () => does.toggle("time");
      case "s": return does.fullScreen;
      case "?": return () => this.#help.showModal();
      default: return undefined;
    }
  }

  /**
   * @param {HTMLElement | undefined} row
   * @param {1 | -1} step
   * @returns {(() => void) | undefined} undefined: there is no row to move to
   */
  #move(row, step) {
    const next = row === undefined
      ? this.#seen(step)
      : (step === 1 ? row.nextElementSibling : row.previousElementSibling);
    return next instanceof HTMLElement ? () => focusRow(next) : undefined;
  }

  /** The first row in sight, or upwards the last. @param {1 | -1} step */
  #seen(step) {
    const { top, bottom } = this.#box.getBoundingClientRect();
    const rows = [...this.#box.children].filter((row) => {
      const place = row.getBoundingClientRect();
      return place.bottom > top + 1 && place.top < bottom - 1;
    });
    return step === 1 ? rows[0] : rows.at(-1);
  }
}

/** @param {HTMLElement} row */
export function focusRow(row) {
  row.tabIndex = -1;
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

/** @param {HTMLElement} row */
function unfold(row) {
  const details = row.querySelector("details");
  if (details) details.open = !details.open;
}

/**
 * A log as text, without escapes, a line for each entry.
 * @param {import("./sieve.mjs").Sieve} sieve
 * @param {boolean} times whether each line begins with the time of its publication
 * @param {number} from
 * @param {number} end
 */
export function asText(sieve, times, from, end) {
  const lines = [];
  for (let index = from; index < end; index += 1) {
    const entry = sieve.entry(index);
    if (entry === undefined) continue;
    const text = entry.mark?.text ?? strip(entry.text).replace(/\r?\n$/, "");
    lines.push(times && entry.mark === undefined ? `${new Date(entry.micros / 1000).toISOString()} ${text}` : text);
  }
  return lines.map((line) => `${line}\n`).join("");
}

/**
 * The lines that are selected, or undefined where none are.
 * @param {HTMLElement} box
 * @returns {[from: number, end: number] | undefined}
 */
export function selected(box) {
  const selection = getSelection();
  if (selection === null || selection.isCollapsed) return undefined;
  const places = [...box.children].filter((row) => selection.containsNode(row, true)).map((row) => Number(/** @type {HTMLElement} */ (row).dataset.index));
  return places.length === 0 ? undefined : [/** @type {number} */ (places[0]), /** @type {number} */ (places.at(-1)) + 1];
}
