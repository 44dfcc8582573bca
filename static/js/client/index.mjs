// @ts-check
/**
 * Follows the feeds of an h3cast server from a page, a worker, or Node: over the best transport that there is, over as
 * many connections as it takes, without loss or duplicates. docs/javascript.md is the guide.
 *
 * @module h3cast
 */
import { feedAddress } from "./address.mjs";
import { environment } from "./environment.mjs";
import { ClientError, asClientError, noCommand } from "./errors.mjs";
import { Follower } from "./follow.mjs";
import { loadInfo } from "./info.mjs";
import { openFeed as open } from "./open-feed.mjs";
import { Rests } from "./rests.mjs";
import { Token } from "./token.mjs";

export { ClientError };
export * as frames from "./frames.mjs";

/** @typedef {import("./types.mjs").Transport} Transport */
/** @typedef {import("./types.mjs").TransportChoice} TransportChoice */
/** @typedef {import("./types.mjs").Verdict} Verdict */

/**
 * How a feed is reached.
 * @typedef {object} OpenOptions
 * @property {TransportChoice} [transport] `auto` (the default): HTTP/3 by fetch if it is in use already, else
 *   WebTransport, else fetch over HTTP/2 or 1.1
 * @property {string} [from] `now` (the default: from the next chunk on), `start` (the oldest that the server keeps), `-N`
 *   (the last N chunks), or a cursor, to continue after that chunk
 * @property {AbortSignal} [signal] ends it
 * @property {string | ((why: string, signal: AbortSignal) => string | Promise<string>)} [token] what to show to a server
 *   that asks for it; a function is called each time that the server asks, and returns "" to give up
 * @property {typeof globalThis.fetch} [fetch] instead of the global one
 * @property {typeof globalThis.WebTransport} [WebTransport] instead of the global one, if there is any
 *
 * @typedef {object} FollowCallbacks
 * @property {(chunk: Chunk) => void} [onChunk] called once for each chunk, in order
 * @property {(gap: Gap) => void} [onGap] chunks that will not come, in their place between the others
 * @property {(status: Status) => void} [onState] called at each change
 *
 * @typedef {OpenOptions & FollowCallbacks} FollowOptions
 *
 * @typedef {object} Chunk
 * @property {number} seq its number in the feed, from 0
 * @property {string} cursor give it to `from`, to continue after this chunk
 * @property {number} time when it was published, by the server's clock, in milliseconds since 1970
 * @property {Uint8Array} bytes never written to again, and part of a larger buffer: `slice()` what is kept for long
 *
 * @typedef {object} Gap
 * @property {number} missing how many chunks; 0 if only the run of numbers is another
 * @property {boolean} restarted the feed started over: its numbers begin again
 * @property {boolean} reported whether the server said so; otherwise it is seen from the numbers
 *
 * What has come so far.
 * @typedef {object} Summary
 * @property {"ended" | "stopped"} outcome whether the feed ended, or following it did
 * @property {number} chunks
 * @property {number} bytes
 * @property {number | null} firstAt milliseconds from the start to the first chunk; null without any
 * @property {number} duration milliseconds
 * @property {string | undefined} cursor of the last chunk
 *
 * @typedef {{ state: "connecting", attempt: number }} Connecting `attempt` is 0 at first, and counts those that failed
 *   since a chunk came
 * @typedef {{ state: "streaming", transport: Transport, protocol: string, verdicts: Verdict[] }} Streaming `protocol` is
 *   what the browser reports: "h3", "h2", "http/1.1", or "unknown"; `verdicts` say why this transport was taken
 * @typedef {{ state: "stalled", cause: string | undefined }} Stalled connected, but nothing can come to the server now:
 *   `cause` is why, if it says that; `streaming` follows
 * @typedef {{ state: "reconnecting", error: ClientError, waitMs: number, attempt: number }} Reconnecting the connection
 *   was lost, or there was none; the next attempt follows in `waitMs` milliseconds
 * @typedef {{ state: "ended" | "stopped", summary: Summary }} Ended
 * @typedef {{ state: "failed", error: ClientError }} Failed trying again would bring the same
 * @typedef {Connecting | Streaming | Stalled | Reconnecting | Ended | Failed} Status
 *
 * A feed that is followed.
 * @typedef {object} Following
 * @property {Promise<Summary>} done resolves when the feed has ended or following it was stopped; rejects with a
 *   `ClientError` when it failed for good, or with what a callback threw
 * @property {string | undefined} cursor of the last chunk; at first the one that was given
 * @property {(input: string | Uint8Array | null) => Promise<void>} send sends input to the command behind the feed (a
 *   server with `--input`), in the order of the calls; `null` ends its input. Resolves when the connection has taken it;
 *   rejects with a `ClientError` if there is no connection now, if the feed takes no input, or if the server refuses it
 * @property {() => void} stop ends it at once: no chunk comes after this
 * @property {() => void} retryNow ends the wait before the next attempt, if there is one
 */

/**
 * Follows a feed until it ends, fails for good, or is stopped. A lost connection is replaced after a while (up to
 * 0.25 s at first, 15 s in the end, at random), and the feed continues after the last chunk. Callbacks are called
 * after this has returned.
 *
 * @param {string | URL} url the feed's: `https://HOST/stream` or `https://HOST/stream/NAME`
 * @param {FollowOptions} [options]
 * @returns {Following}
 * @throws {TypeError} if that is not the address of a feed
 */
export function follow(url, options = {}) {
  const { onChunk, onGap, onState, signal } = options;
  const { env, ...wanted } = prepare(url, options);
  let cursor = /^[0-9a-f]+-\d+$/i.test(wanted.from) ? wanted.from : undefined;
  let stopped = false;
  /** @type {{ cause: unknown } | undefined} what a callback threw */
  let thrown;
  /** @type {Streaming | undefined} */
  let streaming;
  /** @type {(summary: Summary) => void} */
  let resolve;
  /** @type {(cause: unknown) => void} */
  let reject;
  const done = new Promise((/** @type {typeof resolve} */ yes, no) => {
    resolve = yes;
    reject = no;
  });
  // `onState` may be all that somebody wants to know.
  done.catch(() => {});
  const stop = () => {
    stopped = true;
    follower.stop();
  };
  /**
   * A callback that throws is no lost connection.
   * @template T
   * @param {((argument: T) => void) | undefined} callback
   * @param {T} argument
   */
  const tell = (callback, argument) => {
    if (thrown !== undefined) return;
    try {
      callback?.(argument);
    } catch (cause) {
      thrown = { cause };
      stop();
    }
  };
  /** @param {import("./place.mjs").Missed | undefined} missed */
  const gap = (missed) => {
    if (missed === undefined || stopped) return;
    tell(onGap, { missing: missed.missing, restarted: missed.restarted, reported: missed.told });
  };
  /** @param {Status} status */
  const state = (status) => tell(onState, status);
  /**
   * @param {Summary["outcome"]} outcome
   * @param {import("./follow.mjs").Totals} totals
   */
  const end = (outcome, totals) => {
    const summary = { outcome, ...totals, cursor };
    state({ state: outcome, summary });
    if (thrown === undefined) resolve(summary);
    else reject(thrown.cause);
  };
  const follower = new Follower(env, {
    onInfo() {},
    onBegin() {},
    onPath() {},
    onConnecting: (attempt) => state({ state: "connecting", attempt }),
    onOpen({ transport, protocol }, verdicts) {
      streaming = { state: "streaming", transport, protocol, verdicts };
      state(streaming);
    },
    onChunk({ seq, micros, bytes }) {
      cursor = `${follower.epoch}-${seq}`;
      tell(onChunk, { seq, cursor, time: micros / 1000, bytes });
    },
    onResumed: gap,
    onMissed: gap,
    onStalled: (stalled, cause) => {
      if (stalled) state({ state: "stalled", cause });
      else if (streaming !== undefined) state(streaming);
    },
    onLost: (error, waitMs, attempt) => state({ state: "reconnecting", error, waitMs, attempt }),
    onEnded: (totals) => end("ended", totals),
    onStopped: (totals) => end("stopped", totals),
    onError(error) {
      state({ state: "failed", error });
      reject(thrown === undefined ? error : thrown.cause);
    },
  });

  signal?.addEventListener("abort", stop);
  done.finally(() => signal?.removeEventListener("abort", stop)).catch(() => {});
  queueMicrotask(() => {
    void follower.start(wanted);
    if (stopped || signal?.aborted) stop();
  });
  /** What is sent waits for what was sent before. */
  let before = Promise.resolve();
  /** @type {{ to: typeof follower.send, error: ClientError } | undefined} a session refuses after it has taken something */
  let refused;
  /** @param {string | Uint8Array | null} input */
  const send = (input) => {
    const to = follower.send;
    const bytes = input === null ? null : typeof input === "string" ? new TextEncoder().encode(input) : new Uint8Array(input);
    const sent = before.then(async () => {
      // What was meant for one command is not for the next.
      if (to === undefined || follower.send !== to) throw noCommand();
      if (refused?.to !== to) {
        await to(bytes, { fetch: env.fetch, onRefused: (error) => (refused = { to, error }) });
      }
      if (refused?.to === to) throw refused.error;
    });
    before = sent.catch(() => {});
    return sent;
  };
  return {
    done,
    get cursor() {
      return cursor;
    },
    send,
    stop,
    retryNow: () => follower.retryNow(),
  };
}

/**
 * One connection to a feed, as it is opened.
 * @typedef {object} OpenedFeed
 * @property {ReadableStream<Uint8Array>} stream of frames, for `frames.FrameDecoder`; it ends after the feed's `end`
 *   frame, and without one when the connection was lost
 * @property {Transport} transport
 * @property {Verdict[]} verdicts why this transport was taken
 * @property {(waitMs?: number) => Promise<string>} protocol what the browser reports for this request, which may be only
 *   at its end; "unknown" if it has not within `waitMs` (1000)
 * @property {(cause: unknown, bytes: number) => Promise<ClientError>} failure why a read failed, in words; `bytes` is how
 *   many had come
 * @property {() => void} close lets go of it; safe to repeat
 */

/**
 * Opens a feed once, for those who read its frames themselves. Nothing is resumed; `follow` does that.
 *
 * @param {string | URL} url as for `follow`
 * @param {OpenOptions} [options]
 * @returns {Promise<OpenedFeed>}
 * @throws {ClientError} if it cannot be opened, and `signal`'s reason if that ends it
 * @throws {TypeError} if that is not the address of a feed
 */
export async function openFeed(url, options = {}) {
  const { signal = new AbortController().signal } = options;
  const { env, ...wanted } = prepare(url, options);
  const rests = new Rests(() => env.performance.now());
  for (;;) {
    try {
      const { info, protocol } = await loadInfo(env, signal);
      const { source, verdicts } = await open({ env, info, protocol, signal, rests, ...wanted });
      const { stream, transport } = source;
      // Sessions do not end with the signal by themselves.
      const close = () => {
        signal.removeEventListener("abort", close);
        source.close();
      };
      signal.addEventListener("abort", close);
      if (signal.aborted) close();
      signal.throwIfAborted();
      return {
        stream, transport, verdicts, close,
        protocol: (waitMs) => source.protocol(waitMs),
        failure: async (cause, bytes) => source.failure(cause, bytes),
      };
    } catch (cause) {
      signal.throwIfAborted();
      const error = asClientError(cause);
      const wantsToken = error.needsToken || error.otherToken;
      if (!wantsToken || typeof options.token !== "function" || !(await env.token?.after(error, signal))) throw error;
    }
  }
}

/**
 * @param {string | URL} url
 * @param {OpenOptions} options
 */
function prepare(url, options) {
  const { server, feed, from, token: shown = "", query } = feedAddress(url);
  const { token: given = shown, transport: choice = "auto" } = options;
  if (!["auto", "fetch", "webtransport"].includes(choice)) throw new TypeError(`unknown transport: ${choice}`);
  const fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
  const token = new Token({ fetch, storage: undefined, href: server });
  if (typeof given === "string") token.set(given);
  else token.ask = async (why, signal) => given(why, signal);
  const env = environment(server, token);
  if (options.WebTransport !== undefined) env.WebTransport = options.WebTransport;
  return { env, choice, feed, from: options.from ?? from ?? "now", query };
}
