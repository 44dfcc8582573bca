// @ts-check
import { pathName, plural } from "../client/format.mjs";
import { FeedLine } from "./feed-line.mjs";

/** @typedef {import("../client/errors.mjs").ClientError} ClientError */
/** @typedef {import("../client/types.mjs").State} State */

/** @type {State[]} */
const RUNNING = ["connecting", "streaming", "reconnecting"];

/** The states of several feeds, each in a line, and together in the page's panel. */
export class FeedLines {
  /** @type {FeedLine[]} */
  lines;
  #panel;
  #retry;
  /** Whose error is shown. @type {FeedLine | undefined} */
  #failed;
  /** Which wait to reconnect, what shows that of each, and whose is shown: the last. @type {Map<FeedLine, () => void>} */
  #waiting = new Map();

  /**
   * @param {readonly import("./store.mjs").Named[]} feeds
   * @param {import("./panel.mjs").Panel} panel
   * @param {import("./retry-note.mjs").RetryNote} retry
   */
  constructor(feeds, panel, retry) {
    this.#panel = panel;
    this.#retry = retry;
    const above = {
      changed: () => this.#tell(),
      failed: (/** @type {FeedLine} */ line, /** @type {ClientError} */ error, /** @type {boolean} */ retried) => {
        // A feed that failed for good says so in its line, and is not in the way of the others.
        if (error.permanent && this.lines.some((other) => other !== line && RUNNING.includes(other.state))) return;
        this.#failed = line;
        if (retried) panel.showRetried(named(line, error));
        else panel.showError(named(line, error));
      },
      mended: (/** @type {FeedLine} */ line) => {
        if (this.#failed === line) panel.hideError();
      },
    };
    this.lines = feeds.map((feed) => new FeedLine(feed, above));
    panel.clear();
    retry.hide();
  }

  /**
   * The note on what is tried next, shared by all.
   * @param {FeedLine} line
   * @returns {Pick<import("./retry-note.mjs").RetryNote, "show" | "trying" | "hide">}
   */
  retryOf(line) {
    return {
      show: (error, waitMs, attempt) => {
        const until = performance.now() + waitMs;
        this.#wait(line, () => this.#retry.show(named(line, error), Math.max(0, until - performance.now()), attempt));
      },
      trying: (attempt) => this.#wait(line, () => this.#retry.trying(attempt, line.name)),
      hide: () => {
        this.#waiting.delete(line);
        const next = [...this.#waiting.values()].at(-1);
        if (next === undefined) this.#retry.hide();
        else next();
      },
    };
  }

  /**
   * @param {FeedLine} line
   * @param {() => void} show
   */
  #wait(line, show) {
    // To the end, where what is shown stands.
    this.#waiting.delete(line);
    this.#waiting.set(line, show);
    show();
  }

  /** The states in one sentence: those that are live as a number, others by their names. */
  #tell() {
    const { lines } = this;
    const live = lines.filter(({ word }) => word === "live").length;
    const others = lines.filter(({ word }) => word !== "live").map(({ name, word }) => `${name} ${word}`);
    // All in the same state are not listed.
    const same = live === 0 && new Set(lines.map(({ word }) => word)).size === 1 ? lines[0]?.word ?? "" : "";
    const words = same !== "" ? [same] : [...(live > 0 ? [`${live} live`] : []), ...others];
    // What is wrong with one of them is no less to be seen where there is little room.
    const brief = live === lines.length ? "Live" : same === "waiting" ? "Waiting" : "";
    this.#panel.setState(stateOf(lines.map(({ state }) => state)), `${plural(lines.length, "feed")}: ${words.join(", ")}.`, brief);
    const paths = lines.flatMap(({ path }) => (path === undefined ? [] : [path]));
    const [path] = paths;
    if (path === undefined) return;
    this.#panel.showPath(path);
    const names = new Set(paths.map(({ transport, protocol }) => pathName(transport, protocol)));
    if (names.size > 1) this.#panel.showPaths([...names]);
  }
}

/**
 * One state for several: whatever still runs, and of that what is worst.
 * @param {State[]} states
 * @returns {State}
 */
export function stateOf(states) {
  /** @type {State[]} */
  const order = ["reconnecting", "connecting", "streaming", "error", "idle", "stopped", "done"];
  return order.find((state) => states.includes(state)) ?? "idle";
}

/**
 * An error with the name of its feed.
 * @param {FeedLine} line
 * @param {ClientError} error
 * @returns {ClientError}
 */
function named({ name }, error) {
  return Object.create(error, { message: { value: `${name}: ${error.message}` } });
}
