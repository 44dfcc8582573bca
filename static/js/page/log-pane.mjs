// @ts-check
import { Finder } from "./finder.mjs";
import { count, plural, size } from "../client/format.mjs";
import { LogWindow, MAX_ROWS } from "./log-window.mjs";
import { LogOptions } from "./log-options.mjs";
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
  #window;
  #finder;
  #schedule;

  /** @param {() => void} schedule asks for `draw` at the next frame */
  constructor(schedule) {
    this.#schedule = schedule;
    this.#window = new LogWindow(this.#box, this.#sieve, schedule);
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
    this.#filter.addEventListener("input", () => this.#sift());
    this.#filter.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.#filter.value === "") return;
      event.preventDefault();
      this.#filter.value = "";
      this.#sift();
    });
    this.#options.onContext = () => this.#sift();
    this.#sift();
    this.#tell();
  }

  /** Shows what the filter lets through. */
  #sift() {
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

  clear() {
    this.#store.clear();
    this.#sieve.clear();
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
    const words = this.#sieve.error !== "" ? this.#sieve.error : this.#sieve.filtering ? `${count(lines)} shown` : "";
    if (this.#filtered.textContent !== words) this.#filtered.textContent = words;
    this.#nothing.hidden = lines !== 0;
    this.#nothing.textContent = first === end ? "Nothing read yet." : "Nothing that is kept matches the filter.";
    const gone = dropped.chunks === 0
      ? ""
      : ` ${plural(dropped.chunks, "older chunk")} (${size(dropped.bytes)}) no longer kept.`;
    this.#note.textContent = `Kept here: ${size(bytes)}.${gone} ` +
      `At most ${size(MAX_BYTES)} and ${count(MAX_ENTRIES)} chunks are kept for looking back, search and download, ` +
      `and ${count(MAX_ROWS)} of them have rows.`;
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
