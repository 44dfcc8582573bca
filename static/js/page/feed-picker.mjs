// @ts-check
import { count, plural, size } from "../client/format.mjs";
import { byId } from "./panel.mjs";

/** @typedef {import("../client/feeds.mjs").FeedStatus} FeedStatus */

/** The list of feeds, and what the server says of the one that is chosen. */
export class FeedPicker {
  #row = byId("feed-row", HTMLElement);
  #select = byId("feed", HTMLSelectElement);
  #note = byId("feed-note", HTMLElement);
  #wanted;

  /**
   * @param {string} wanted the feed that the address names, or ""
   * @param {() => void} changed the visitor chose another one
   */
  constructor(wanted, changed) {
    this.#wanted = wanted;
    this.#select.addEventListener("change", () => {
      this.#wanted = this.#select.value;
      this.#note.textContent = "";
      changed();
    });
  }

  get feed() {
    return this.#wanted || "default";
  }

  /** @param {{ name: string, kind: string }[]} feeds as `/info` has them */
  list(feeds) {
    // A server without the usual one still has something to show.
    if (this.#wanted === "" && !feeds.some(({ name }) => name === "default")) this.#wanted = feeds[0]?.name ?? "";
    const names = feeds.map(({ name }) => name);
    // The one that the address names stays to be seen, though it is not there.
    if (!names.includes(this.feed)) names.push(this.feed);
    const [shown] = [[...this.#select.options].map(({ value }) => value)];
    if (shown.join("\n") !== names.join("\n")) {
      this.#select.replaceChildren(...names.map((name) => new Option(name, name)));
    }
    this.#select.value = this.feed;
    this.#row.hidden = names.length < 2;
  }

  /** @param {FeedStatus[]} feeds as `/feeds` has them */
  status(feeds) {
    for (const option of this.#select.options) {
      const feed = feeds.find(({ name }) => name === option.value);
      const text = feed === undefined || feed.state === "open" ? option.value : `${option.value} (${feed.state})`;
      if (option.textContent !== text) option.textContent = text;
    }
    const feed = feeds.find(({ name }) => name === this.feed);
    const text = feed === undefined ? "" : describe(feed);
    if (this.#note.textContent !== text) this.#note.textContent = text;
  }
}

/**
 * What the server says of a feed, in one line.
 * @param {FeedStatus} feed
 */
export function describe({ name, kind, state, error, viewers, chunks, keptBytes, rate }) {
  const parts = [kind === "" ? name : `${name}: ${kind}`];
  const empty = kind === "live" && chunks === 0 ? (state === "open" ? ", empty so far" : ", empty") : "";
  parts.push(error === undefined ? state + empty : `${state} (${error})${empty}`);
  if (viewers !== undefined) parts.push(plural(viewers, "viewer"));
  if (chunks !== undefined && chunks > 0) parts.push(plural(chunks, "chunk"));
  if (rate !== undefined && rate.chunks > 0) {
    const each = rate.chunks < 10 ? rate.chunks.toFixed(1) : count(Math.round(rate.chunks));
    parts.push(`${each} chunks/s`, `${size(Math.round(rate.bytes))}/s`);
  }
  if (keptBytes !== undefined && keptBytes > 0) parts.push(`${size(keptBytes)} kept on the server`);
  return parts.join(" · ");
}
