// @ts-check
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
 * @property {(row: HTMLElement, step: 1 | -1) => HTMLElement | undefined} beside the next row
 * @property {(row: HTMLElement) => void} mark
 * @property {(step: 1 | -1) => void} toMark
 * @property {(times: boolean) => void} copy
 */

/** The keyboard on a log: its rows are one tab stop, in which the arrows move. */
export class LogKeys {
  #reads;
  #active;
  #does;
  #help = byId("keys", HTMLDialogElement);

  /**
   * @param {HTMLElement} reads has the logs
   * @param {() => HTMLElement} active the log that keys are for
   * @param {Does} does
   */
  constructor(reads, active, does) {
    this.#reads = reads;
    this.#active = active;
    this.#does = does;
    document.addEventListener("keydown", (event) => this.#key(event));
    byId("show-keys", HTMLButtonElement).addEventListener("click", () => this.#help.showModal());
    reads.addEventListener("click", ({ target }) => {
      const row = target instanceof Element && target.closest(".seq")?.closest(".chunk");
      if (row instanceof HTMLElement) does.mark(row);
    });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const { target, key } = event;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || this.#help.open) return;
    const inLog = target instanceof Element && target.closest(".log") !== null;
    // On the page that explains, the keys are the page's own: it scrolls.
    if (!inLog && (target !== document.body || document.documentElement.dataset.view !== "log")) return;
    const single = key.length === 1;
    if (single && (this.#reads.hasAttribute("data-no-letters") || (event.repeat && "spm".includes(key.toLowerCase())))) return;
    const row = target instanceof Element ? target.closest(".log > *") : null;
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
      case "End": return this.#active().hasChildNodes() ? does.follow : undefined;
      case "Home": return this.#active().hasChildNodes() ? does.oldest : undefined;
      case "ArrowDown": return this.#move(row, 1);
      case "ArrowUp": return this.#move(row, -1);
      case "Enter": return row === undefined ? undefined : () => unfold(row);
      case "Escape": return row === undefined ? undefined : () => this.#active().focus();
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
    const next = row === undefined ? this.#seen(step) : this.#does.beside(row, step);
    return next instanceof HTMLElement ? () => focusRow(next) : undefined;
  }

  /** The first row in sight, or upwards the last. @param {1 | -1} step */
  #seen(step) {
    const { top, bottom } = this.#active().getBoundingClientRect();
    const rows = [...this.#active().children].filter((row) => {
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
