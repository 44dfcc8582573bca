// @ts-check
import { count, plural, size } from "../client/format.mjs";
import { byId } from "./panel.mjs";
import { MAX_FEEDS, SeveralMenu } from "./several-menu.mjs";

/** @typedef {import("../client/feeds.mjs").FeedStatus} FeedStatus */

/** The list of feeds, of which one or several are chosen, and what the server says of the one. */
export class FeedPicker {
  #row = byId("feed-row", HTMLElement);
  #select = byId("feed", HTMLSelectElement);
  /** In place of the list, where there is only one. */
  #alone = byId("feed-alone", HTMLElement);
  #name = byId("feed-name", HTMLElement);
  #note = byId("feed-note", HTMLElement);
  /** The same among the details, which the log alone has. */
  #about = byId("feed-about", HTMLElement);
  #several;
  /** @type {string[]} */
  #wanted;

  /**
   * @param {string[]} wanted the feeds that the address names
   * @param {() => void} changed the visitor chose others
   * @param {() => void} arranged several are to be shown in another way
   */
  constructor(wanted, changed, arranged) {
    this.#wanted = [...new Set(wanted.filter((name) => name !== ""))].slice(0, MAX_FEEDS);
    const choose = (/** @type {string[]} */ feeds) => {
      this.#wanted = feeds;
      this.#say("");
      this.#fill();
      changed();
    };
    this.#select.addEventListener("change", () => choose([this.#select.value]));
    this.#several = new SeveralMenu(choose, arranged);
  }

  /** The feed that is chosen, or the first of several. */
  get feed() {
    return this.#wanted[0] ?? "default";
  }

  get feeds() {
    return this.#wanted.length === 0 ? ["default"] : this.#wanted;
  }

  /** Whether several are shown side by side. */
  get columns() {
    return this.#several.columns;
  }

  /** Those that there are. @type {string[]} */
  #names = [];

  /** @param {{ name: string, kind: string }[]} feeds as `/info` has them */
  list(feeds) {
    // A server without the usual one still has something to show.
    if (this.#wanted.length === 0 && feeds[0] !== undefined && !feeds.some(({ name }) => name === "default")) this.#wanted = [feeds[0].name];
    // Those that the address names stay to be seen, though they are not there.
    this.#names = [...new Set([...feeds.map(({ name }) => name), ...this.feeds])];
    this.#fill();
    const alone = this.#names.length < 2;
    this.#row.hidden = alone;
    this.#alone.hidden = !alone || this.feed === "default";
    this.#name.textContent = this.#name.title = this.feed;
  }

  #fill() {
    const several = this.feeds.length > 1;
    const options = this.#names.map((name) => ({ text: name, value: name }));
    if (several) options.unshift({ text: plural(this.feeds.length, "feed"), value: "" });
    const shown = [...this.#select.options].map(({ value }) => value);
    if (shown.join("\n") !== options.map(({ value }) => value).join("\n")) {
      this.#select.replaceChildren(...options.map(({ text, value }) => new Option(text, value)));
    }
    const [first] = this.#select.options;
    if (several && first !== undefined) first.text = options[0]?.text ?? "";
    this.#select.value = several ? "" : this.feed;
    this.#several.list(this.#names, this.feeds);
  }

  /** @param {FeedStatus[]} feeds as `/feeds` has them */
  status(feeds) {
    for (const option of this.#select.options) {
      if (option.value === "") continue;
      const feed = feeds.find(({ name }) => name === option.value);
      const text = feed === undefined || feed.state === "open" ? option.value : `${option.value} (${feed.state})`;
      if (option.textContent !== text) option.textContent = text;
    }
    const feed = this.feeds.length > 1 ? undefined : feeds.find(({ name }) => name === this.feed);
    const text = feed === undefined ? "" : describe(feed);
    this.#say(text);
  }

  /** @param {string} text what the server says of the feed */
  #say(text) {
    for (const element of [this.#note, this.#about]) {
      if (element.textContent !== text) element.textContent = text;
    }
    this.#select.title = text;
  }
}

/**
 * What the server says of a feed, in one line.
 * @param {FeedStatus} feed
 */
export function describe({ name, kind, state, error, viewers, everywhere, servers, chunks, keptBytes, rate }) {
  const parts = [kind === "" ? name : `${name}: ${kind}`];
  const empty = kind === "live" && chunks === 0 ? (state === "open" ? ", empty so far" : ", empty") : "";
  parts.push(error === undefined ? state + empty : `${state} (${error})${empty}`);
  if (everywhere !== undefined && servers !== undefined && servers > 1) {
    parts.push(`${plural(everywhere, "viewer")} on ${plural(servers, "server")}`);
  } else if (viewers !== undefined) parts.push(plural(everywhere ?? viewers, "viewer"));
  if (chunks !== undefined && chunks > 0) parts.push(plural(chunks, "chunk"));
  if (rate !== undefined && rate.chunks > 0) {
    const each = rate.chunks < 10 ? rate.chunks.toFixed(1) : count(Math.round(rate.chunks));
    parts.push(`${each} chunks/s`, `${size(Math.round(rate.bytes))}/s`);
  }
  if (keptBytes !== undefined && keptBytes > 0) parts.push(`${size(keptBytes)} kept on the server`);
  return parts.join(" · ");
}
