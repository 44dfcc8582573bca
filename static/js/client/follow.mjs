// @ts-check
import { Reading } from "./reading.mjs";

/** @typedef {import("./types.mjs").Env} Env */
/** @typedef {import("./types.mjs").Verdict} Verdict */
/** @typedef {import("./errors.mjs").ClientError} ClientError */
/** @typedef {import("./place.mjs").Missed} Missed */
/** @typedef {import("./types.mjs").Path} Path */

/**
 * @typedef {object} Wanted
 * @property {import("./types.mjs").TransportChoice} choice
 * @property {string} feed
 * @property {string} from `now`, `start`, `-N` for the last N chunks, or a cursor, to continue after that chunk
 * @property {Record<string, string>} [query] what else the feed is asked for
 *
 * @typedef {object} Received
 * @property {number} seq
 * @property {number} micros when it was published, since 1970
 * @property {number} at milliseconds from the start, when it came
 * @property {number | null} gap milliseconds since the chunk before; null for the first
 * @property {Uint8Array} bytes part of what one read brought, which is never written to again
 *
 * @typedef {object} Totals
 * @property {number} chunks
 * @property {number} bytes
 * @property {number | null} firstAt milliseconds from the first request to the first chunk
 * @property {number} duration milliseconds
 *
 * What a follower tells whoever shows it.
 * @typedef {object} FollowEvents
 * @property {(info: import("./info.mjs").Info) => void} onInfo
 * @property {(attempt: number) => void} onConnecting 0 at the start, then which attempt to come back
 * @property {(path: Path, verdicts: Verdict[]) => void} onOpen
 * @property {(published: number) => void} onBegin how many chunks a live feed has had so far, each time that
 *   its stream opens at the live edge
 * @property {(path: Path) => void} onPath the browser's report, when it comes
 * @property {(chunk: Received) => void} onChunk
 * @property {(missed: Missed | undefined) => void} onResumed it is known what was missed while the
 *   connection was lost; undefined: nothing
 * @property {(missed: Missed) => void} onMissed chunks went by without a loss of the connection
 * @property {(stalled: boolean, cause: string | undefined) => void} onStalled nothing can come now to the server, and why,
 *   if it says that; or it can again
 * @property {(error: ClientError, waitMs: number, attempt: number, verdicts: Verdict[]) => void} onLost
 * @property {(totals: Totals) => void} onEnded the feed is over
 * @property {(totals: Totals) => void} onStopped
 * @property {(error: ClientError, verdicts: Verdict[]) => void} onError there is no use in going on
 */

/** Follows a feed over as many connections as it takes. At most one reading at a time. */
export class Follower {
  #env;
  #events;
  /** @type {Reading | undefined} */
  #reading;

  /**
   * @param {Env} env
   * @param {FollowEvents} events
   */
  constructor(env, events) {
    this.#env = env;
    this.#events = events;
  }

  get running() {
    return this.#reading !== undefined;
  }

  /** The run of numbers that chunks belong to now, as cursors have it. */
  get epoch() {
    return this.#reading?.epoch;
  }

  /** What sends input to the command of the feed, if there is a connection and it takes any. */
  get send() {
    return this.#reading?.send;
  }

  /** Ends the reading, if there is one; `onStopped` follows. */
  stop() {
    this.#reading?.abort.abort();
  }

  /** Ends the wait before the next attempt, if there is one. */
  retryNow() {
    this.#reading?.hurry();
  }

  /**
   * What the server says of the feed that is read.
   * @param {number} chunks how many it has had
   * @param {string | undefined} epoch
   * @returns {number | undefined} how many of them have not come; undefined: that cannot be told
   */
  told(chunks, epoch) {
    return this.#reading?.told(chunks, epoch);
  }

  /**
   * Resolves after the last event; never rejects.
   * @param {Wanted} wanted
   */
  async start(wanted) {
    if (this.#reading !== undefined) return;
    const reading = (this.#reading = new Reading(this.#env, this.#events, wanted));
    const last = await reading.run();
    this.#reading = undefined;
    // Told last, when a new start is possible again.
    last();
  }
}
