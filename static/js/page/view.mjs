// @ts-check
import { batch, browserClock } from "./batch.mjs";
import { ms, plural, size } from "../client/format.mjs";
import { Log } from "./log.mjs";
import { Panel, byId } from "./panel.mjs";
import { Plot } from "./plot.mjs";

/** @typedef {import("../client/types.mjs").Summary} Summary */

/** Shows one reading as it comes: the panel with the buttons, the numbers, the plot and the log. */
export class View {
  panel = new Panel();
  #ttfb = byId("ttfb", HTMLElement);
  #bytes = byId("bytes", HTMLElement);
  #chunks = byId("chunks", HTMLElement);
  #log = new Log(byId("log", HTMLElement), byId("log-note", HTMLElement));
  #plot = new Plot(byId("plot", SVGElement), byId("plot-caption", HTMLElement), byId("plot-top", HTMLElement));
  #draw = batch(() => this.#flush(), browserClock());
  #totals = { chunks: 0, bytes: 0, firstAt: /** @type {number | null} */ (null) };
  #over = "";

  /** @type {import("./viewer.mjs").ViewerEvents} */
  events = {
    onInfo: () => {},
    onConnecting: () => this.#begin(),
    onOpen: (path) => {
      this.panel.showPath(path);
      this.#over = path.transport === "webtransport" ? "WebTransport" : "fetch";
      this.panel.setState("streaming", `Connected with ${this.#over}. Waiting for the first chunk.`);
    },
    onChunk: (chunk) => {
      if (chunk.gap !== null) this.#plot.samples.add(chunk.gap);
      this.#totals.chunks += 1;
      this.#totals.bytes += chunk.bytes;
      this.#totals.firstAt ??= chunk.at;
      this.#log.add(chunk);
      this.#draw.schedule();
    },
    onPath: (path) => this.panel.showReport(path),
    onDone: (summary) => {
      this.#finish(summary);
      this.panel.setState("done", summary.bytes === 0 ? "The feed has ended without any data." : `Done: ${totals(summary)}.`);
    },
    onStopped: (summary) => {
      this.#finish(summary);
      this.panel.setState("stopped", summary ? `Stopped after ${totals(summary)}.` : "Stopped before the stream was open.");
    },
    onError: (error) => {
      this.#draw.flush();
      this.panel.showError(error);
      this.panel.setState("error", "Failed: see below.");
    },
  };

  #begin() {
    this.#draw.flush();
    this.#totals = { chunks: 0, bytes: 0, firstAt: null };
    this.#log.clear();
    this.#plot.samples.clear();
    this.panel.clear();
    this.#flush();
    this.panel.setState("connecting", "Connecting…");
  }

  #flush() {
    const { chunks, bytes, firstAt } = this.#totals;
    // Plain numbers: the units stand beside them in the markup.
    this.#chunks.textContent = String(chunks);
    this.#bytes.textContent = String(bytes);
    this.#ttfb.textContent = firstAt === null ? "–" : firstAt.toFixed(1);
    this.#log.draw();
    this.#plot.draw();
    if (chunks > 0 && this.panel.state === "streaming") this.panel.setState("streaming", `Streaming with ${this.#over}.`);
  }

  /** @param {Summary | undefined} summary */
  #finish(summary) {
    this.#draw.flush();
    if (summary) this.#log.finish(summary.tail);
  }
}

/** @param {Summary} summary */
function totals({ chunks, bytes, duration, firstAt }) {
  const first = firstAt === null ? "" : `, the first after ${ms(firstAt)}`;
  return `${plural(chunks, "read")}, ${size(bytes)} in ${ms(duration)}${first}`;
}
