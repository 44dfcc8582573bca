// @ts-check
import { batch, browserClock } from "./batch.mjs";
import { count, ms, plural, size } from "../client/format.mjs";
import { LogPane } from "./log-pane.mjs";
import { Panel, byId, fillVerdicts } from "./panel.mjs";
import { Plot } from "./plot.mjs";
import { RetryNote } from "./retry-note.mjs";

/** @typedef {import("../client/place.mjs").Missed} Missed */
/** @typedef {import("../client/follow.mjs").Totals} Totals */

/** A clock that is off by more than this tells nothing of how long a chunk was on its way. */
const CLOCKS_MS = 3_600_000;

/** How long a drawing stays at least, while chunks come. */
const DRAW_MS = 100;

/** The server is on this computer: there is one clock. */
const LOCAL = /^(localhost|127\..*|\[::1\])$/.test(location.hostname);

const STALLED = "The server cannot reach the storage of this feed. Nothing is lost: the feed resumes when the storage is back.";

/** Shows a follower: the panel, the numbers, the plot and the log. */
export class FollowView {
  panel = new Panel();
  retry = new RetryNote();
  #why = byId("why", HTMLElement);
  #ttfb = byId("ttfb", HTMLElement);
  #bytes = byId("bytes", HTMLElement);
  #chunks = byId("chunks", HTMLElement);
  #missing = byId("missing", HTMLElement);
  #losses = byId("losses", HTMLElement);
  #lag = byId("lag", HTMLElement);
  #lagNote = byId("lag-note", HTMLElement);
  #plot = new Plot(byId("plot", SVGElement), byId("plot-caption", HTMLElement), byId("plot-top", HTMLElement), "chunks");
  #draw = batch(() => this.#flush(), browserClock());
  /** When it was drawn last, and what draws it next. */
  #drawn = 0;
  #timer = 0;
  #log = new LogPane(() => this.#draw.schedule());
  #numbers = nothing();
  #over = "";
  /** What the first words after a return are. */
  #again = "";
  #lost = false;
  /** There is no connection now, though there was one. */
  #down = false;
  /** The server reports that nothing has been published yet. */
  #empty = false;
  /** When the connection was asked for, by this computer's clock: what was published before is history. */
  #askedAt = 0;
  #gaps = byId("gaps", HTMLElement);
  /** Nothing can come to the server. */
  #stalled = false;
  /** There has been a connection. */
  #opened = false;
  /** How many chunks the live feed had had when it was opened, where that is known. */
  #published = /** @type {number | undefined} */ (undefined);

  /** @param {string} feed for the download's name */
  set feed(feed) {
    this.#log.feed = feed;
  }

  /** @type {import("../client/follow.mjs").FollowEvents} */
  events = {
    onInfo: () => {},
    onConnecting: (attempt) => {
      this.#askedAt = Date.now();
      if (attempt === 0) this.#begin();
      else this.retry.trying(attempt);
    },
    onOpen: (path, verdicts) => {
      this.panel.showPath(path);
      this.panel.hideError();
      this.retry.hide();
      fillVerdicts(this.#why, verdicts);
      this.#over = path.transport === "webtransport" ? "WebTransport" : "fetch";
      const first = this.#numbers.chunks === 0;
      this.#opened = true;
      if (this.#down) {
        this.#down = false;
        this.#numbers.losses += 1;
        this.#draw.schedule();
      }
      // Of what has not begun, nothing was lost.
      if (first) this.#lost = false;
      this.panel.setState("streaming", first
        ? `Connected with ${this.#over}. ${this.#waiting(this.#empty)}`
        : `Connected with ${this.#over} again.`);
    },
    onBegin: (published) => {
      this.#published ??= published;
      if (this.#numbers.chunks > 0) return;
      const waiting = published === 0 ? this.#waiting(true) : "Waiting for the next chunk.";
      this.panel.setState("streaming", `Connected with ${this.#over}. ${waiting}`);
    },
    onPath: (path) => this.panel.showReport(path),
    onChunk: (chunk) => {
      const numbers = this.#numbers;
      if (chunk.gap !== null) this.#plot.samples.add(chunk.gap);
      numbers.chunks += 1;
      numbers.bytes += chunk.bytes.length;
      numbers.firstAt ??= chunk.at;
      numbers.history = chunk.micros / 1000 < this.#askedAt;
      if (!numbers.history) numbers.lag = Date.now() - chunk.micros / 1000;
      this.#log.add(chunk);
      this.#soon();
    },
    onResumed: (missed) => {
      this.#lost = false;
      const words = missed === undefined ? "Nothing is missing." : this.#count(missed);
      this.#again = ` Resumed: ${words.charAt(0).toLowerCase()}${words.slice(1)}`;
      this.#log.mark(missed === undefined ? "back" : kind(missed), `Resumed with ${this.#over}. ${words}`);
      this.panel.setState("streaming", `Streaming with ${this.#over}.${this.#again}`);
      this.#draw.schedule();
    },
    onMissed: (missed) => {
      this.#log.mark(kind(missed), this.#count(missed));
      this.#draw.schedule();
    },
    onStalled: (stalled) => {
      this.#stalled = stalled;
      this.#log.mark(stalled ? "lost" : "back", stalled ? STALLED : "The feed has resumed.");
      this.panel.setState("streaming", stalled ? STALLED : `Streaming with ${this.#over}.`);
      this.#draw.schedule();
    },
    onLost: (error, waitMs, attempt, verdicts) => {
      this.#stalled = false;
      const { chunks } = this.#numbers;
      if (verdicts.length > 0) fillVerdicts(this.#why, verdicts);
      if (!this.#lost) {
        this.#lost = true;
        this.#down = this.#opened;
        this.#log.mark("lost", error.message);
        this.#draw.schedule();
      }
      const advised = attempt > 2 || chunks === 0 || error.busy;
      if (error.needsToken || error.otherToken) {
        this.panel.setState("reconnecting", "The server asks for another token.");
        this.retry.hide();
        if (advised) this.panel.showError(error);
        return;
      }
      this.panel.setState("reconnecting", chunks > 0 ? "The connection was lost. Reconnecting…" : "There is no connection yet. Trying again…");
      this.retry.show(error, waitMs, attempt);
      // What goes away by itself in a moment needs no advice.
      if (advised) this.panel.showRetried(error);
    },
    onEnded: (totals) => {
      this.#log.mark("end", "The feed has ended.");
      this.#finish();
      this.panel.setState("done", this.#ended(totals));
    },
    onStopped: (totals) => {
      this.#finish();
      this.panel.setState("stopped", totals.chunks > 0 ? `Stopped after ${sum(totals)}.` : "Stopped before the first chunk.");
    },
    onError: (error, verdicts) => {
      if (verdicts.length > 0) fillVerdicts(this.#why, verdicts);
      if (this.#numbers.chunks > 0) this.#log.mark(error.permanent ? "end" : "lost", error.message);
      this.#finish();
      this.panel.showError(error);
      this.panel.setState("error", error.message);
    },
  };

  /**
   * @param {Totals} totals
   * @returns {string} how the feed ended, for one who may have come too late
   */
  #ended(totals) {
    if (totals.chunks > 0) return `The feed has ended: ${sum(totals)}.`;
    if (this.#numbers.missing > 0) return "The feed has ended, and the server keeps none of it.";
    if (this.#published === undefined || this.#published === 0) return "The feed has ended, and it was empty.";
    return `The feed has ended: it had ${plural(this.#published, "chunk")} before you came. To read what is kept, choose “oldest kept”, then Start.`;
  }

  /** @param {boolean} empty the server reports that nothing has been published yet */
  set empty(empty) {
    this.#empty = empty;
    if (empty && this.panel.state === "streaming" && this.#numbers.chunks === 0 && this.#published === undefined) this.events.onBegin(0);
  }

  /** @param {boolean} empty */
  #waiting(empty) {
    return empty ? "The feed is empty so far: waiting for its first chunk." : "Waiting for the first chunk.";
  }

  /** @param {number | undefined} chunks how far behind the feed the page is, if that is known */
  behind(chunks) {
    if (this.#numbers.behind === chunks) return;
    this.#numbers.behind = chunks;
    this.#draw.schedule();
  }

  /** Draws at once what comes after a while, and together what comes fast: nobody reads faster than that. */
  #soon() {
    if (this.#timer !== 0) return;
    const left = this.#drawn + DRAW_MS - performance.now();
    if (left <= 0) {
      this.#draw.schedule();
      return;
    }
    this.#timer = window.setTimeout(() => {
      this.#timer = 0;
      this.#draw.schedule();
    }, left);
  }

  #begin() {
    this.#draw.flush();
    this.#numbers = nothing();
    this.#again = "";
    this.#lost = false;
    this.#stalled = false;
    this.#opened = false;
    this.#down = false;
    this.#published = undefined;
    this.#log.clear();
    this.#plot.samples.clear();
    this.panel.clear();
    this.retry.hide();
    fillVerdicts(this.#why, []);
    this.#flush();
    this.panel.setState("connecting", "Connecting…");
  }

  #finish() {
    this.retry.hide();
    // Nothing tries to connect any more.
    this.#down = false;
    this.#numbers.behind = undefined;
    this.#log.finish();
    this.#draw.schedule();
    this.#draw.flush();
  }

  /**
   * Counts what is missing.
   * @param {Missed} missed
   * @returns {string} in a sentence
   */
  #count({ missing, restarted, told }) {
    this.#numbers.missing += missing;
    const are = `${plural(missing, "chunk")} ${missing === 1 ? "is" : "are"} missing`;
    if (restarted) return missing === 0 ? "The feed was started again." : `The feed was started again, and ${are} of it.`;
    return told ? `${are}: the server no longer has them.` : `${are}, and the server did not say why.`;
  }

  #flush() {
    this.#drawn = performance.now();
    const { chunks, bytes, firstAt, missing, losses } = this.#numbers;
    // Plain numbers: the units stand beside them in the markup.
    this.#chunks.textContent = String(chunks);
    this.#bytes.textContent = String(bytes);
    this.#ttfb.textContent = firstAt === null ? "–" : firstAt.toFixed(1);
    this.#missing.textContent = count(missing);
    const times = losses === 1 ? "once" : `${count(losses)} times`;
    if (this.#down) this.#losses.textContent = losses === 0 ? "reconnecting" : `reconnecting; reconnected ${times} before`;
    else this.#losses.textContent = losses === 0 ? "never reconnected" : `reconnected ${times}`;
    this.#gaps.hidden = missing === 0;
    this.#gaps.textContent = missing === 0 ? "" : `${count(missing)} missing`;
    this.#showLag();
    this.#log.draw();
    const { view, drawer } = document.documentElement.dataset;
    // It draws itself when it comes into sight.
    if (view !== "log" || drawer !== undefined) this.#plot.draw();
    if (chunks > 0 && this.panel.state === "streaming" && !this.#lost && !this.#stalled) {
      this.panel.setState("streaming", `Streaming with ${this.#over}.${this.#again}`);
    }
  }

  #showLag() {
    const { lag, behind, history } = this.#numbers;
    const ahead = behind === undefined || behind === 0 ? "" : `, ${plural(behind, "chunk")} behind`;
    if (lag === undefined) {
      this.#lag.textContent = "–";
      this.#lagNote.textContent = history ? `of the next chunk; so far all are older than this connection${ahead}` : "from publishing to here";
    } else if (Math.abs(lag) > CLOCKS_MS) {
      this.#lag.textContent = "–";
      this.#lagNote.textContent = `over an hour old, or the clocks differ${ahead}`;
    } else {
      this.#lag.textContent = lag < 0 ? `${Math.round(lag)} ms` : ms(Math.round(lag)).replace(/\.0 ms$/, " ms");
      this.#lagNote.textContent = `${LOCAL ? "by this computer's clock" : "by two clocks, their difference included"}${ahead}`;
    }
  }
}

/**
 * @param {Missed} missed
 * @returns {"gap" | "restart"}
 */
function kind({ restarted }) {
  return restarted ? "restart" : "gap";
}

function nothing() {
  return {
    chunks: 0,
    bytes: 0,
    firstAt: /** @type {number | null} */ (null),
    missing: 0,
    losses: 0,
    history: false,
    lag: /** @type {number | undefined} */ (undefined),
    behind: /** @type {number | undefined} */ (undefined),
  };
}

/** @param {Totals} totals */
function sum({ chunks, bytes, duration, firstAt }) {
  const first = firstAt === null ? "" : `, the first after ${ms(firstAt)}`;
  return `${plural(chunks, "chunk")}, ${size(bytes)} in ${ms(duration)}${first}`;
}
