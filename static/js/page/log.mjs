// @ts-check
import { ms, noLonger, plural, size } from "../client/format.mjs";
import { Keep } from "./keep.mjs";
import { cell } from "./cell.mjs";

/** @typedef {import("../client/types.mjs").ChunkRead} ChunkRead */

/** How much of a chunk's text a row shows; `data-text` has all of it. */
const SHOWN = 400;

/** The list of reads: one row each, the oldest let go when there are too many. */
export class Log {
  #list;
  #note;
  #keep = new Keep();
  /** @type {ChunkRead[]} */
  #pending = [];
  /** How many rows the list holds, and how many at its front are no longer kept. */
  #drawn = 0;
  #stale = 0;

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} note says when rows were let go
   */
  constructor(list, note) {
    this.#list = list;
    this.#note = note;
    this.#note.hidden = true;
  }

  clear() {
    this.#pending = [];
    this.#drawn = 0;
    this.#stale = 0;
    this.#keep.clear();
    this.#list.replaceChildren();
    this.#note.hidden = true;
  }

  /** @param {ChunkRead} chunk */
  add(chunk) {
    this.#pending.push(chunk);
    for (let out = this.#keep.add(chunk.text.length); out > 0; out -= 1) {
      // Let go the oldest, be it drawn already or still waiting for a frame.
      if (this.#drawn > this.#stale) this.#stale += 1;
      else this.#pending.shift();
    }
  }

  /**
   * Adds what the decoder still held at the end to the last row.
   * @param {string} tail
   */
  finish(tail) {
    const row = this.#list.lastElementChild;
    if (tail === "" || !(row instanceof HTMLElement)) return;
    const text = (row.dataset.text ?? "") + tail;
    row.dataset.text = text;
    const shown = row.querySelector(".text");
    if (shown !== null) shown.textContent = shorten(text);
  }

  draw() {
    const list = this.#list;
    const following = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
    for (; this.#stale > 0; this.#stale -= 1, this.#drawn -= 1) list.firstElementChild?.remove();
    list.append(...this.#pending.map(row));
    this.#drawn += this.#pending.length;
    this.#pending = [];
    if (following) list.scrollTop = list.scrollHeight;
    const { dropped, rows } = this.#keep;
    this.#note.hidden = dropped === 0;
    if (dropped > 0) {
      this.#note.textContent = `The latest ${plural(rows, "read")}. ${noLonger(dropped, "older one")}`;
    }
  }
}

/** @param {ChunkRead} chunk */
function row(chunk) {
  const element = document.createElement("div");
  element.className = "chunk";
  element.dataset.bytes = String(chunk.bytes);
  element.dataset.at = chunk.at.toFixed(2);
  element.dataset.text = chunk.text;
  element.append(
    cell("at", ms(chunk.at)),
    cell("gap", chunk.gap === null ? "first" : `+${ms(chunk.gap)}`),
    cell("size", size(chunk.bytes)),
    cell("text", shorten(chunk.text)),
  );
  return element;
}

/** @param {string} text */
function shorten(text) {
  const line = text.replace(/\r?\n$/, "");
  return line.length <= SHOWN ? line : `${line.slice(0, SHOWN)}… (${plural(line.length - SHOWN, "more character")})`;
}
