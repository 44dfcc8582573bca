// @ts-check
import { isEmptySoFar, isTroubled } from "../client/feeds.mjs";
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
  /** The usual feed was in trouble, and another one was chosen in its place. */
  #passed = false;

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

  /** Those that an address must name: none if it leads to the one anyway. */
  get named() {
    return this.feeds.length === 1 && this.feed === "default" && !this.#passed ? [] : this.feeds;
  }

  /** Whether the one that is chosen depends on which feeds work. */
  get isOpen() {
    return this.#wanted.length === 0;
  }

  /** Whether several are shown side by side. */
  get columns() {
    return this.#several.columns;
  }

  /** Those that there are. @type {string[]} */
  #names = [];
  /** What `/feeds` said last. @type {FeedStatus[]} */
  #told = [];

  /**
   * @param {{ name: string, kind: string }[]} feeds as `/info` has them
   * @param {FeedStatus[]} [told] as `/feeds` has them, if one of them is yet to be chosen
   */
  list(feeds, told = []) {
    if (this.#wanted.length === 0) this.#choose(feeds.map(({ name }) => name), told);
    // Those that the address names stay to be seen, though they are not there.
    this.#names = [...new Set([...feeds.map(({ name }) => name), ...this.feeds])];
    this.#fill();
    const alone = this.#names.length < 2;
    this.#row.hidden = alone;
    this.#alone.hidden = !alone || this.feed === "default";
    this.#name.textContent = this.#name.title = this.feed;
    if (told.length > 0) this.status(told);
  }

  /**
   * Chooses for an address that names none.
   * @param {string[]} names
   * @param {FeedStatus[]} told
   */
  #choose(names, told) {
    // A server without the usual one still has something to show.
    const usual = names.includes("default") ? "default" : names[0];
    const of = (/** @type {string | undefined} */ wanted) => told.find(({ name }) => name === wanted);
    const first = of(usual);
    const works = (/** @type {FeedStatus | undefined} */ feed) => feed !== undefined && feed.state !== "failed" && !isTroubled(feed);
    const other = first !== undefined && isTroubled(first) ? names.find((name) => works(of(name))) : undefined;
    this.#passed = other !== undefined;
    const chosen = other ?? usual;
    if (chosen !== undefined && chosen !== "default") this.#wanted = [chosen];
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
    this.#mark();
    this.#several.list(this.#names, this.feeds);
  }

  /** Says in the list how feeds are. Of the one that is chosen, the page says it next to the list, which is narrow. */
  #mark() {
    for (const option of this.#select.options) {
      if (option.value === "") continue;
      const feed = this.#told.find(({ name }) => name === option.value);
      const plain = feed === undefined || condition(feed) === "open" || option.value === this.#select.value;
      const text = plain ? option.value : `${option.value} (${condition(feed)})`;
      if (option.textContent !== text) option.textContent = text;
    }
  }

  /** @param {FeedStatus[]} feeds as `/feeds` has them */
  status(feeds) {
    this.#told = feeds;
    this.#mark();
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
 * How a feed is, in a word or two.
 * @param {FeedStatus} feed
 */
function condition(feed) {
  if (!isTroubled(feed)) return feed.state;
  const trouble = feed.stalled ? "stalled" : "not ready";
  return feed.state === "open" ? trouble : `${feed.state}, ${trouble}`;
}

/**
 * What the server says of a feed, in one line.
 * @param {FeedStatus} feed
 */
export function describe(feed) {
  const { name, kind, state, error, trouble, viewers, everywhere, servers, chunks, keptBytes, storedBytes, rate } = feed;
  const parts = [kind === "" ? name : `${name}: ${kind}`];
  const empty = isEmptySoFar(feed) ? ", empty so far" : kind === "live" && state !== "open" && chunks === 0 ? ", empty" : "";
  const why = [error, trouble].filter((reason) => reason !== undefined).join("; ");
  parts.push(why === "" ? condition(feed) + empty : `${condition(feed)} (${why})${empty}`);
  if (everywhere !== undefined && servers !== undefined && servers > 1) {
    parts.push(`${plural(everywhere, "viewer")} on ${plural(servers, "server")}`);
  } else if (viewers !== undefined) parts.push(plural(everywhere ?? viewers, "viewer"));
  if (chunks !== undefined && chunks > 0) parts.push(plural(chunks, "chunk"));
  if (rate !== undefined && rate.chunks > 0) {
    const each = rate.chunks < 10 ? rate.chunks.toFixed(1) : count(Math.round(rate.chunks));
    parts.push(`${each} chunks/s`, `${size(Math.round(rate.bytes))}/s`);
  }
  const [kept, where] = storedBytes === undefined ? [keptBytes, "in the server's memory"] : [storedBytes, "on the server's disk"];
  if (kept !== undefined && kept > 0) parts.push(`${size(kept)} ${where}`);
  return parts.join(" · ");
}
