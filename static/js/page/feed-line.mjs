// @ts-check
import { count } from "../client/format.mjs";
import { STALLED } from "./feed-view.mjs";
import { badge } from "./log-row.mjs";

/** @typedef {import("../client/types.mjs").State} State */
/** @typedef {import("../client/types.mjs").Path} Path */
/** @typedef {import("../client/errors.mjs").ClientError} ClientError */

/** @type {Record<State, string>} */
const WORDS = {
  idle: "not started", connecting: "connecting", streaming: "live", reconnecting: "reconnecting", done: "ended", stopped: "stopped", error: "failed",
};

/**
 * Who is told by the lines of several feeds.
 * @typedef {object} Above
 * @property {() => void} changed
 * @property {(line: FeedLine, error: ClientError, retried: boolean) => void} failed there is something to do
 * @property {(line: FeedLine) => void} mended
 */

/** One of several feeds in a few words: its name, and what becomes of it. */
export class FeedLine {
  /** Among others in a list, or alone. */
  element = document.createElement("div");
  name;
  /** @type {State} */
  state = "idle";
  /** @type {Path | undefined} */
  path;
  #above;
  #words = document.createElement("span");
  #text = "";
  #chunks = 0;
  #missing = 0;

  /**
   * @param {import("./store.mjs").Named} feed
   * @param {Above} above
   */
  constructor(feed, above) {
    this.name = feed.name;
    this.#above = above;
    this.element.append(badge(feed), " ", this.#words);
    this.#show();
  }

  /** The state in a word or two. */
  get word() {
    if (this.state !== "streaming") return WORDS[this.state];
    if (this.#text === STALLED) return "stalled";
    return this.#chunks === 0 ? "waiting" : "live";
  }

  /**
   * @param {State} state
   * @param {string} text
   */
  setState(state, text) {
    this.state = state;
    this.#text = text;
    this.#show();
    this.#above.changed();
  }

  /** @param {import("./figures.mjs").Numbers} numbers */
  draw({ chunks, missing }) {
    const began = this.#chunks === 0 && chunks > 0;
    if (!began && this.#missing === missing) return;
    this.#chunks = chunks;
    this.#missing = missing;
    this.#show();
    if (began) this.#above.changed();
  }

  #show() {
    this.element.dataset.state = this.state;
    this.element.title = this.#text;
    const why = this.state === "error" ? `: ${this.#text}` : "";
    const missing = this.#missing === 0 ? "" : `, ${count(this.#missing)} missing`;
    const words = `${this.word === "waiting" ? "waiting for the first chunk" : this.word}${why}${missing}`;
    if (this.#words.textContent !== words) this.#words.textContent = words;
  }

  clear() {
    this.path = undefined;
    this.#chunks = 0;
    this.#missing = 0;
    this.hideError();
  }

  /** @param {Path} path */
  showPath(path) {
    this.path = path;
    this.#above.changed();
  }

  /** @param {Path} path */
  showReport(path) {
    this.showPath(path);
  }

  /** @param {ClientError} error */
  showError(error) {
    this.#above.failed(this, error, false);
  }

  /** @param {ClientError} error */
  showRetried(error) {
    this.#above.failed(this, error, true);
  }

  hideError() {
    this.#above.mended(this);
  }
}
