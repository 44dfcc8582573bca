// @ts-check
import { ms, plural, size } from "../client/format.mjs";
import { nothing } from "./figures.mjs";

/** @typedef {import("../client/place.mjs").Missed} Missed */
/** @typedef {import("../client/follow.mjs").Totals} Totals */
/** @typedef {import("../client/errors.mjs").ClientError} ClientError */

/** What a feed is said to be of which nothing new can come to the server. */
export const STALLED = "Stalled: the server cannot receive or store new chunks.";
/** The same, where it is explained. */
/** @param {string} why */
const stalledSince = (why) => `The server cannot receive or store new chunks of this feed${why}. The feed resumes when that is over.`;
const NO_CAUSE = ", for example because NATS is unreachable or a disk is full";

/**
 * What shows the state of a feed.
 * @typedef {Pick<import("./panel.mjs").Panel, "state" | "setState" | "showPath" | "showReport" | "showError" | "showRetried" | "hideError" | "clear">} StatePanel
 *
 * Where what a feed brings goes.
 * @typedef {object} Sink
 * @property {(chunk: import("../client/follow.mjs").Received) => void} add
 * @property {(kind: import("./store.mjs").Mark["kind"], text: string) => void} mark
 * @property {() => void} clear
 * @property {() => void} finish nothing follows
 * @property {() => void} [ended] the feed is over, and all of it has come
 * @property {() => void} [opened] there is a connection
 * @property {() => void} [lost] there is none any more
 *
 * @typedef {object} Around what one feed is shown with
 * @property {StatePanel} panel
 * @property {Pick<import("./retry-note.mjs").RetryNote, "show" | "trying" | "hide">} retry
 * @property {Sink} log
 * @property {(verdicts: import("../client/types.mjs").Verdict[]) => void} weigh shows which ways were weighed
 * @property {import("./plot.mjs").Samples} samples
 * @property {() => void} schedule asks for a drawing
 * @property {() => void} soon the same, together with others that come fast
 * @property {() => void} flush draws what is due
 */

/** Shows what becomes of one feed that is followed: its state in words, its chunks and marks in a log, its numbers. */
export class FeedView {
  numbers = nothing();
  #around;
  #over = "";
  /** What the first words after a return are. */
  #again = "";
  #lost = false;
  /** The server reports that nothing has been published yet. */
  #empty = false;
  /** When the connection was asked for, by this computer's clock: what was published before is history. */
  #askedAt = 0;
  /** Nothing can come to the server. */
  #stalled = false;
  /** There has been a connection. */
  #opened = false;
  /** When the last chunk was published, and whether that was before the connection. */
  #last = { micros: 0, history: false };
  /** How many chunks the live feed had had when it was opened, where that is known. */
  #published = /** @type {number | undefined} */ (undefined);

  /** @param {Around} around */
  constructor(around) {
    this.#around = around;
  }

  /** @type {import("../client/follow.mjs").FollowEvents} */
  events = {
    onInfo: () => {},
    onConnecting: (attempt) => {
      this.#askedAt = Date.now();
      if (attempt === 0) this.#begin();
      else this.#around.retry.trying(attempt);
    },
    onOpen: (path, verdicts) => {
      this.#around.panel.showPath(path);
      this.#around.panel.hideError();
      this.#around.retry.hide();
      this.#around.weigh(verdicts);
      this.#over = path.transport === "webtransport" ? "WebTransport" : "fetch";
      this.#around.log.opened?.();
      const first = this.numbers.chunks === 0;
      this.#opened = true;
      if (this.numbers.down) {
        this.numbers.down = false;
        this.numbers.losses += 1;
        this.#around.schedule();
      }
      // Of what has not begun, nothing was lost.
      if (first) this.#lost = false;
      this.#stream(first
        ? `Connected with ${this.#over}. ${this.#waiting(this.#empty)}`
        : `Reconnected with ${this.#over}.`);
    },
    onBegin: (published) => {
      this.#published ??= published;
      if (this.numbers.chunks > 0) return;
      const waiting = published === 0 ? this.#waiting(true) : "Waiting for the next chunk.";
      this.#stream(`Connected with ${this.#over}. ${waiting}`);
    },
    onPath: (path) => this.#around.panel.showReport(path),
    onChunk: (chunk) => {
      const numbers = this.numbers;
      const { micros } = chunk;
      const history = micros / 1000 < this.#askedAt;
      // History comes at once: what was between its chunks, the times of publication tell.
      const past = chunk.gap !== null && (history || this.#last.history);
      if (chunk.gap !== null && !past) this.#around.samples.add(chunk.gap);
      const gap = past ? Math.max(0, micros - this.#last.micros) / 1000 : chunk.gap;
      this.#last = { micros, history };
      numbers.chunks += 1;
      numbers.bytes += chunk.bytes.length;
      numbers.firstAt ??= chunk.at;
      numbers.history = history;
      if (!history) {
        numbers.lagAt = Date.now();
        numbers.lag = numbers.lagAt - micros / 1000;
      }
      this.#around.log.add(past ? { ...chunk, gap } : chunk);
      this.#around.soon();
    },
    onResumed: (missed) => {
      this.#lost = false;
      const words = missed === undefined ? "Nothing is missing." : this.#count(missed);
      this.#again = ` Resumed: ${words.charAt(0).toLowerCase()}${words.slice(1)}`;
      this.#around.log.mark(missed === undefined ? "back" : kind(missed), `Resumed with ${this.#over}. ${words}`);
      this.#stream(`Streaming with ${this.#over}.${this.#again}`);
      this.#around.schedule();
    },
    onMissed: (missed) => {
      this.#around.log.mark(kind(missed), this.#count(missed));
      this.#around.schedule();
    },
    onStalled: (stalled, cause) => {
      this.#stalled = stalled;
      const why = stalledSince(cause === undefined ? NO_CAUSE : `: ${cause}`);
      this.#around.log.mark(stalled ? "stalled" : "back", stalled ? why : "The feed has resumed.");
      this.#stream(stalled ? STALLED : `Streaming with ${this.#over}.`);
      this.#around.schedule();
    },
    onLost: (error, waitMs, attempt, verdicts) => {
      this.#stalled = false;
      const { chunks } = this.numbers;
      if (verdicts.length > 0) this.#around.weigh(verdicts);
      if (!this.#lost) {
        this.#lost = true;
        this.numbers.down = this.#opened;
        this.#around.log.mark("lost", error.message);
        this.#around.schedule();
      }
      this.#around.log.lost?.();
      const advised = attempt > 2 || chunks === 0 || error.busy;
      if (error.needsToken || error.otherToken) {
        this.#around.panel.setState("reconnecting", "The server asks for another token.");
        this.#around.retry.hide();
        if (advised) this.#around.panel.showError(error);
        return;
      }
      this.#around.panel.setState("reconnecting", chunks > 0 ? "The connection was lost. Reconnecting…" : "There is no connection yet. Trying again…");
      this.#around.retry.show(error, waitMs, attempt);
      // What goes away by itself in a moment needs no advice.
      if (advised) this.#around.panel.showRetried(error);
    },
    onEnded: (totals) => {
      this.#around.log.mark("end", "The feed has ended.");
      this.#around.log.ended?.();
      this.#finish();
      this.#around.panel.setState("done", this.#ended(totals));
    },
    onStopped: (totals) => {
      this.#finish();
      this.#around.panel.setState("stopped", totals.chunks > 0 ? `Stopped after ${sum(totals)}.` : "Stopped before the first chunk.");
    },
    onError: (error, verdicts) => {
      if (verdicts.length > 0) this.#around.weigh(verdicts);
      if (this.numbers.chunks > 0) this.#around.log.mark(error.permanent ? "end" : "lost", error.message);
      this.#finish();
      this.#around.panel.showError(error);
      this.#around.panel.setState("error", error.message);
    },
  };

  /**
   * @param {Totals} totals
   * @returns {string} how the feed ended, for one who may have come too late
   */
  #ended(totals) {
    if (totals.chunks > 0) return `The feed has ended: ${sum(totals)}.`;
    if (this.numbers.missing > 0) return "The feed has ended, and the server no longer has any of it.";
    if (this.#published === undefined || this.#published === 0) return "The feed has ended, and it was empty.";
    return `The feed has ended: it had ${plural(this.#published, "chunk")} before you connected. To read what is kept, choose “oldest kept”, then Start.`;
  }

  /** @param {boolean} empty the server reports that nothing has been published yet */
  set empty(empty) {
    this.#empty = empty;
    if (empty && this.#around.panel.state === "streaming" && this.numbers.chunks === 0 && this.#published === undefined) this.events.onBegin(0);
  }

  /** @param {string} text */
  #stream(text) {
    const brief = this.#stalled ? "Stalled" : this.numbers.chunks === 0 ? "Waiting" : "Live";
    this.#around.panel.setState("streaming", text, brief);
  }

  /** @param {boolean} empty */
  #waiting(empty) {
    return empty ? "The feed is empty so far: waiting for its first chunk." : "Waiting for the first chunk.";
  }

  /** @param {number | undefined} chunks how far behind the feed the page is, if that is known */
  behind(chunks) {
    if (this.numbers.behind === chunks) return;
    this.numbers.behind = chunks;
    this.#around.schedule();
  }

  #begin() {
    this.#around.flush();
    this.numbers = nothing();
    this.#again = "";
    this.#lost = false;
    this.#stalled = false;
    this.#opened = false;
    this.#published = undefined;
    this.#around.log.clear();
    this.#around.samples.clear();
    this.#around.panel.clear();
    this.#around.retry.hide();
    this.#around.weigh([]);
    this.#around.schedule();
    this.#around.flush();
    this.#around.panel.setState("connecting", "Connecting…", "Connecting…");
  }

  #finish() {
    this.#around.retry.hide();
    // Nothing tries to connect any more.
    this.numbers.down = false;
    this.numbers.behind = undefined;
    this.#around.log.finish();
    this.#around.schedule();
    this.#around.flush();
  }

  /**
   * Counts what is missing.
   * @param {Missed} missed
   * @returns {string} in a sentence
   */
  #count({ missing, restarted, told }) {
    this.numbers.missing += missing;
    const are = `${plural(missing, "chunk")} ${missing === 1 ? "is" : "are"} missing`;
    if (restarted) return missing === 0 ? "The feed was restarted." : `The feed was restarted, and ${are}.`;
    return told ? `${are}: the server no longer has them.` : `${are}, and the server did not say why.`;
  }

  /** Words that are due while chunks come. */
  draw() {
    if (this.numbers.chunks > 0 && this.#around.panel.state === "streaming" && !this.#lost && !this.#stalled) {
      this.#stream(`Streaming with ${this.#over}.${this.#again}`);
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

/** @param {Totals} totals */
function sum({ chunks, bytes, duration, firstAt }) {
  const first = firstAt === null ? "" : `, the first after ${ms(firstAt)}`;
  return `${plural(chunks, "chunk")}, ${size(bytes)} in ${ms(duration)}${first}`;
}
