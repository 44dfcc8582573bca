// @ts-check
import { Finder } from "./finder.mjs";
import { count, plural, size } from "../client/format.mjs";
import { LogWindow, MAX_ROWS } from "./log-window.mjs";
import { LogKeys, asText, focusRow, selected } from "./log-keys.mjs";
import { LogOptions } from "./log-options.mjs";
import { hasPattern } from "./filter.mjs";
import { byId } from "./panel.mjs";
import { inAddress } from "./prefs.mjs";
import { Sieve } from "./sieve.mjs";
import { MAX_BYTES, MAX_ENTRIES, Store } from "./store.mjs";

/** How long a download's address is kept for the browser to read it. */
const DOWNLOAD_MS = 60_000;

/** How long is filtered in one frame. */
const BUDGET_MS = 6;

/** The log with what stands around it: pause, search, download, and what is kept. */
export class LogPane {
  feed = "default";
  #store = new Store();
  #sieve = new Sieve(this.#store);
  #box = byId("log", HTMLElement);
  #note = byId("log-note", HTMLElement);
  #filter = byId("filter", HTMLInputElement);
  #filtered = byId("filtered", HTMLElement);
  #options = new LogOptions();
  #pause = byId("pause", HTMLButtonElement);
  #jump = byId("jump", HTMLButtonElement);
  #download = byId("download", HTMLButtonElement);
  #some = byId("download-some", HTMLButtonElement);
  #nothing = byId("nothing", HTMLElement);
  #said = byId("log-said", HTMLElement);
  #binary = byId("binary", HTMLElement);
  /** The lines that the visitor marked, by their places in the store. @type {Set<number>} */
  #marks = new Set();
  #window;
  #finder;
  #schedule;
  /** The filter came with the address, and is one that could make the page hang: the visitor has to want it. */
  #unconfirmed;

  /** @param {() => void} schedule asks for `draw` at the next frame */
  constructor(schedule) {
    this.#schedule = schedule;
    this.#window = new LogWindow(this.#box, this.#sieve, schedule, (id) => this.#marks.has(id));
    this.#finder = new Finder(this.#box, this.#sieve, this.#window, schedule);
    this.#pause.addEventListener("click", () => {
      this.#window.pause(!this.#window.paused);
      this.#tell();
      schedule();
    });
    this.#jump.addEventListener("click", () => {
      // The button goes away: the keyboard's place must not.
      this.#box.focus();
      this.#window.jump();
      schedule();
    });
    this.#download.addEventListener("click", () => this.#save(this.#store.blob()));
    this.#some.addEventListener("click", () => this.#save(this.#sieve.blob()));
    this.#filter.value = new URL(location.href).searchParams.get("filter") ?? "";
    this.#unconfirmed = hasPattern(this.#filter.value);
    this.#filter.addEventListener("input", () => {
      this.#unconfirmed = false;
      this.#sift();
    });
    this.#filter.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.#unconfirmed) {
        this.#unconfirmed = false;
        this.#sift();
      }
      if (event.key !== "Escape" || this.#filter.value === "") return;
      event.preventDefault();
      this.#filter.value = "";
      this.#unconfirmed = false;
      this.#sift();
    });
    new LogKeys(this.#box, {
      follow: () => this.#jump.click(),
      oldest: () => this.#window.oldest(),
      pause: () => this.#pause.click(),
      toggle: (name) => this.#options.toggle(name),
      fullScreen: () => this.#options.fullScreen(),
      mark: (row) => this.#toggleMark(row),
      toMark: (step) => this.#toMark(step),
      copy: (times) => void this.#copy(times),
    });
    byId("copy", HTMLButtonElement).addEventListener("click", () => void this.#copy(false));
    byId("copy-times", HTMLButtonElement).addEventListener("click", () => void this.#copy(true));
    byId("next-mark", HTMLButtonElement).addEventListener("click", () => this.#toMark(1));
    this.#options.onContext = () => this.#sift();
    this.#sift();
    this.#tell();
  }

  /** Shows what the filter lets through. */
  #sift() {
    if (this.#unconfirmed) return;
    const query = this.#filter.value.trim();
    // Who looks back, and no longer filters, looks for what is around a line.
    const { following, topId } = this.#window;
    this.#sieve.context = this.#options.context;
    const good = this.#sieve.ask(query);
    this.#filter.setAttribute("aria-invalid", String(!good));
    if (good) {
      inAddress("filter", query, "");
      this.#window.reset(following || this.#sieve.filtering ? undefined : topId);
      this.#finder.clear();
    }
    this.#schedule();
  }

  /** @param {HTMLElement} row */
  #toggleMark(row) {
    const id = Number(row.dataset.id);
    if (!this.#marks.delete(id)) this.#marks.add(id);
    const on = this.#marks.has(id);
    row.classList.toggle("marked", on);
    this.#said.textContent = on ? "Line marked." : "Mark removed.";
  }

  /** Shows the next line that is marked, and after the last one the first. @param {1 | -1} step */
  #toMark(step) {
    const marks = [...this.#marks].filter((id) => id >= this.#store.first).sort((a, b) => a - b);
    this.#marks = new Set(marks);
    // A marked line that the filter hides is none to go to.
    this.#sieve.work(Infinity, () => 0);
    const shown = marks.filter((id) => this.#sieve.entry(this.#sieve.at(id))?.id === id);
    const active = document.activeElement?.closest("#log > *");
    const here = active instanceof HTMLElement ? Number(active.dataset.id) : (this.#window.topId ?? 0) - step;
    const next = step === 1 ? shown.find((id) => id > here) ?? shown[0] : shown.filter((id) => id < here).at(-1) ?? shown.at(-1);
    if (next === undefined) {
      this.#said.textContent = marks.length > 0 ? "The filter hides all marked lines." : "No line is marked. Select one with the arrow keys and press M, or click its number.";
      return;
    }
    const row = this.#window.show(this.#sieve.at(next));
    if (row !== undefined) focusRow(row);
    this.#schedule();
  }

  /**
   * Copies what is selected, the row that has the focus, or all that is shown.
   * @param {boolean} times
   */
  async #copy(times) {
    this.#sieve.work(Infinity, () => 0);
    const active = document.activeElement?.closest("#log > *");
    const place = active instanceof HTMLElement ? Number(active.dataset.index) : undefined;
    const [from, end] = selected(this.#box) ?? (place === undefined ? [this.#sieve.first, this.#sieve.end] : [place, place + 1]);
    try {
      await navigator.clipboard.writeText(asText(this.#sieve, times, from, end));
      this.#said.textContent = `Copied: ${plural(end - from, "line")}.`;
    } catch {
      this.#said.textContent = "The browser did not allow the page to copy. Select the text and copy it yourself.";
    }
  }

  clear() {
    this.#marks.clear();
    this.#binary.hidden = true;
    this.#store.clear();
    this.#sieve.clear();
    this.#window.clear();
    this.#finder.clear();
  }

  /** @param {import("../client/follow.mjs").Received} chunk */
  add(chunk) {
    this.#store.add(chunk);
    if (this.#binary.hidden && chunk.bytes.includes(0)) this.#tellBinary();
  }

  /**
   * @param {import("./store.mjs").Mark["kind"]} kind
   * @param {string} text
   */
  mark(kind, text) {
    this.#store.mark({ kind, text });
  }

  /** Nothing follows. */
  finish() {
    this.#store.flush();
    this.#schedule();
  }

  draw() {
    this.#sieve.work(BUDGET_MS, () => performance.now());
    if (this.#window.draw() || this.#sieve.due) this.#schedule();
    this.#finder.draw();
    this.#tell();
  }

  #tell() {
    const { bytes, dropped, first, end } = this.#store;
    const { paused, following, waiting } = this.#window;
    this.#pause.setAttribute("aria-pressed", String(paused));
    this.#jump.hidden = following;
    const label = waiting === 0 ? "Jump to newest" : `Jump to newest (${count(waiting)} new)`;
    if (this.#jump.textContent !== label) this.#jump.textContent = label;
    this.#box.dataset.waiting = String(waiting);
    this.#download.disabled = first === end;
    this.#some.hidden = !this.#sieve.filtering;
    const lines = this.#sieve.end - this.#sieve.first;
    const words = this.#unconfirmed ? "Press Enter to apply" : this.#sieve.error !== "" ? this.#sieve.error : this.#sieve.filtering ? `${count(lines)} shown` : "";
    if (this.#filtered.textContent !== words) this.#filtered.textContent = words;
    this.#nothing.hidden = lines !== 0;
    this.#nothing.textContent = first === end ? "Nothing read yet." : this.#sieve.due ? "Filtering…" : "Nothing that is kept matches the filter.";
    const gone = dropped.chunks === 0
      ? ""
      : ` ${plural(dropped.chunks, "older chunk")} (${size(dropped.bytes)}) no longer kept.`;
    this.#note.textContent = `Kept here: ${size(bytes)}.${gone} ` +
      `At most ${size(MAX_BYTES)} and ${count(MAX_ENTRIES)} chunks are kept for looking back, search and download, ` +
      `and ${count(MAX_ROWS)} of them have rows.`;
  }

  /** No text has a zero in it. */
  #tellBinary() {
    const path = this.feed === "default" ? "stream" : `stream/${encodeURIComponent(this.feed)}`;
    const link = byId("binary-link", HTMLAnchorElement);
    link.href = new URL(`${path}?from=start`, location.href).href;
    link.download = this.feed;
    this.#binary.hidden = false;
  }

  /** @param {Blob} blob */
  #save(blob) {
    const url = URL.createObjectURL(blob);
    const link = document.createElement("a");
    link.href = url;
    link.download = `h3cast-${this.feed}-${new Date().toISOString().replaceAll(/[:.]/g, "-")}.log`;
    link.click();
    window.setTimeout(() => URL.revokeObjectURL(url), DOWNLOAD_MS);
  }
}
