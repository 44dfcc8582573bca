// @ts-check
import { browserClock } from "./batch.mjs";
import { hasPattern } from "./filter.mjs";
import { Finder } from "./finder.mjs";
import { count, noLonger, size } from "../client/format.mjs";
import { LogKeys } from "./log-keys.mjs";
import { LogOptions } from "./log-options.mjs";
import { LogView } from "./log-view.mjs";
import { Merge } from "./merge.mjs";
import { column, move } from "./log-columns.mjs";
import { byId, write } from "./panel.mjs";
import { inAddress } from "./prefs.mjs";
import { MAX_BYTES, MAX_ENTRIES, Store } from "./store.mjs";

/** @typedef {import("./feed-view.mjs").Sink} Sink */
/** @typedef {import("./store.mjs").Named} Named */

/** How long a download's address is kept for the browser to read it. */
const DOWNLOAD_MS = 60_000;

/** The logs with what stands around them: filter, pause, search, download, and what is kept. */
export class LogPane {
  #reads = byId("reads", HTMLElement);
  #note = byId("log-note", HTMLElement);
  #filter = byId("filter", HTMLInputElement);
  #filtered = byId("filtered", HTMLElement);
  #options = new LogOptions();
  #pause = byId("pause", HTMLButtonElement);
  #download = byId("download", HTMLButtonElement);
  #some = byId("download-some", HTMLButtonElement);
  #said = byId("log-said", HTMLElement);
  #binary = byId("binary", HTMLElement);
  /** The log that there always is. */
  #main;
  /** Those that are shown. @type {LogView[]} */
  #views;
  /** The one that keys, copying, search and download are for. */
  #active;
  #frame;
  #columns = byId("columns", HTMLElement);
  #lines = byId("feed-lines", HTMLElement);
  /** Where what each of several feeds brings goes now, and what is shown of each. @type {Sink[]} */
  #sinks = [];
  /** @type {readonly Named[]} */
  #feeds = [];
  /** @type {HTMLElement[]} */
  #words = [];
  /** Of which nothing more comes, or nobody knows when. @type {boolean[]} */
  #quiet = [];
  /** Those that have been opened. @type {boolean[]} */
  #opened = [];
  /** What several feeds bring, on its way into one log. @type {Merge<() => void> | undefined} */
  #merge;
  #finder;
  #schedule;
  #soon;
  /** The filter came with the address, and is one that could make the page hang: the visitor has to want it. */
  #unconfirmed;
  /** Why the filter is not applied, if it was stopped. */
  #stopped = "";

  /**
   * @param {() => void} schedule asks for `draw` at the next frame
   * @param {() => void} soon the same, together with what comes fast
   */
  constructor(schedule, soon) {
    this.#schedule = schedule;
    this.#soon = soon;
    const parts = { box: byId("log", HTMLElement), jump: byId("jump", HTMLButtonElement), nothing: byId("nothing", HTMLElement) };
    this.#frame = /** @type {HTMLElement} */ (parts.box.parentElement);
    this.#main = new LogView(parts, new Store(), schedule, "default");
    this.#views = [this.#main];
    this.#active = this.#main;
    this.#finder = new Finder(this.#main, this.#reads, schedule);
    this.#pause.addEventListener("click", () => {
      const pause = !this.#paused;
      for (const { window } of this.#views) window.pause(pause);
      this.#tell();
      schedule();
    });
    this.#download.addEventListener("click", () => this.#save(this.#active.store.blob()));
    this.#some.addEventListener("click", async () => this.#save(await this.#active.sieve.blob()));
    this.#filter.value = new URL(location.href).searchParams.get("filter") ?? "";
    this.#unconfirmed = hasPattern(this.#filter.value);
    this.#filter.addEventListener("input", () => {
      this.#edited();
    });
    // Its view shows everything again by now: the others do as well, and no link has it.
    this.#reads.addEventListener("filter-stopped", (event) => {
      for (const view of this.#views) view.sift("", this.#options.context);
      this.#stopped = this.#said.textContent = event instanceof CustomEvent ? String(event.detail) : "";
      this.#filter.setAttribute("aria-invalid", "true");
      inAddress("filter", "", "");
      this.#finder.clear();
      schedule();
    });
    this.#filter.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.#unconfirmed) this.#edited();
      if (event.key !== "Escape" || this.#filter.value === "") return;
      event.preventDefault();
      this.#filter.value = "";
      this.#edited();
    });
    const toMark = async (/** @type {1 | -1} */ step) => {
      const why = await this.#active.toMark(step);
      if (why !== "") this.#said.textContent = why;
    };
    new LogKeys(this.#reads, () => this.#active.box, {
      follow: () => this.#active.follow(),
      oldest: () => this.#active.window.oldest(),
      pause: () => this.#pause.click(),
      toggle: (name) => this.#options.toggle(name),
      fullScreen: () => this.#options.fullScreen(),
      beside: (row, step) => this.#viewOf(row).window.beside(row, step),
      mark: (row) => {
        this.#said.textContent = this.#viewOf(row).toggleMark(row);
      },
      toMark: (step) => void toMark(step),
      copy: (times) => void this.#copy(times),
    });
    byId("copy", HTMLButtonElement).addEventListener("click", () => void this.#copy(false));
    byId("copy-times", HTMLButtonElement).addEventListener("click", () => void this.#copy(true));
    byId("next-mark", HTMLButtonElement).addEventListener("click", () => void toMark(1));
    this.#options.onContext = () => this.#sift();
    this.#options.onFolded = () => {
      for (const view of this.#views) view.remake();
      schedule();
    };
    this.#sift();
    this.#tell();
  }

  /** The log that a row is in: what clicks without a pointer has not turned to it. @param {HTMLElement} row */
  #viewOf(row) {
    return this.#views.find(({ box }) => box.contains(row)) ?? this.#active;
  }

  get #paused() {
    return this.#views.some(({ window }) => window.paused);
  }

  /** The visitor wants this filter. */
  #edited() {
    this.#unconfirmed = false;
    this.#stopped = "";
    this.#sift();
  }

  /** Shows what the filter lets through. One that was stopped would be stopped again, after it had held up the log. */
  #sift() {
    this.#schedule();
    if (this.#unconfirmed || this.#stopped !== "") return;
    const query = this.#filter.value.trim();
    // Each asks the same: what is no filter is none for all of them.
    const good = this.#views.map((view) => view.sift(query, this.#options.context)).every(Boolean);
    this.#filter.setAttribute("aria-invalid", String(!good));
    if (good) {
      inAddress("filter", query, "");
      this.#finder.clear();
    }
  }

  /**
   * Copies what is selected, the row that has the focus, or all that is shown.
   * @param {boolean} times
   */
  async #copy(times) {
    const { text, lines } = await this.#active.copied(times);
    try {
      await navigator.clipboard.writeText(text);
      this.#said.textContent = `Copied: ${lines}.`;
    } catch {
      this.#said.textContent = "The browser did not allow the page to copy. Select the text and copy it yourself.";
    }
  }

  /**
   * Shows another feed, or the same again.
   * @param {string} feed
   * @returns {Sink} where what it brings goes
   */
  show(feed) {
    this.#clear();
    this.#main.name = feed;
    const sink = this.#plain(this.#main);
    return {
      ...sink,
      add: (chunk) => {
        sink.add(chunk);
        this.#look(feed, chunk.bytes);
      },
      clear: () => this.#clear(),
    };
  }

  /**
   * Shows several feeds.
   * @param {readonly Named[]} feeds
   * @param {boolean} columns side by side, and not as one log
   * @param {HTMLElement[]} words about each
   * @returns {Sink[]} one for each
   */
  several(feeds, columns, words) {
    this.#clear();
    this.#feeds = feeds;
    this.#words = words;
    this.#quiet = feeds.map(() => false);
    this.#opened = feeds.map(() => false);
    this.arrange(columns);
    const to = (/** @type {number} */ i) => /** @type {Sink} */ (this.#sinks[i]);
    return feeds.map(({ name }, i) => ({
      add: (chunk) => {
        to(i).add(chunk);
        this.#look(name, chunk.bytes);
      },
      mark: (kind, text) => to(i).mark(kind, text),
      clear: () => {},
      opened: () => {
        this.#quiet[i] = false;
        this.#opened[i] = true;
        this.#merge?.opened(i);
      },
      lost: () => {
        this.#quiet[i] = true;
        this.#merge?.over(i);
      },
      finish: () => {
        to(i).finish();
        this.#quiet[i] = true;
        this.#merge?.over(i);
      },
    }));
  }

  /** Shows several feeds in another way, and what is kept of them. @param {boolean} columns */
  arrange(columns) {
    const before = this.#views;
    const again = this.#sinks.length > 0;
    if (again && columns === this.#frame.hidden) return;
    // What still waits is put in its place before that changes.
    this.#merge?.end();
    this.#merge = undefined;
    if (columns) this.#sideBySide();
    else this.#asOne();
    if (again) move(before, this.#views);
    this.#columns.hidden = !columns;
    this.#frame.hidden = columns;
    if (again) for (const view of before) this.#leave(view);
    this.#activate(/** @type {LogView} */ (this.#views[0]));
    this.#sift();
  }

  #sideBySide() {
    const share = this.#feeds.length;
    const made = this.#feeds.map((feed, i) => {
      const { element, head, parts } = column(feed);
      const words = this.#words[i];
      words?.removeAttribute("role");
      if (words !== undefined) head.append(words);
      const view = new LogView(parts, new Store(Math.floor(MAX_BYTES / share), Math.floor(MAX_ENTRIES / share)), this.#schedule, feed.name);
      for (const event of ["focusin", "pointerdown"]) element.addEventListener(event, () => this.#activate(view));
      return { element, view };
    });
    this.#columns.replaceChildren(...made.map(({ element }) => element));
    this.#views = made.map(({ view }) => view);
    this.#sinks = this.#views.map((view) => this.#plain(view));
  }

  #asOne() {
    this.#columns.replaceChildren();
    for (const words of this.#words) words.setAttribute("role", "listitem");
    this.#lines.replaceChildren(...this.#words);
    this.#main.clear(this.#feeds);
    this.#views = [this.#main];
    // As wide as the longest name, within reason.
    this.#reads.style.setProperty("--names", `${Math.min(Math.max(...this.#feeds.map(({ name }) => name.length)), 20)}ch`);
    const { store } = this.#main;
    const clock = { ...browserClock(), now: () => performance.now() };
    const merge = (this.#merge = new Merge(this.#feeds.length, (put) => {
      put();
      this.#soon();
    }, clock));
    // What happens to a feed stands after its last chunk.
    this.#sinks = this.#feeds.map((_, i) => ({
      add: (chunk) => merge.add(i, chunk.micros, () => store.add(chunk, i), chunk.bytes.length),
      mark: (kind, text) => merge.add(i, -Infinity, () => store.mark({ kind, text }, i), 0),
      clear: () => {},
      finish: () => merge.add(i, -Infinity, () => store.flush(i), 0),
    }));
    this.#feeds.forEach((_, i) => {
      if (this.#quiet[i]) merge.over(i);
      else if (this.#opened[i]) merge.opened(i);
    });
  }

  /**
   * Where the only feed of a log goes.
   * @param {LogView} view
   * @returns {Sink}
   */
  #plain({ store }) {
    return {
      add: (chunk) => store.add(chunk),
      mark: (kind, text) => store.mark({ kind, text }),
      clear: () => {},
      finish: () => {
        store.flush();
        this.#schedule();
      },
    };
  }

  /** Turns keys, search, copying and downloads to one log. @param {LogView} view */
  #activate(view) {
    this.#active = view;
    const several = this.#views.length > 1;
    for (const one of this.#views) one.box.closest(".column")?.toggleAttribute("data-active", several && one === view);
    const name = several ? ` of ${view.name}` : "";
    this.#download.textContent = `Download all${name}`;
    this.#some.textContent = `Download what is shown${name}`;
    this.#finder.turnTo(view);
    this.#tell();
  }

  /** Empties a view. That of a column is not used again: its worker would stay. @param {LogView} view */
  #leave(view) {
    view.clear();
    if (view !== this.#main) view.sieve.leave();
  }

  #clear() {
    this.#merge?.end();
    this.#merge = undefined;
    this.#sinks = [];
    this.#feeds = [];
    this.#words = [];
    this.#lines.replaceChildren();
    this.#columns.replaceChildren();
    this.#columns.hidden = true;
    this.#frame.hidden = false;
    this.#binary.hidden = true;
    for (const view of this.#views) this.#leave(view);
    if (this.#views[0] !== this.#main) {
      this.#views = [this.#main];
      this.#activate(this.#main);
      this.#sift();
    }
    this.#finder.clear();
  }

  draw() {
    let more = false;
    for (const view of this.#views) more = view.draw() || more;
    if (more) this.#schedule();
    this.#finder.draw();
    this.#tell();
  }

  #tell() {
    for (const view of this.#views) view.tell();
    this.#pause.setAttribute("aria-pressed", String(this.#paused));
    const { store, sieve } = this.#active;
    this.#download.disabled = store.first === store.end;
    this.#some.hidden = !sieve.filtering;
    const lines = this.#views.reduce((sum, view) => sum + view.lines, 0);
    const words = this.#unconfirmed ? "Press Enter to apply" : this.#stopped !== "" ? this.#stopped : sieve.error !== "" ? sieve.error : sieve.filtering ? `${count(lines)} shown` : "";
    write(this.#filtered, words);
    let [bytes, gone] = [0, { chunks: 0, bytes: 0 }];
    for (const { store } of this.#views) {
      bytes += store.bytes;
      gone = { chunks: gone.chunks + store.dropped.chunks, bytes: gone.bytes + store.dropped.bytes };
    }
    const older = gone.chunks === 0 ? "" : ` ${noLonger(gone.chunks, "older chunk", size(gone.bytes))}`;
    write(this.#note, `Keeping the latest ${count(MAX_ENTRIES)} chunks (${size(MAX_BYTES)}) for scrollback, search and download: ${size(bytes)} now.${older}`);
  }

  /**
   * Offers the download of a feed that is not text: no text has a zero in it.
   * @param {string} feed
   * @param {Uint8Array} bytes
   */
  #look(feed, bytes) {
    if (!this.#binary.hidden || !bytes.includes(0)) return;
    const path = feed === "default" ? "stream" : `stream/${encodeURIComponent(feed)}`;
    const link = byId("binary-link", HTMLAnchorElement);
    link.href = new URL(`${path}?from=start`, location.href).href;
    link.download = feed;
    byId("binary-feed", HTMLElement).textContent = this.#feeds.length === 0 ? "This feed" : `The feed ${feed}`;
    this.#binary.hidden = false;
  }

  /** @param {Blob} blob */
  #save(blob) {
    const url = URL.createObjectURL(blob);
    const link = document.createElement("a");
    link.href = url;
    const name = this.#feeds.length > 0 && this.#views.length === 1 ? this.#feeds.map(({ name }) => name).join("+").slice(0, 100) : this.#active.name;
    link.download = `h3cast-${name}-${new Date().toISOString().replaceAll(/[:.]/g, "-")}.log`;
    link.click();
    window.setTimeout(() => URL.revokeObjectURL(url), DOWNLOAD_MS);
  }
}
