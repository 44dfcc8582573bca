// @ts-check
import { batch, browserClock } from "./batch.mjs";
import { ms, pathName, plural, size } from "./format.mjs";
import { Log } from "./log.mjs";
import { Plot } from "./plot.mjs";

/** @typedef {import("./types.mjs").State} State */
/** @typedef {import("./types.mjs").Summary} Summary */
/** @typedef {import("./types.mjs").Verdict} Verdict */
/** @typedef {import("./viewer.mjs").Path} Path */

/**
 * An element that the page's markup must have.
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function byId(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`the page has no ${type.name} #${id}`);
  return element;
}

/** Shows one viewer: the panel with the buttons, the numbers, the plot and the log. */
export class View {
  start = byId("start", HTMLButtonElement);
  stop = byId("stop", HTMLButtonElement);
  #status = byId("status", HTMLElement);
  #error = byId("error", HTMLElement);
  #protocol = byId("protocol", HTMLElement);
  #protocolNote = byId("protocol-note", HTMLElement);
  #ttfb = byId("ttfb", HTMLElement);
  #bytes = byId("bytes", HTMLElement);
  #chunks = byId("chunks", HTMLElement);
  #why = document.getElementById("why");
  #log = new Log(byId("log", HTMLElement), byId("log-note", HTMLElement));
  #plot = new Plot(byId("plot", SVGElement), byId("plot-caption", HTMLElement), byId("plot-top", HTMLElement));
  #draw = batch(() => this.#flush(), browserClock());
  #totals = { chunks: 0, bytes: 0, firstAt: /** @type {number | null} */ (null) };
  #over = "";

  /** @type {import("./viewer.mjs").ViewerEvents} */
  events = {
    onInfo: () => {},
    onConnecting: () => this.#begin(),
    onOpen: (path, verdicts) => {
      this.showPath(path);
      this.showVerdicts(verdicts);
      this.#over = path.transport === "webtransport" ? "WebTransport" : "fetch";
      this.#setState("streaming", `Connected with ${this.#over}. Waiting for the first chunk.`);
    },
    onChunk: (chunk) => {
      if (chunk.gap !== null) this.#plot.samples.add(chunk.gap);
      this.#totals.chunks += 1;
      this.#totals.bytes += chunk.bytes;
      this.#totals.firstAt ??= chunk.at;
      this.#log.add(chunk);
      this.#draw.schedule();
    },
    onPath: (path) => {
      const before = this.#protocol.dataset.protocol;
      this.showPath(path);
      if (before !== undefined && before !== path.protocol) {
        this.#protocolNote.textContent += `; /info came over ${before}`;
      }
    },
    onDone: (summary) => {
      this.#finish(summary);
      this.#setState("done", `Done: ${totals(summary)}.`);
    },
    onStopped: (summary) => {
      this.#finish(summary);
      this.#setState("stopped", summary ? `Stopped after ${totals(summary)}.` : "Stopped before the stream was open.");
    },
    onError: (error, verdicts) => {
      this.#draw.flush();
      this.showVerdicts(verdicts);
      this.showError(error);
      this.#setState("error", "Failed. What happened and what to do is below.");
    },
  };

  /**
   * @param {State} state
   * @param {string} text announced by screen readers, so only at turning points
   */
  #setState(state, text) {
    const running = state === "connecting" || state === "streaming";
    // The keyboard's place must not be lost with the button that it was on.
    const focused = document.activeElement;
    this.start.disabled = running;
    this.stop.disabled = !running;
    if (focused === this.start && running) this.stop.focus();
    if (focused === this.stop && !running) this.start.focus();
    this.#status.textContent = text;
    this.#status.dataset.state = state;
  }

  #begin() {
    this.#draw.flush();
    this.#totals = { chunks: 0, bytes: 0, firstAt: null };
    this.#log.clear();
    this.#plot.samples.clear();
    this.#error.hidden = true;
    this.#error.replaceChildren();
    this.#protocol.textContent = "–";
    delete this.#protocol.dataset.protocol;
    delete this.#protocol.dataset.transport;
    delete this.#protocol.dataset.final;
    this.#protocolNote.textContent = "as the browser reports it";
    this.showVerdicts([]);
    this.#flush();
    this.#setState("connecting", "Connecting…");
  }

  #flush() {
    const { chunks, bytes, firstAt } = this.#totals;
    // Plain numbers: the units stand beside them in the markup.
    this.#chunks.textContent = String(chunks);
    this.#bytes.textContent = String(bytes);
    this.#ttfb.textContent = firstAt === null ? "–" : firstAt.toFixed(1);
    this.#log.draw();
    this.#plot.draw();
    if (chunks > 0 && this.#status.dataset.state === "streaming") {
      const text = `Streaming with ${this.#over}.`;
      if (this.#status.textContent !== text) this.#status.textContent = text;
    }
  }

  /** @param {Summary | undefined} summary */
  #finish(summary) {
    this.#draw.flush();
    if (summary) this.#log.finish(summary.tail);
  }

  /** @param {Path} path */
  showPath({ transport, protocol, final }) {
    this.#protocol.textContent = pathName(transport, protocol);
    this.#protocol.dataset.protocol = protocol;
    this.#protocol.dataset.transport = transport;
    this.#protocol.dataset.final = String(final);
    this.#protocolNote.textContent = note({ transport, protocol, final });
  }

  /**
   * @param {Verdict[]} verdicts none: nothing was weighed
   */
  showVerdicts(verdicts) {
    if (this.#why === null) return;
    this.#why.replaceChildren(...verdicts.map(({ way, verdict, reason }) => {
      const item = document.createElement("li");
      item.dataset.verdict = verdict;
      const head = document.createElement("p");
      const name = document.createElement("strong");
      name.textContent = way;
      const mark = document.createElement("span");
      mark.className = "verdict";
      mark.textContent = verdict;
      head.append(name, " ", mark);
      const text = document.createElement("p");
      text.textContent = reason;
      item.append(head, text);
      return item;
    }));
  }

  /** @param {import("./errors.mjs").PageError} error */
  showError(error) {
    fillError(this.#error, error);
  }
}

/**
 * Shows an error: what happened, and what to do about it.
 * @param {HTMLElement} box
 * @param {import("./errors.mjs").PageError} error
 */
export function fillError(box, error) {
  const title = document.createElement("p");
  title.className = "title";
  title.textContent = error.message;
  const list = document.createElement("ul");
  list.append(...error.steps.map((step) => {
    const item = document.createElement("li");
    item.textContent = step;
    return item;
  }));
  box.replaceChildren(title, list);
  if (error.said !== "") {
    const said = document.createElement("p");
    said.className = "said";
    said.textContent = `The browser's words: ${error.said}`;
    box.append(said);
  }
  box.hidden = false;
}

/**
 * How the page knows the protocol.
 * @param {Path} path
 */
function note({ transport, protocol, final }) {
  if (transport === "webtransport") return "a session always runs on HTTP/3";
  if (!final) return "as for /info; certain when this request ends";
  return protocol === "unknown" ? "the browser does not say" : "as the browser reports it";
}

/** @param {Summary} summary */
function totals({ chunks, bytes, duration, firstAt }) {
  const first = firstAt === null ? "" : `, the first after ${ms(firstAt)}`;
  return `${plural(chunks, "read")}, ${size(bytes)} in ${ms(duration)}${first}`;
}
