// @ts-check
import { count, ms, plural } from "../client/format.mjs";
import { byId, write } from "./panel.mjs";
import { Plot } from "./plot.mjs";

/** A clock that is off by more than this tells nothing of how long a chunk was on its way. */
const CLOCKS_MS = 3_600_000;

/** The server is on this computer: there is one clock. */
const local = () => /^(localhost|127\..*|\[::1\])$/.test(location.hostname);

/** @typedef {ReturnType<typeof nothing>} Numbers what is counted of one feed */

export function nothing() {
  return {
    chunks: 0,
    bytes: 0,
    firstAt: /** @type {number | null} */ (null),
    missing: 0,
    losses: 0,
    /** There is no connection now, though there was one. */
    down: false,
    history: false,
    lag: /** @type {number | undefined} */ (undefined),
    /** When the lag was measured. */
    lagAt: 0,
    behind: /** @type {number | undefined} */ (undefined),
  };
}

/** The numbers of what is followed, all feeds together, and the plot of the times between chunks. */
export class Figures {
  #ttfb = byId("ttfb", HTMLElement);
  #bytes = byId("bytes", HTMLElement);
  #chunks = byId("chunks", HTMLElement);
  #missing = byId("missing", HTMLElement);
  #losses = byId("losses", HTMLElement);
  #lag = byId("lag", HTMLElement);
  #lagNote = byId("lag-note", HTMLElement);
  #gaps = byId("gaps", HTMLElement);
  #plot = new Plot(byId("plot", SVGElement), byId("plot-caption", HTMLElement), byId("plot-top", HTMLElement), "chunks");

  get samples() {
    return this.#plot.samples;
  }

  /** @param {Numbers[]} each */
  draw(each) {
    const sum = together(each);
    const { chunks, bytes, firstAt, missing, losses, down } = sum;
    // Plain numbers: the units stand beside them in the markup.
    this.#chunks.textContent = String(chunks);
    this.#bytes.textContent = String(bytes);
    this.#ttfb.textContent = firstAt === null ? "–" : firstAt.toFixed(1);
    this.#missing.textContent = count(missing);
    const times = losses === 1 ? "once" : `${count(losses)} times`;
    if (down) this.#losses.textContent = losses === 0 ? "reconnecting" : `reconnecting; reconnected ${times} before`;
    else this.#losses.textContent = losses === 0 ? "never reconnected" : `reconnected ${times}`;
    this.#gaps.hidden = missing === 0;
    write(this.#gaps, missing === 0 ? "" : `${count(missing)} missing`);
    this.#showLag(sum);
    const { view, drawer } = document.documentElement.dataset;
    // It draws itself when it comes into sight.
    if (view !== "log" || drawer !== undefined) this.#plot.draw();
  }

  /** @param {Numbers} numbers */
  #showLag({ lag, behind, history }) {
    const ahead = behind === undefined || behind === 0 ? "" : `, ${plural(behind, "chunk")} behind`;
    if (lag === undefined) {
      this.#lag.textContent = "–";
      this.#lagNote.textContent = history ? `all chunks so far are older than this connection${ahead}` : "from publication to arrival";
    } else if (Math.abs(lag) > CLOCKS_MS) {
      this.#lag.textContent = "–";
      this.#lagNote.textContent = `over an hour old, or the clocks differ${ahead}`;
    } else {
      this.#lag.textContent = lag < 0 ? `${Math.round(lag)} ms` : ms(Math.round(lag)).replace(/\.0 ms$/, " ms");
      this.#lagNote.textContent = `${local() ? "by this computer's clock" : "includes any difference between the two clocks"}${ahead}`;
    }
  }
}

/**
 * The numbers of several feeds as one: sums, the first chunk of all, and the lag of the newest.
 * @param {Numbers[]} each
 */
function together(each) {
  const sum = nothing();
  for (const one of each) {
    sum.chunks += one.chunks;
    sum.bytes += one.bytes;
    sum.missing += one.missing;
    sum.losses += one.losses;
    sum.down ||= one.down;
    sum.history ||= one.history;
    if (one.firstAt !== null) sum.firstAt = Math.min(sum.firstAt ?? Infinity, one.firstAt);
    if (one.behind !== undefined) sum.behind = (sum.behind ?? 0) + one.behind;
    if (one.lag !== undefined && one.lagAt >= sum.lagAt) [sum.lag, sum.lagAt] = [one.lag, one.lagAt];
  }
  return sum;
}
