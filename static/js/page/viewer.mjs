// @ts-check
import { asClientError, feedFailed, noFeeds, notOffered } from "../client/errors.mjs";
import { failureOf } from "../client/feeds.mjs";
import { openFetch } from "../client/fetch-source.mjs";
import { chosenFeed, feedUrl, loadInfo, sessionUrl } from "../client/info.mjs";
import { shown, whyNoSession } from "../client/open-feed.mjs";
import { readStream } from "../client/reader.mjs";
import { UNKNOWN } from "../client/timing.mjs";
import { openWebTransport } from "../client/webtransport-source.mjs";

/** @typedef {import("../client/types.mjs").Env} Env */
/** @typedef {import("../client/types.mjs").Source} Source */
/** @typedef {import("../client/types.mjs").Transport} Transport */

/** @typedef {import("../client/types.mjs").Path} Path */

/**
 * What a viewer tells whoever shows it.
 * @typedef {object} ViewerEvents
 * @property {(info: import("../client/info.mjs").Info) => void} onInfo
 * @property {() => void} onConnecting
 * @property {(path: Path) => void} onOpen
 * @property {(chunk: import("../client/types.mjs").ChunkRead) => void} onChunk
 * @property {(path: Path) => void} onPath the browser's report, when it comes
 * @property {(summary: import("../client/types.mjs").Summary) => void} onDone
 * @property {(summary: import("../client/types.mjs").Summary | undefined) => void} onStopped
 * @property {(error: import("../client/errors.mjs").ClientError) => void} onError
 */

/** How long the end of a whole stream waits for the browser's report on it. */
const REPORT_WAIT_MS = 1000;
/** The same after a stop or a failure, for which a browser may have no report. */
const REPORT_WAIT_CUT_MS = 100;

/**
 * One reader of a feed as it is, bytes and nothing else: opens it, reads it once, tells what happens.
 * At most one reading at a time.
 */
export class Viewer {
  #env;
  #events;
  /** @type {AbortController | undefined} */
  #running;

  /**
   * @param {Env} env
   * @param {ViewerEvents} events
   */
  constructor(env, events) {
    this.#env = env;
    this.#events = events;
  }

  get running() {
    return this.#running !== undefined;
  }

  /** Ends the reading, if there is one; `onStopped` follows. */
  stop() {
    this.#running?.abort();
  }

  /**
   * Reads a feed once, from opening to end. Resolves after the last event; never rejects.
   * @param {Transport} transport
   * @param {string} [wanted] the feed's name; "" for the default feed or, without one, the first
   */
  async start(transport, wanted = "default") {
    if (this.#running !== undefined) return;
    const { signal } = (this.#running = new AbortController());
    const events = this.#events;
    /** @type {Source | undefined} */
    let source;
    /** @type {() => void} */
    let last;
    let feed = wanted;
    try {
      events.onConnecting();
      const { info, protocol } = await loadInfo(this.#env, signal);
      events.onInfo(info);
      feed = chosenFeed(info, wanted);
      if (feed === "") throw noFeeds();
      source = await this.#open(transport, feed, info, signal);
      last = await this.#read(source, feed, protocol, signal);
    } catch (cause) {
      const error = signal.aborted ? asClientError(cause) : await this.#explained(asClientError(cause), feed);
      last = signal.aborted
        ? () => events.onStopped(undefined)
        : () => events.onError(error);
    } finally {
      source?.close();
      this.#running = undefined;
    }
    // Told last, when a new start is possible again.
    last();
  }

  /**
   * @param {Transport} transport
   * @param {string} feed
   * @param {import("../client/info.mjs").Info} info
   * @param {AbortSignal} signal
   * @returns {Promise<Source>}
   */
  async #open(transport, feed, info, signal) {
    const env = this.#env;
    if (transport === "fetch") return openFetch({ url: feedUrl(info, feed, env.href), signal, env });
    const { webtransport } = info;
    if (webtransport === null) throw notOffered();
    const url = await shown(env, info, sessionUrl({ ...info, webtransport }, feed, env.href), signal);
    return openWebTransport({ url, certificateHashes: webtransport.certificateHashes, signal, env })
      .catch((cause) => whyNoSession(cause, feedUrl(info, feed, env.href), signal, env));
  }

  /**
   * @param {Source} source
   * @param {string} feed
   * @param {string} probed
   * @param {AbortSignal} signal
   * @returns {Promise<() => void>} the last event
   */
  async #read(source, feed, probed, signal) {
    const events = this.#events;
    const { transport, startedAt } = source;
    const final = transport === "webtransport";
    events.onOpen({ transport, protocol: final ? await source.protocol() : probed, final });
    const summary = await readStream(source.stream, {
      startedAt, signal, now: () => this.#env.performance.now(), onChunk: events.onChunk,
    });
    const whole = summary.outcome === "ended";
    if (!final) {
      const protocol = await source.protocol(whole ? REPORT_WAIT_MS : REPORT_WAIT_CUT_MS);
      // A reading that was cut may never be reported on: then what /info said stays, as not final.
      if (whole || protocol !== UNKNOWN) events.onPath({ transport, protocol, final: true });
    }
    if (whole) return () => events.onDone(summary);
    if (summary.outcome === "stopped") return () => events.onStopped(summary);
    const error = await this.#explained(await source.failure(summary.cause, summary.bytes), feed);
    return () => events.onError(error);
  }

  /**
   * The feed's own failure in place of what the transport made of it: Firefox takes a response that breaks off
   * before its first byte for a server that does not answer.
   * @param {import("../client/errors.mjs").ClientError} error
   * @param {string} feed
   */
  async #explained(error, feed) {
    // What the server said itself, or what this page cannot do, is explained already.
    if (error.answered || error.permanent) return error;
    const reason = await failureOf(this.#env, feed);
    return reason === undefined ? error : feedFailed(reason);
  }
}
