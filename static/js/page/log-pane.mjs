// @ts-check
import { Finder } from "./finder.mjs";
import { count, plural, size } from "../client/format.mjs";
import { LogWindow, MAX_ROWS } from "./log-window.mjs";
import { byId } from "./panel.mjs";
import { MAX_BYTES, MAX_ENTRIES, Store } from "./store.mjs";

/** How long a download's address is kept for the browser to read it. */
const DOWNLOAD_MS = 60_000;

/** The log with what stands around it: pause, search, download, and what is kept. */
export class LogPane {
  feed = "default";
  #store = new Store();
  #box = byId("log", HTMLElement);
  #note = byId("log-note", HTMLElement);
  #pause = byId("pause", HTMLButtonElement);
  #jump = byId("jump", HTMLButtonElement);
  #download = byId("download", HTMLButtonElement);
  #nothing = byId("nothing", HTMLElement);
  #window;
  #finder;
  #schedule;

  /** @param {() => void} schedule asks for `draw` at the next frame */
  constructor(schedule) {
    this.#schedule = schedule;
    this.#window = new LogWindow(this.#box, this.#store, schedule);
    this.#finder = new Finder(this.#box, this.#store, this.#window, schedule);
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
    this.#download.addEventListener("click", () => this.#save());
    this.#tell();
  }

  clear() {
    this.#store.clear();
    this.#window.clear();
    this.#finder.clear();
  }

  /** @param {import("../client/follow.mjs").Received} chunk */
  add(chunk) {
    this.#store.add(chunk);
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
    if (this.#window.draw()) this.#schedule();
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
    this.#nothing.hidden = first !== end;
    const gone = dropped.chunks === 0
      ? ""
      : ` ${plural(dropped.chunks, "older chunk")} (${size(dropped.bytes)}) no longer kept.`;
    this.#note.textContent = `Kept here: ${size(bytes)}.${gone} ` +
      `At most ${size(MAX_BYTES)} and ${count(MAX_ENTRIES)} chunks are kept for looking back, search and download, ` +
      `and ${count(MAX_ROWS)} of them have rows.`;
  }

  #save() {
    const url = URL.createObjectURL(this.#store.blob());
    const link = document.createElement("a");
    link.href = url;
    link.download = `h3cast-${this.feed}-${new Date().toISOString().replaceAll(/[:.]/g, "-")}.log`;
    link.click();
    window.setTimeout(() => URL.revokeObjectURL(url), DOWNLOAD_MS);
  }
}
