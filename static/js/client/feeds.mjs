// @ts-check
import { array, object, string } from "./info.mjs";

/** @typedef {import("./types.mjs").Env} Env */
/**
 * What `GET /feeds` says of a feed. Members that a server leaves out are undefined.
 * @typedef {object} FeedStatus
 * @property {string} name
 * @property {string} kind
 * @property {string} state open, ended or failed
 * @property {string | undefined} error
 * @property {number | undefined} viewers at this server
 * @property {number | undefined} [everywhere] viewers at all servers that share it, if it knows of others
 * @property {number | undefined} [servers] how many of those have viewers
 * @property {number | undefined} chunks
 * @property {number | undefined} keptBytes in the server's memory
 * @property {number | undefined} storedBytes on its disk, if the feed is stored there
 * @property {string | undefined} epoch of its numbers; undefined: each viewer has a run of its own, or it is not known yet
 * @property {{ chunks: number, bytes: number } | undefined} rate in a second
 * @property {boolean} writable clients publish it
 * @property {boolean} input its command takes what its viewer sends
 * @property {boolean} stalled the server can receive or store no new chunks of it
 * @property {string | undefined} trouble why it cannot be served as it should be, if that is known
 */

/** How often the server is asked while the page is seen. */
export const POLL_MS = 2000;
/** How long at most after it did not answer. */
const POLL_LONGEST_MS = 30_000;
/** How long a message about a failure waits for its reason, or the page to learn which feeds work. */
const ONCE_MS = 5000;

/**
 * @param {unknown} value
 * @returns {FeedStatus[]}
 */
export function parseFeeds(value) {
  return array(object(value, "it").feeds, "feeds").map((item, i) => {
    const feed = object(item, `feeds[${i}]`);
    const text = (/** @type {unknown} */ member) => (typeof member === "string" ? member : undefined);
    const number = (/** @type {unknown} */ member) => (typeof member === "number" ? member : undefined);
    const rate = typeof feed.rate === "object" && feed.rate !== null ? object(feed.rate, "rate") : {};
    const [chunks, bytes] = [number(rate.chunks), number(rate.bytes)];
    return {
      name: string(feed.name, `feeds[${i}].name`),
      kind: text(feed.kind) ?? "",
      state: text(feed.state) ?? "open",
      error: text(feed.error),
      viewers: number(feed.viewers),
      everywhere: number(feed.viewers_everywhere),
      servers: number(feed.servers),
      chunks: number(feed.chunks),
      keptBytes: number(feed.kept_bytes),
      storedBytes: number(feed.stored_bytes),
      epoch: text(feed.epoch),
      writable: feed.writable === true,
      input: feed.input === true,
      stalled: feed.stalled === true,
      trouble: text(feed.trouble),
      rate: chunks === undefined || bytes === undefined ? undefined : { chunks, bytes },
    };
  });
}

/**
 * Whether a feed cannot be served as it should be.
 * @param {FeedStatus} feed
 */
export function isTroubled({ stalled, trouble }) {
  return stalled || trouble !== undefined;
}

/**
 * Whether it is known that nothing has been published to a feed yet, and that something may be.
 * @param {FeedStatus} feed
 */
export function isEmptySoFar(feed) {
  return feed.kind === "live" && feed.state === "open" && feed.chunks === 0 && !isTroubled(feed);
}

/**
 * What `/feeds` says now.
 * @param {Env} env
 * @returns {Promise<FeedStatus[]>} none if that cannot be learned
 */
export async function feedsNow(env) {
  try {
    const url = new URL("feeds", env.href).href;
    const response = await env.fetch(url, { cache: "no-store", signal: AbortSignal.timeout(ONCE_MS) });
    return parseFeeds(await response.json());
  } catch {
    return [];
  }
}

/**
 * Why a feed failed, as the server has it: a transport that breaks off cannot give the reason, or only some of it.
 * @param {Env} env
 * @param {string} name
 * @returns {Promise<string | undefined>} undefined: it did not fail, or that cannot be learned
 */
export async function failureOf(env, name) {
  const feed = (await feedsNow(env)).find((feed) => feed.name === name);
  return feed?.state === "failed" ? (feed.error ?? "") : undefined;
}

/** Asks for the feeds again and again, while the page is seen. */
export class FeedsPoll {
  #env;
  #onFeeds;
  #seen = false;
  #timer = 0;
  #failed = 0;
  #asking = false;

  /**
   * @param {Env} env
   * @param {(feeds: FeedStatus[]) => void} onFeeds
   */
  constructor(env, onFeeds) {
    this.#env = env;
    this.#onFeeds = onFeeds;
  }

  /** @param {boolean} seen whether anybody sees the page */
  see(seen) {
    if (seen === this.#seen) return;
    this.#seen = seen;
    this.#env.clearTimer(this.#timer);
    if (seen) this.#ask();
  }

  async #ask() {
    // One at a time: where nothing comes back, questions would pile up.
    if (this.#asking) return;
    this.#asking = true;
    const env = this.#env;
    try {
      const url = new URL("feeds", env.href).href;
      const response = await env.fetch(url, { cache: "no-store", signal: AbortSignal.timeout(POLL_LONGEST_MS) });
      if (!response.ok) throw new Error(`status ${response.status}`);
      const feeds = parseFeeds(await response.json());
      this.#failed = 0;
      this.#onFeeds(feeds);
    } catch {
      // The feed itself tells what is wrong; this only adds to it.
      this.#failed += 1;
    } finally {
      this.#asking = false;
    }
    const wait = Math.min(POLL_MS * 2 ** this.#failed, POLL_LONGEST_MS);
    if (this.#seen) this.#timer = env.setTimer(() => this.#ask(), wait);
  }
}
